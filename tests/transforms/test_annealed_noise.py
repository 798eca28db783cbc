"""Gradient noise against its law: variance, independence of everything else, limits, and the walk of zero weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from nurture import models
from nurture.core import UserError, build, rng
from nurture.transforms.gradients import GRADIENTS

N = 200_000


def noise_of(config, updates, key, step):
  transform = build(GRADIENTS, {"name": "annealed_noise", **config})
  return transform.update(updates, transform.init(updates), None, key=key, step=step)[0]


def draw(key, step=0, size=N, **config):
  zeros = {"w": jnp.zeros(size)}
  return np.asarray(noise_of({"eta": 1.0, **config}, zeros, key, jnp.int32(step))["w"], np.float64)


def correlation(a, b):
  return abs(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("generator", ["counter", "threefry"])
@pytest.mark.parametrize("step", [0, 1, 10, 1000])
def test_variance_follows_the_schedule(key, step, generator):
  eta, gamma = 0.3, 0.55
  noise = draw(key, step, eta=eta, gamma=gamma, generator=generator)
  variance = eta / (1 + step) ** gamma
  assert abs(noise.var() / variance - 1) < 5 * np.sqrt(2 / N)
  assert abs(noise.mean()) < 5 * np.sqrt(variance / N)
  assert abs(stats.kurtosis(noise)) < 5 * np.sqrt(24 / N)


@pytest.mark.parametrize("seed", [0, 1, 2**31])
def test_distribution_is_normal(seed):
  assert stats.kstest(draw(jax.random.key(seed), eta=4.0) / 2, "norm").pvalue > 1e-4


def test_the_wrong_law_would_be_caught(key):
  wrong = draw(key, 10, eta=0.3) * np.sqrt(0.3 / 11**0.55)  # variance taken for the standard deviation
  assert abs(wrong.var() / (0.3 / 11**0.55) - 1) > 5 * np.sqrt(2 / N)


def test_standard_deviation_is_that_of_optax_one_update_earlier():
  zeros = {"w": jnp.zeros(N)}
  theirs = optax.add_noise(eta=0.01, gamma=0.55, key=0)
  state = theirs.init(zeros)
  for step in range(3):
    updates, state = theirs.update(zeros, state)
    ours = draw(jax.random.key(step), step, eta=0.01)
    assert abs(np.asarray(updates["w"], np.float64).std() / ours.std() - 1) < 5 * np.sqrt(1 / N)


def test_gamma_of_zero_is_stationary(key):
  np.testing.assert_array_equal(draw(key, 0, gamma=0.0, size=100), draw(key, 1000, gamma=0.0, size=100))


def test_noise_does_not_depend_on_the_gradient(key):
  gradient = {"w": 10 * jax.random.normal(jax.random.key(7), (1000,))}
  noisy = noise_of({"eta": 1.0}, gradient, key, jnp.int32(3))
  np.testing.assert_allclose(noisy["w"] - gradient["w"], draw(key, 3, size=1000), atol=1e-5)


def tree():
  return {"a": {"bias": jnp.array([-0.0, 0.0, 1e-30]), "kernel": jnp.ones((3, 2))}, "b": -jnp.zeros((2, 2, 2))}


@pytest.mark.parametrize("traced", [False, True])
def test_eta_of_zero_changes_no_bit(key, traced):
  run = lambda eta: noise_of({"eta": eta}, tree(), key, jnp.int32(0))
  updates = jax.jit(run)(jnp.float32(0.0)) if traced else run(0.0)
  for new, old in zip(jax.tree.leaves(updates), jax.tree.leaves(tree())):
    assert np.asarray(new).tobytes() == np.asarray(old).tobytes()


def test_keys_steps_and_leaves_are_uncorrelated(key):
  keys = [rng.stream(key, "gradients.noise", step) for step in range(3)]
  bound = 5 / np.sqrt(N)
  np.testing.assert_array_equal(draw(keys[0]), draw(keys[0]))
  assert correlation(draw(keys[0]), draw(keys[1])) < bound
  assert correlation(draw(keys[1], 1), draw(keys[2], 2)) < bound
  leaves = noise_of({"eta": 1.0}, {"a": jnp.zeros(N), "b": jnp.zeros(N)}, key, jnp.int32(0))
  assert correlation(leaves["a"], leaves["b"]) < bound
  assert correlation(draw(keys[0]), draw(keys[0], 5)) > 1 - 1e-6  # the key alone tells the draws of steps apart


def test_jit_equals_eager_and_vmap_equals_a_loop(key):
  run = lambda eta, key: noise_of({"eta": eta}, tree(), key, jnp.int32(2))
  eager, jitted = run(0.5, key), jax.jit(run)(0.5, key)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), eager, jitted)
  keys = jax.random.split(key, 3)
  together = jax.jit(jax.vmap(run, in_axes=(0, 0)))(jnp.array([0.1, 0.2, 0.3]), keys)
  for i, eta in enumerate((0.1, 0.2, 0.3)):
    jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), together, run(eta, keys[i]))


def test_dtype_is_kept_and_the_sum_is_rounded_once(key):
  gradient = {"h": jnp.full(N, 1.0, jnp.bfloat16), "w": jnp.zeros(4)}
  noisy = noise_of({"eta": 1e-8}, gradient, key, jnp.int32(0))
  assert (noisy["h"].dtype, noisy["w"].dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_array_equal(noisy["h"], gradient["h"])  # 1e-4 is far below bfloat16's resolution at 1


def test_matrices_alone_may_get_noise(key):
  noisy = noise_of({"eta": 1.0, "parameters": "matrices"}, tree(), key, jnp.int32(0))
  np.testing.assert_array_equal(noisy["a"]["bias"], tree()["a"]["bias"])
  assert np.all(noisy["a"]["kernel"] != 1) and np.all(noisy["b"] != 0)


def test_every_leaf_gets_noise_unless_matrices_are_chosen(key):
  leaves = {"scalar": jnp.zeros(()), "vector": jnp.zeros(3), "matrix": jnp.zeros((1, 2))}
  assert all(np.all(leaf != 0) for leaf in noise_of({"eta": 1.0}, leaves, key, jnp.int32(0)).values())


def test_integers_are_refused(key):
  with pytest.raises(UserError, match="a/count, whose type is int32"):
    noise_of({"eta": 1.0}, {"a": {"count": jnp.arange(3)}}, key, jnp.int32(0))


def test_a_negative_variance_is_refused():
  with pytest.raises(UserError, match="gradients.noise.eta is -1; give a number of at least 0"):
    build(GRADIENTS, {"name": "annealed_noise", "eta": -1}, path="gradients.noise")


def test_noise_after_clipping_is_not_clipped(key):
  clip = build(GRADIENTS, {"name": "clip_by_global_norm", "max_norm": 10.0})
  noise = build(GRADIENTS, {"name": "annealed_noise", "eta": 0.01})
  gradient = {"w": jnp.full(88_210, 1.0)}

  def norm(*links):
    updates = gradient
    for link in links:
      updates, _ = link.update(updates, link.init(gradient), gradient, key=key, step=jnp.int32(0))
    return float(optax.tree.norm(updates))

  assert abs(norm(clip, noise) - np.sqrt(10**2 + 0.01 * 88_210)) < 1
  assert norm(noise, clip) < 10.001


def walk(eta, steps=40, depth=4, width=100, lr=0.1):
  """Trains a ReLU network from zero weights; returns its parameters."""
  module = models.build("mlp", num_classes=10, depth=depth, width=width, kernel_init="zeros")
  x = jax.random.uniform(jax.random.key(1), (16, width))
  targets = jax.nn.one_hot(jnp.arange(16) % 10, 10)
  params = module.init(jax.random.key(0), x)["params"]
  noise = build(GRADIENTS, {"name": "annealed_noise", "eta": eta})

  def loss(params):
    log_p = jax.nn.log_softmax(module.apply({"params": params}, x).logits)
    return -jnp.mean(jnp.sum(targets * log_p, axis=-1))

  def body(params, step):
    key = rng.stream(jax.random.key(2), "noise", step)
    updates, _ = noise.update(jax.grad(loss)(params), noise.init(params), params, key=key, step=step)
    return jax.tree.map(lambda p, u: p - lr * u, params, updates), None

  return jax.jit(lambda: jax.lax.scan(body, params, jnp.arange(steps)))()[0]


def test_zero_weights_walk_by_the_law():
  # Weights this small (0.002) pass no signal through four layers, so the noise is all that moves them.
  eta, steps, lr = 1e-4, 40, 0.1
  params = walk(eta, steps, lr=lr)
  predicted = lr * np.sqrt(np.sum(eta / (1.0 + np.arange(steps)) ** 0.55))
  for i in range(4):
    kernel = np.asarray(params[f"dense_{i:02d}"]["kernel"], np.float64)
    assert abs(kernel.std() / predicted - 1) < 5 / np.sqrt(2 * kernel.size)


def test_without_noise_zero_weights_stay_zero():
  params = walk(0.0)
  assert all(not np.any(layer["kernel"]) for layer in params.values())
  assert np.any(params["head"]["bias"])
