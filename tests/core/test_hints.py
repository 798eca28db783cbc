"""Numbers that a type lets through: ends, NaN, infinity, what 32 bits cannot hold, and what stands inside a trace."""

import typing
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.core.hints import (
  Count,
  Limit,
  Memory,
  NonNegative,
  Positive,
  Range,
  Seed,
  Share,
  Whole,
  annotate,
  check,
  check_argument,
  check_fields,
  matches,
)

NAN, INF = float("nan"), float("inf")
INSIDE = [
  (Share, (0, 0.0, 1, 1.0, 0.5, np.float64(0.5), np.int64(1), 1e-300)),
  (Memory, (0, 0.999999)),
  (Positive, (1, 1e-30, 3e38)),
  (NonNegative, (0, 1e-300, 3e38)),
  (Limit, (0, INF)),
  (Count, (1, 2**31 - 1)),
  (Whole, (0, np.int32(4))),
  (Seed, (0, 2**32 - 1)),
  (float, (-1, 0, 1e-300, -3e38)),
  (int, (-(2**31) + 1, 0)),
  (Annotated[float, Range(above=-1, most=2)], (-0.5, 2)),
  (Annotated[int, Range(most=0)], (0, -5)),
  (Memory | None, (None, 0.9)),
  (float | Literal["-log_n"], ("-log_n", -4.5)),
  (tuple[Count, ...], ((), (1, 2))),
  (tuple[tuple[Whole, Share], ...], (((1, 0.5), (0, 0)),)),
]
OUTSIDE = [
  (Share, -1e-3, "a number from 0 to 1"),
  (Share, 1.5, "a number from 0 to 1"),
  (Share, NAN, "a number from 0 to 1"),
  (Memory, 1, "a number from 0 to below 1"),
  (Memory, 0.99999999, "a number from 0 to below 1, as float32 holds it"),  # is 1 there
  (Positive, 0, "a number above 0"),
  (Positive, 1e-50, "a number above 0, as float32 holds it"),  # is 0 there
  (Positive, 1e-45, "a number above 0, as float32 holds it"),  # is 0 to a processor that flushes
  (Positive, INF, "a finite number above 0"),
  (Limit, -0.1, "a number of at least 0"),
  (Limit, NAN, "a number of at least 0"),
  (Limit, -INF, "a finite number of at least 0"),
  (NonNegative, 1e39, "a number of at least 0, as float32 holds it"),
  (NonNegative, 10**400, "a number of at least 0, as float32 holds it"),
  (Count, 0, "a whole number of at least 1"),
  (Count, 2**31, "a whole number of at least 1, within 32 bits"),
  (Seed, 2**32, "a whole number from 0 to 4294967295"),
  (float, NAN, "a finite number"),
  (float, -INF, "a finite number"),
  (int, 2**40, "a whole number, within 32 bits"),
  (Annotated[float, Range(above=-1, most=2)], -1, "a number from above -1 to 2"),
  (Annotated[int, Range(most=0)], 1, "a whole number of at most 0"),
  (Memory | None, 1.0, "a number from 0 to below 1"),
  (float | Literal["-log_n"], NAN, "a finite number"),
  (typing.Any, NAN, "a finite number"),
]


@pytest.mark.parametrize("hint, values", INSIDE, ids=str)
def test_what_lies_inside_passes(hint, values):
  for value in values:
    check("x", value, hint)


@pytest.mark.parametrize("hint, value, wanted", OUTSIDE, ids=str)
def test_what_lies_outside_is_one_sentence(hint, value, wanted):
  with pytest.raises(UserError) as caught:
    check("config.x", value, hint)
  assert str(caught.value) == f"config.x is {value}; give {wanted}."


@pytest.mark.parametrize("hint, value, place", [
  (tuple[Count, ...], (4, 0), "x[1] is 0"),
  (tuple[Whole, Share], (0, 1.5), "x[1] is 1.5"),
  (tuple[tuple[Whole, Share], ...], ((0, 1), (1, -1)), "x[1][1] is -1"),
  (typing.Any, (1, (2, NAN)), "x[1][1] is nan"),
])
def test_the_item_of_a_tuple_is_named(hint, value, place):
  with pytest.raises(UserError) as caught:
    check("x", value, hint)
  assert str(caught.value).startswith(place)


