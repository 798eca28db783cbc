"""Building from tables: what fits is built, and what does not gives one sentence that names the place and the fix."""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import pytest

from lib.core import Preset, UserError, build, fields_of
from lib.core.build import suggest


@dataclasses.dataclass(frozen=True)
class Smoothing:
  alpha: float
  kind: Literal["uniform", "other"] = "uniform"
  steps: int = 3
  classes: tuple[int, ...] = ()


def scale(factor: float, num_classes: int):
  return factor * num_classes


TABLE = {"smoothing": Smoothing, "strong_smoothing": Preset(Smoothing, alpha=0.5, steps=7), "scale": scale}


def test_of_many_names_the_nearest_are_listed():
  sentence = suggest("row_7x", [f"row_{i}" for i in range(100)])
  assert sentence.startswith("did you mean 'row_7'? (known: row_") and sentence.endswith(" and 80 more)")
  assert "more" not in suggest("a", ["b", "c"])


def test_builds_dataclasses_functions_presets_and_bare_names():
  assert build(TABLE, {"name": "smoothing", "alpha": 0.1}) == Smoothing(0.1)
  assert build(TABLE, {"name": "smoothing", "alpha": 1}).alpha == 1
  assert build(TABLE, "strong_smoothing") == Smoothing(0.5, steps=7)
  assert build(TABLE, {"name": "strong_smoothing", "steps": 1}) == Smoothing(0.5, steps=1)
  assert list(fields_of(Smoothing)) == ["alpha", "kind", "steps", "classes"]


def test_supplied_values_fill_gaps_and_never_override():
  assert build(TABLE, {"name": "scale", "factor": 2.0}, num_classes=10) == 20
  assert build(TABLE, {"name": "scale", "factor": 2.0, "num_classes": 3}, num_classes=10) == 6
  assert build(TABLE, {"name": "smoothing", "alpha": 0.0}, num_classes=10) == Smoothing(0.0)  # has no such field


def test_a_float_may_be_traced_and_an_int_may_not():
  alpha = jax.jit(lambda a: build(TABLE, {"name": "smoothing", "alpha": a}).alpha * 2)(jnp.float32(0.25))
  assert alpha == 0.5
  with pytest.raises(UserError, match="steps is an array of type float32"):
    jax.jit(lambda s: build(TABLE, {"name": "smoothing", "alpha": 0.0, "steps": s}).steps)(jnp.float32(2))


@pytest.mark.parametrize(("config", "message"), [
  ({"name": "smothing"}, r"targets\.ls\.name is 'smothing', which does not exist; did you mean 'smoothing'\?"),
  ({"name": "smoothing", "alhpa": 0.1}, r"targets\.ls\.alhpa does not exist for 'smoothing'; did you mean 'alpha'\?"),
  ({"name": "smoothing"}, r"targets\.ls\.alpha is missing"),
  ({"name": "smoothing", "alpha": "0.1"}, r"targets\.ls\.alpha is '0\.1' \(str\), but 'smoothing' needs a number"),
  ({"name": "smoothing", "alpha": True}, r"needs a number"),
  ({"name": "smoothing", "alpha": 0.1, "steps": 2.5}, r"targets\.ls\.steps is 2\.5 \(float\).* a whole number"),
  ({"name": "smoothing", "alpha": 0.1, "steps": True}, r"a whole number"),
  ({"name": "smoothing", "alpha": 0.1, "kind": "unifrom"}, r"one of 'uniform', 'other'"),
  ({"name": "smoothing", "alpha": 0.1, "classes": ("a",)}, r"a tuple"),
  ({"alpha": 0.1}, r"targets\.ls has no 'name'"),
  (0.1, r"targets\.ls is 0\.1; give a name or a dict"),
])
def test_mistakes_are_one_sentence_that_names_the_path(config, message):
  with pytest.raises(UserError, match=message) as caught:
    build(TABLE, config, path="targets.ls")
  assert "\n" not in str(caught.value)
