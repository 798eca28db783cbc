"""Building from tables: what fits is built, and what does not gives one sentence that names the place and the fix."""

import dataclasses
import typing  # noqa: F401  (the hints below name it)
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture.core import Preset, UserError, build, fields_of
from nurture.core.build import suggest


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


ANY = object()
FITS = {  # hint -> values that a config may give, and values that it may not
  "float": ((1, 0.5, np.float32(2), np.asarray(2.0)), (True, "x", None, (1.0,), np.ones(2), float("inf"))),
  "int": ((3, np.int64(3)), (3.0, True, "3", None)),
  "bool": ((True, np.True_), (1, 0.0, "True")),
  "str": (("a", ""), (1, None, True)),
  "None": ((None,), (0, "", False)),
  "str | None": (("a", None), (1, False)),
  "float | str": ((1.5, "word"), (None, True)),
  "typing.Optional[int]": ((None, 2), (2.5, "2.5")),
  "tuple[int, ...]": (((), (1, 2), [1, 2]), (1, "ab", (1, 2.5), ("a",), {1: 2})),
  "tuple[int, str]": (((1, "a"),), (1, ("a", 1))),
  "list": (([], (1,)), (1, "ab")),
  "dict": (({}, {"a": 1}), (1, ("a",), "ab")),
  "typing.Mapping[str, int]": (({"a": "b"},), (1, [1])),
  "typing.Literal['a', 2]": (("a", 2), ("b", 3, None)),
  "complex": ((1, 2.5, np.ones(3)), ("x", None, (1,))),
  "jax.Array": ((1, np.ones(3), np.float32(1)), ("x", None)),
  "np.ndarray": ((np.ones(3), 2), ("x", (1, 2))),
  "typing.Callable": ((len,), (ANY, 1, "x", None)),
  "typing.Any": ((ANY, "x"), ()),
}


def row_of(hint):
  def row(value):
    return [value]

  row.__annotations__ = {"value": hint}
  return row


@pytest.mark.parametrize("hint", FITS)
def test_a_value_fits_its_hint_or_is_refused(hint):
  fitting, others = FITS[hint]
  table = {"row": row_of(hint)}
  for value in fitting:
    found = build(table, {"name": "row", "value": value})[0]
    assert found is value or found == value
  for value in others:
    with pytest.raises(UserError, match="^value is "):
      build(table, {"name": "row", "value": value})


@pytest.mark.parametrize(("hint", "value", "words"), [
  ("bool", 1, r"value is 1 \(int\), but 'row' needs true or false\."),
  ("str", 1, r"needs a string\."), ("int", "x", r"value is 'x' \(str\), but 'row' needs a whole number\."),
  ("str | None", 1, r"needs a string or nothing\."), ("dict", 1, r"needs a dict\."),
  ("typing.Literal['a', 2]", 1, r"needs one of 'a', 2\."), ("tuple[int, ...] | None", 1, r"needs a tuple or nothing\."),
  ("list", 1, r"needs a tuple\."), ("typing.Mapping[str, int]", 1, r"needs a dict\."),
  ("str", np.ones(2, np.int16), r"value is an array of type int16, but"),
])
def test_what_is_needed_is_said_in_words(hint, value, words):
  with pytest.raises(UserError, match=words):
    build({"row": row_of(hint)}, {"name": "row", "value": value})


@pytest.mark.parametrize(("hint", "value", "read"), [
  ("float | typing.Literal['all']", "0.5", 0.5), ("float | typing.Literal['all']", "all", "all"),
  ("float | None", "2", 2.0), ("float | str", "0.5", "0.5"), ("str", "0.5", "0.5"),
])
def test_a_number_spelled_as_a_word_is_read_where_only_the_number_fits(hint, value, read):
  assert build({"row": row_of(hint)}, {"name": "row", "value": value}) == [read]


def test_a_word_is_not_read_where_a_plain_number_is_needed():
  for hint in ("float", "float | None"):
    with pytest.raises(UserError, match="value is 'much'"):
      build({"row": row_of(hint)}, {"name": "row", "value": "much"})
  with pytest.raises(UserError, match="value is '0.5'"):
    build({"row": row_of("float")}, {"name": "row", "value": "0.5"})


def test_hints_that_nothing_can_resolve_check_nothing():
  assert build({"row": row_of("Unknown")}, {"name": "row", "value": "x"}) == ["x"]


def test_what_a_constructor_refuses_is_said_with_its_place():
  def refuse(error):
    def row():
      raise error
    return {"row": row}

  for error in (ValueError("alpha is 2"), TypeError("alpha is 2")):
    with pytest.raises(UserError, match=r"^losses\.ce: alpha is 2\.$") as caught:
      build(refuse(error), "row", path="losses.ce")
    assert caught.value.__cause__ is error
    with pytest.raises(UserError, match=r"^row: alpha is 2\.$"):
      build(refuse(error), "row")
  with pytest.raises(KeyError):  # a defect of the program keeps its traceback
    build(refuse(KeyError("x")), "row")
  with pytest.raises(jax.errors.ConcretizationTypeError):  # the caller asks whether a value may vary
    jax.jit(lambda x: build({"row": lambda factor: float(factor)}, {"name": "row", "factor": x}))(1.0)


def test_the_fields_of_a_row_are_what_a_config_may_set():
  class Layer(nn.Module):
    width: int
    rate: float = 0.0

  assert list(fields_of(Layer)) == ["width", "rate"] == list(fields_of(Preset(Layer, width=3)))
  assert list(fields_of(lambda a, *args, b=1, **kwargs: None)) == ["a", "b"]
  layer = build({"layer": Preset(Layer, width=3)}, {"name": "layer", "rate": 1})
  assert (layer.width, layer.rate) == (3, 1)
  assert repr(Preset(Layer, width=3)) == "Preset(Layer, {'width': 3})"


def test_the_nearest_name_is_suggested_only_if_it_is_near():
  assert suggest("alhpa", ["beta", "alpha"]) == "did you mean 'alpha'? (known: alpha, beta)"
  assert suggest("ce", ["mse", "cross_entropy_ce"]).startswith("did you mean 'cross_entropy_ce'?")  # contains it
  assert suggest("zzz", ["b", "a"]) == "known: a, b"
  assert suggest("", ["b", "a"]) == "known: a, b" and suggest("x", []) == "known: none"
  forty = [f"row_{i:02d}" for i in range(40)]
  assert suggest("row_0x", forty).endswith(", row_39)")  # all of them
  assert suggest("row_0x", [*forty, "row_40"]).endswith(" and 21 more)")
  with pytest.raises(UserError, match=r"^name is 'x', which does not exist; known: scale"):
    build(TABLE, "x")
