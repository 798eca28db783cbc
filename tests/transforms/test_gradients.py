"""The gradient transforms that are optax's: closed forms, traced numbers, dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import build
from nurture.transforms.gradients import GRADIENTS

GRADIENT = {"b": jnp.array([0.0, 3.0]), "w": jnp.array([[4.0, 0.0], [0.0, -12.0]])}  # of norm 13
PARAMS = {"b": jnp.array([1.0, 1.0]), "w": jnp.array([[3.0, 0.0], [4.0, 0.5]])}


def update(gradient=GRADIENT, **config):
  link = build(GRADIENTS, config)
  return link.update(gradient, link.init(PARAMS), PARAMS, key=jax.random.key(0), step=jnp.int32(0))[0]


def assert_equal(tree, b, w):
  np.testing.assert_allclose(tree["b"], b, rtol=1e-5)
  np.testing.assert_allclose(tree["w"], w, rtol=1e-5)


@pytest.mark.parametrize("config, factor", [
  ({"name": "clip_by_global_norm", "max_norm": 6.5}, 0.5),
  ({"name": "clip_by_global_norm", "max_norm": 14.0}, 1.0),
  ({"name": "clip_by_global_norm", "max_norm": np.inf}, 1.0),
  ({"name": "scale", "step_size": 0.1}, 0.1),
  ({"name": "normalize_by_update_norm", "scale_factor": 2.0, "eps": 0.0}, 2 / 13),
])
def test_what_scales_the_whole(config, factor):
  assert_equal(update(**config), factor * GRADIENT["b"], factor * GRADIENT["w"])


def test_what_acts_on_entries_and_leaves():
  assert_equal(update(name="clip", max_delta=4.0), [0, 3], [[4, 0], [0, -4]])
  assert_equal(update(name="centralize"), [0, 3], [[2, 6], [-2, -6]])  # the mean over inputs, per output
  rms = {"b": np.sqrt(9 / 2), "w": np.sqrt(160 / 4)}
  assert_equal(
    update(name="clip_by_block_rms", threshold=3.0), [0, 3], np.asarray(GRADIENT["w"]) * 3 / rms["w"]
  )
  # Units are columns: weights of norm 5 and 0.5 against gradients of norm 4 and 12; biases as one by one.
  clipped = update(name="adaptive_grad_clip", clipping=0.1)
  assert_equal({**clipped, "b": [0, 0]}, [0, 0], [[0.5, 0], [0, -0.05]])


def test_kernels_of_convolutions_and_single_numbers():
  kernel = jnp.arange(8.0).reshape(2, 2, 2)  # [width, inputs, outputs]: of one output 0, 2, 4, 6, of the other 1 more
  np.testing.assert_allclose(
    update({"w": kernel}, name="centralize")["w"], [[[-3, -3], [-1, -1]], [[1, 1], [3, 3]]], atol=1e-6
  )
  clipped = update({"w": jnp.float32(-5.0)}, name="clip_by_block_rms", threshold=2.0)
  np.testing.assert_allclose(clipped["w"], -2.0, rtol=1e-6)
  # A unit whose weights are 0 counts as one of norm eps.
  link = build(GRADIENTS, {"name": "adaptive_grad_clip", "clipping": 0.5, "eps": 0.1})
  updates, _ = link.update({"w": jnp.array([[3.0], [4.0]])}, (), {"w": jnp.zeros((2, 1))})
  np.testing.assert_allclose(updates["w"], [[0.03], [0.04]], rtol=1e-5)
  halved = update(name="normalize_by_update_norm", eps=13.0)
  assert_equal(halved, GRADIENT["b"] / 26, GRADIENT["w"] / 26)


def test_decayed_weights():
  assert_equal(update(name="add_decayed_weights", weight_decay=2.0), [2, 5], GRADIENT["w"] + 2 * PARAMS["w"])
  only = update(name="add_decayed_weights", weight_decay=2.0, mask="matrices")
  assert_equal(only, GRADIENT["b"], GRADIENT["w"] + 2 * PARAMS["w"])


@pytest.mark.parametrize("config, field", [
  ({"name": "clip_by_global_norm"}, "max_norm"),
  ({"name": "clip"}, "max_delta"),
  ({"name": "scale"}, "step_size"),
  ({"name": "add_decayed_weights"}, "weight_decay"),
  ({"name": "adaptive_grad_clip"}, "clipping"),
  ({"name": "clip_by_block_rms"}, "threshold"),
  ({"name": "normalize_by_update_norm"}, "scale_factor"),
])
def test_numbers_may_be_traced_beside_bfloat16(config, field):
  gradient = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), GRADIENT)
  swept = jax.jit(jax.vmap(lambda number: update(gradient, **config, **{field: number})))(jnp.array([0.5, 2.0]))
  for i, number in enumerate((0.5, 2.0)):
    alone = update(gradient, **config, **{field: number})
    for name in gradient:
      assert swept[name].dtype == jnp.bfloat16
      np.testing.assert_allclose(swept[name][i].astype(float), alone[name].astype(float), rtol=1e-2)


@pytest.mark.parametrize("scale", [1e-25, 1e25, 1e37])
@pytest.mark.parametrize(("config", "length"), [
  ({"name": "clip_by_global_norm", "max_norm": 2.0}, lambda g: min(2.0, np.sqrt(np.sum(g**2)))),
  ({"name": "normalize_by_update_norm", "eps": 0.0}, lambda g: 1.0),
  ({"name": "clip_by_block_rms", "threshold": 2.0}, lambda g: min(2.0 * np.sqrt(g.size), np.sqrt(np.sum(g**2)))),
], ids=lambda value: value["name"] if isinstance(value, dict) else "")
def test_lengths_hold_where_squares_leave_float32(config, length, scale):
  """A gradient of 1e25 must not become 0, nor one of 1e-25 be divided by 0."""
  gradient = np.array([0.3, -0.4, 1.2]) * scale
  transform = build(GRADIENTS, config)
  updates, _ = transform.update({"w": jnp.asarray(gradient, jnp.float32)}, transform.init({"w": jnp.ones(3)}))
  expected = gradient / np.sqrt(np.sum(gradient**2)) * length(gradient)
  np.testing.assert_allclose(updates["w"], expected, rtol=1e-5)
