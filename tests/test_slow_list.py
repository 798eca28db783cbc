"""The list of tests that `make test-fast` leaves out: what it names exists and is marked, and nothing else is."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
NAMES = (ROOT / "tests" / "slow.txt").read_text().splitlines()


def test_every_name_is_of_a_test_that_exists():
  for file in sorted({name.split("::")[0] for name in NAMES}):
    named = {name.split("::")[-1] for name in NAMES if name.split("::")[0] == file}
    found = set(re.findall(r"^ *def (test_\w+)", (ROOT / file).read_text(), re.MULTILINE))
    assert named <= found, f"{file} has no {sorted(named - found)}: run `make slow-list`"


def test_what_the_list_names_is_marked_and_nothing_else(request):
  for item in request.session.items:
    assert (item.get_closest_marker("slow") is not None) == (item.nodeid.split("[")[0] in NAMES), item.nodeid
