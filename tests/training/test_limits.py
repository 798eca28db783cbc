"""The least and the largest whole numbers that a config may hold: each is taken, and the next one is refused."""

import pytest

from nurture.core import UserError
from nurture.testing import class_spec
from nurture.training.config import SECTIONS, check, put
from nurture.training.references import Reference
from tests.tiny import tiny_config

LEAST = {
  "steps": 1, "batch_size": 1, "log_every": 1, "ensemble.seeds": 1, "evaluation.batch_size": 1, "checkpoint.keep": 1,
  "steps_per_dispatch": 0, "ensemble.chunk": 0, "checkpoint.every": 0, "seed": 0,
}


@pytest.mark.parametrize("path", LEAST)
def test_the_least_number_is_taken_and_one_less_is_refused(path):
  check(put(tiny_config(), {path: LEAST[path]}))
  check(put(tiny_config(), {path: 10**6}))
  with pytest.raises(UserError, match=rf"config\.{path} is {LEAST[path] - 1}"):
    check(put(tiny_config(), {path: LEAST[path] - 1}))
  for other in (float(LEAST[path]), True, "1", None):
    with pytest.raises(UserError, match=rf"config\.{path} is {other!r}"):
      check(put(tiny_config(), {path: other}))


def test_every_seed_has_32_bits():
  check(tiny_config(seed=2**32 - 1))
  check(tiny_config(seed=2**32 - 5, ensemble__seeds=5))
  for changes in ({"seed": 2**32}, {"seed": 2**32 - 5, "ensemble__seeds": 6}):
    with pytest.raises(UserError, match="seed 4294967296, which has more than 32 bits|seed is 4294967296; give a"):
      check(tiny_config(**changes))


@pytest.mark.parametrize(("seed", "fits"), [(0, True), (2**32 - 1, True), (2**32, False), (-1, False)])
def test_the_seed_of_a_reference_has_32_bits(seed, fits):
  spec = class_spec(num_examples=4, num_classes=3, input_shape=(2,), batch_size=2)
  config = tiny_config(references={"guide": {"model": {"name": "mlp", "depth": 1, "width": 2}, "seed": seed}})
  if fits:
    assert Reference.read(config, "guide", spec).entry.seed == seed
  else:
    with pytest.raises(UserError, match=rf"config\.references\.guide\.seed is {seed}"):
      Reference.read(config, "guide", spec)


@pytest.mark.parametrize("section", SECTIONS)
def test_no_section_may_be_missing_or_of_another_type(section):
  config = tiny_config()
  check(config)
  with pytest.raises(UserError, match=rf"config\.{section} is missing"):
    check({name: value for name, value in config.items() if name != section})
  with pytest.raises(UserError, match=rf"config\.{section} is 'x' \(str\), but"):
    check(config | {section: "x"})
  with pytest.raises(UserError, match=rf"config\.{section}s does not exist"):
    check(config | {f"{section}s": config[section]})


@pytest.mark.parametrize("section", ["targets", "losses", "gradients", "parameters", "probes", "references",
                                     "data.augment"])
def test_a_part_is_a_dict_under_a_label(section):
  check(put(tiny_config(), {section: {"a": {"name": "x"}}} | ({} if section != "parameters" else {
    "evaluation.parameters": "a"})))
  with pytest.raises(UserError, match=rf"config\.{section}\.a is 3; give a dict"):
    check(put(tiny_config(), {section: {"a": 3}}))


def test_words_that_choose():
  for value in ("vmap", "map"):
    check(tiny_config(ensemble__map=value))
  with pytest.raises(UserError, match="ensemble.map is 'pmap'"):
    check(tiny_config(ensemble__map="pmap"))
  check(tiny_config(evaluation__parameters="average"))
  with pytest.raises(UserError, match="evaluation.parameters is 'averag'; did you mean 'average'"):
    check(tiny_config(evaluation__parameters="averag"))
  with pytest.raises(UserError, match="losses is empty"):
    check(tiny_config(losses={}))
