"""Experiments that cannot fit into memory are one sentence that names the section, before anything is allocated."""

import pytest

from nurture.core import UserError, memory
from tests.tiny import read, tiny_config

GUIDE = {"guide": {"model": {"name": "mlp", "width": 10**9}}}
WIDE = {"name": "cnn", "layers": (("pad_to", 10**6), ("conv", 4, 3), ("global_avg_pool",))}


@pytest.mark.parametrize("changes, largest", [
  ({"model__width": 10**9}, "config.model"),
  ({"model__width": 2**31 - 1}, "config.model"),
  ({"model__depth": 2, "model__width": 10**9}, "config.model"),
  ({"model": {"name": "vit", "patch": 2, "width": 10**9}}, "config.model.width"),
  ({"references": GUIDE}, "config.references.guide.model"),
  ({"model": WIDE}, "config.batch_size"),
], ids=str)
def test_what_is_too_large_names_its_section(changes, largest):
  with pytest.raises(UserError) as caught:
    read(tiny_config(**changes))
  sentence = str(caught.value)
  assert f"of it for {largest}" in sentence and sentence.endswith("are free; make that smaller."), sentence


def test_members_that_do_not_fit_together_are_refused_and_those_that_do_are_not(monkeypatch):
  experiment = read(tiny_config())
  needed = []
  monkeypatch.setattr(memory, "check", lambda needs, *rest: needed.append(sum(needs.values())))
  for count in (1, 2, 3):
    experiment.check_memory(count)
  one = needed[1] - needed[0]
  assert needed[2] - needed[1] == one > 4 * (64 * 8 + 8 * 10)  # of members the states and steps, of the data one copy
  monkeypatch.undo()
  monkeypatch.setattr(memory, "free_bytes", lambda: needed[1])
  experiment.check_memory(2)
  with pytest.raises(UserError, match="^training 3 members at once needs .* config.ensemble.chunk to fewer members"):
    experiment.check_memory(3)
