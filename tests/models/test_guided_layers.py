"""Layers that the configs of guidance compare, where they follow the official code (arXiv:2410.20035)."""

import jax
import jax.numpy as jnp
import pytest

from configs.guidance import full_size
from nurture import models
from nurture.core.taps import kind, select
from nurture.transforms.losses.layer_maps import layer_pairs


def taps_of(config, which):
  """Returns the selected taps of a network, in call order."""
  module, x = models.build(config, num_classes=10), jnp.zeros((2, 32, 32, 3))
  outputs, _ = jax.eval_shape(lambda key: module.init_with_output(key, x), jax.random.key(0))
  return sorted(select(outputs.taps, which))


# The official code hooks convolutions, dense layers and adaptive average pools and drops the last one, the logits: 20
# and 53 convolutions of the guides with one pool each; 48 dense layers; 49 convolutions and the pool.
@pytest.mark.parametrize("part, counts, targets", [
  ("fcn", (21, 48), [0, 2, 5, 7, 9, 12, 14, 16, 19, 21, 24, 26, 28, 31, 33, 35, 38, 40, 42, 45, 47]),
  ("convnet", (54, 50), range(50)),
])
@pytest.mark.filterwarnings("ignore:layer map 'last_wins'")
def test_the_full_size_is_the_official_setting(part, counts, targets):
  config = full_size.get_config(part)
  arms = [losses["guide"] for _, losses in config.ensemble.grid.arm.levels if "guide" in losses]
  settings = {(term["taps"], term["guide_taps"], term["layer_map"], term["reduction"]) for term in arms}
  assert len(arms) == 4
  [(taps, guide_taps, layer_map, reduction)] = settings
  assert (layer_map, reduction) == ("last_wins", "sum")
  guide, target = taps_of(full_size.TARGETS[part][3], guide_taps), taps_of(config.model, taps)
  assert (len(guide), len(target)) == counts
  assert {kind(name) for name in guide[:-1]} == {"conv"} and kind(guide[-1]) == "global_avg_pool"
  pairs = layer_pairs(guide, target, layer_map)
  assert [target.index(b) for _, b in pairs] == list(targets)
  assert pairs[-1] == (guide[-1], target[-1])
