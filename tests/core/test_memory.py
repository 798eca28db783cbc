"""What memory there is, and what is said of what does not fit."""

import pathlib
import types

import jax
import jax.numpy as jnp
import pytest

from nurture.core import UserError, memory


@pytest.mark.parametrize("size, words", [
  (0, "0 MiB"), (3 * 2**19, "1.5 MiB"), (2**30 - 1, "1.02e+03 MiB"), (2**30, "1 GiB"), (5 * 2**40, "5 TiB"),
  (2**50, "1 PiB"), (2**60 - 1, "1.02e+03 PiB"), (7 * 2**59, "3.5 EiB"),
])
def test_bytes_in_words(size, words):
  assert memory.in_words(size) == words


def test_what_does_not_fit_names_its_largest_part():
  memory.check({"config.model": 6, "config.data": 4}, 10, "training")
  words = "training needs at least 1.07 GiB of memory, 1 GiB of it for config.data, and 1 GiB are free; rest a while."
  with pytest.raises(UserError) as error:
    memory.check({"config.model": 70 * 2**20, "config.data": 2**30}, 2**30, "training", "rest a while")
  assert str(error.value) == words


def files(monkeypatch, tmp_path, *, table=None, container=None):
  """Puts files in the place of the system's."""
  for name, text in (("meminfo", table), ("limit", container)):
    if text is not None:
      (tmp_path / name).write_text(text)
  where = {"/proc/meminfo": tmp_path / "meminfo"}
  monkeypatch.setattr(memory, "pathlib", types.SimpleNamespace(Path=lambda name: pathlib.Path(where.get(name, name))))
  monkeypatch.setattr(memory, "_OF_CONTAINER", (tmp_path / "limit",))


@pytest.mark.parametrize("table, container, expected", [
  ("MemTotal: 9 kB\nMemAvailable:  300 kB\n", None, 300 * 1024),
  ("MemAvailable: 300 kB\n", "1000", 1000),
  ("MemAvailable: 300 kB\n", "max", 300 * 1024),
  ("MemTotal: 9 kB\n", None, 8 * 2**30),  # a system that does not say is taken for one of 8 GiB
  (None, "4096", 4096),
])
def test_the_machine_has_what_the_system_or_the_container_says(monkeypatch, tmp_path, table, container, expected):
  files(monkeypatch, tmp_path, table=table, container=container)
  assert memory.host_bytes() == expected


@pytest.mark.parametrize("stats, expected", [
  ({"bytes_limit": 100, "bytes_in_use": 30}, 70), ({"bytes_limit": 100}, 100), ({}, "host"), (None, "host"),
])
def test_a_device_has_what_it_says_or_what_its_machine_has(monkeypatch, stats, expected):
  class Device:
    def memory_stats(self):
      return stats

  monkeypatch.setattr(memory.jax, "local_devices", lambda: [Device()])
  monkeypatch.setattr(memory, "host_bytes", lambda: "host")
  assert memory.free_bytes() == expected


def test_the_largest_array_is_found_wherever_it_is_made():
  large = lambda x: jnp.sum(jnp.ones((300, 1000)) * x)
  scanned = lambda x: jax.lax.scan(lambda c, _: (c + large(c), None), x, None, length=3)[0]
  for function in (large, jax.jit(large), scanned, jax.grad(jax.checkpoint(scanned))):
    assert memory.largest_array(jax.make_jaxpr(function)(1.0)) == 4 * 300 * 1000
  assert memory.largest_array(jax.make_jaxpr(lambda x: x)(1.0)) == 0
