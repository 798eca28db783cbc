"""Every row of every table has a config in the contract suites, and every config a row."""

import pytest

from tests.contracts.rows import CONFIGS, TABLES


def missing(table, configs):
  """Returns the names that only one of the two knows."""
  return sorted(set(table) ^ set(configs))


@pytest.mark.parametrize("name", TABLES)
def test_tables_and_configs_have_the_same_rows(name):
  assert not missing(TABLES[name], CONFIGS[name])
  assert all(CONFIGS[name].values()), "a row without a config is not checked"


def test_every_table_is_covered():
  assert set(TABLES) == set(CONFIGS)


@pytest.mark.parametrize("name", TABLES)
def test_a_forgotten_row_is_caught(name):
  assert missing({**TABLES[name], "new": None}, CONFIGS[name]) == ["new"]
  first = next(iter(TABLES[name]))
  assert missing({k: v for k, v in TABLES[name].items() if k != first}, CONFIGS[name]) == [first]