@pytest.mark.parametrize("hint, value", [
  (Share, "0.5"), (Share, True), (Share, None), (Share, (0.5,)), (Share, {}), (Count, 1.0), (Count, True),
  (Whole, jnp.float32(1)), (Memory | None, "none"), (tuple[Count, ...], (1.5,)), (Literal[1, 2], True),
  (typing.Callable[..., int], 3), (Share, np.ones(2)),
])
def test_another_type_is_one_sentence(hint, value):
  assert not matches(value, hint)
  with pytest.raises(UserError, match="^x is .*, but 'row' needs [^.]*[.]$"):
    check("x", value, hint, "row")


def test_what_is_traced_passes():
  assert jax.jit(lambda value: check("x", value, Share))(jnp.float32(7)) == 7
  assert jax.vmap(lambda value: check("x", value, Memory | None))(jnp.array([7.0, NAN]))[0] == 7


def theirs(rate: float | np.ndarray | complex, steps=1, *, flag=False):
  return rate, steps, flag


def test_functions_of_other_libraries_are_held_to_ranges():
  table = {"row": annotate(theirs, rate=Share, steps=Count, of_others=Share)}
  assert build(table, {"name": "row", "rate": 0.5, "flag": True}) == (0.5, 1, True)
  for fields, message in (({"rate": 2}, "rate is 2"), ({"rate": 1j}, "rate is 1j"), ({"steps": 0}, "steps is 0")):
    with pytest.raises(UserError, match=message):
      build(table, {"name": "row", "rate": 0.5, **fields})
  with pytest.raises(UserError, match="of_others does not exist"):
    build(table, {"name": "row", "of_others": 0.5})


class Plain:
  def __init__(self, share: Share, limit: Limit = 0.0):
    self.share, self.limit = share, limit


def test_an_object_that_was_built_by_hand_can_be_checked():
  check_fields(Plain(0.5, INF), "config.x")
  with pytest.raises(UserError, match="config.x.share is 2; give a number from 0 to 1"):
    check_fields(Plain(2), "config.x")


@pytest.mark.parametrize("value, hint, expected", [
  ("-4.5", float | Literal["-log_n"], -4.5), ("-log_n", float | Literal["-log_n"], "-log_n"), (3, float, 3.0),
  (2**40, NonNegative, 2.0**40), (50_000, Positive | None, 50_000.0), (2**30, Count, 2**30),
  (True, bool, True), (None, Memory | None, None), ((1, 2), tuple[Count, ...], (1, 2)),
  ((2**40, 1), tuple[NonNegative, ...], (2.0**40, 1.0)), (3, int | float, 3), (3, float | int, 3.0),
])
def test_a_value_is_returned_as_its_field_holds_it(value, hint, expected):
  held = check("x", value, hint)
  assert repr(held) == repr(expected)


@pytest.mark.parametrize(("value", "hint", "words"), [
  (0, Count, "0; give a whole number of at least 1"),
  (2.0, Count, "2.0; give a whole number of at least 1"),
  (True, Count, "True; give a whole number of at least 1"),
  ("4", Count | None, "'4'; give a whole number or nothing"),
  (np.int64(-2), Positive, "-2; give a number above 0"),
  (jnp.zeros(()), Positive, "0.0; give a number above 0"),
  (np.ones(2), Positive, "a number above 0"),
  (NAN, NonNegative, "nan; give a number of at least 0"),
  (INF, NonNegative, "inf; give a finite number of at least 0"),
])
def test_an_argument_out_of_range_is_one_sentence(value, hint, words):
  with pytest.raises(UserError, match="^the x is ") as error:
    check_argument("the x", value, hint)
  assert str(error.value).endswith(f"{words}.")
  with pytest.raises(UserError, match="; give bread.$"):
    check_argument("the x", value, hint, "bread")


def test_an_argument_may_be_of_64_bits_none_or_traced():
  for value, hint in ((1e-300, Positive), (1e300, NonNegative), (2**40, Count), (None, Count | None), ("a", str)):
    check_argument("x", value, hint)
  jax.jit(lambda x: check_argument("x", x, Positive))(-1.0)
