"""Experiments that cannot fit into memory are one sentence that names the section, before anything is allocated."""

import jax
import jax.numpy as jnp
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


def test_the_largest_array_is_found_wherever_it_is_made():
  large = lambda x: jnp.sum(jnp.ones((300, 1000)) * x)
  scanned = lambda x: jax.lax.scan(lambda c, _: (c + large(c), None), x, None, length=3)[0]
  for function in (large, jax.jit(large), scanned, jax.grad(jax.checkpoint(scanned))):
    assert memory.largest_array(jax.make_jaxpr(function)(1.0)) == 4 * 300 * 1000


def test_a_container_has_its_own_limit(monkeypatch, tmp_path):
  whole = memory.host_bytes()
  assert whole > 2**20
  files = tmp_path / "memory.max", tmp_path / "missing"
  monkeypatch.setattr(memory, "_OF_CONTAINER", files)
  files[0].write_text("max\n")
  assert memory.host_bytes() > 2**20
  files[0].write_text("1048576\n")
  assert memory.host_bytes() == 2**20


@pytest.mark.parametrize("size, words", [
  (2**62, "4 EiB"), (3 * 2**39, "1.5 TiB"), (3 * 2**30, "3 GiB"), (5 * 2**20, "5 MiB"),
])
def test_sizes_in_words(size, words):
  with pytest.raises(UserError, match=f"x needs at least {words} of memory, {words} of it for config.y, and 0 MiB"):
    memory.check({"config.y": size}, 0, "x")
