"""Selection of taps by a word."""

import pytest

from nurture.core import UserError
from nurture.core.taps import ACTIVATION_KINDS, kind, select

NAMES = ("000_conv", "001_norm", "002_relu", "003_stage1.block0.conv", "004_stage1.block0.gelu", "005_dense")
TAPS = {name: i for i, name in enumerate(NAMES)}


def chosen(which, taps=TAPS):
  return list(select(taps, which).values())


def test_the_kind_is_what_the_layer_does():
  assert [kind(name) for name in NAMES] == ["conv", "norm", "relu", "conv", "gelu", "dense"]
  assert {"relu", "gelu"} <= ACTIVATION_KINDS and "conv" not in ACTIVATION_KINDS


@pytest.mark.parametrize(("which", "indices"), [
  ("all", [0, 1, 2, 3, 4, 5]), ("post", [2, 4]), ("pre", [1, 3]), ("conv", [0, 3]), ("005_dense", [5]),
  (("dense", "pre"), [1, 3, 5]), (["norm", "001_norm"], [1]), ((), []), (iter(["post"]), [2, 4]),
])
def test_words_choose_taps_in_call_order(which, indices):
  assert chosen(which) == indices


def test_taps_come_in_call_order_however_they_are_kept():
  assert list(select(dict(reversed(TAPS.items())), "all")) == list(NAMES)
  assert chosen("pre", {"000_relu": 0, "001_relu": 1}) == [0]  # nothing stands before the first


def test_an_unknown_word_names_what_there_is():
  with pytest.raises(UserError, match=r"no taps of kind 'cnv'; did you mean 'conv'\? .*its taps are: 000_conv, "):
    select(TAPS, "cnv")
  with pytest.raises(UserError, match="known: all, dense") as caught:
    select({"000_dense": 0}, "post")
  assert "pre" not in str(caught.value).split("its taps")[0]
  thirty = {f"{i:03d}_dense": i for i in range(30)}
  with pytest.raises(UserError, match=r"029_dense\.$"):
    select(thirty, "post")
  with pytest.raises(UserError, match=r"029_dense and 2 more\.$"):
    select(thirty | {"030_dense": 30, "031_dense": 31}, "post")
