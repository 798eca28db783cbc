"""Lanczos, power iteration and what is made of them against dense eigenvalues."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.curvature import spectrum
from nurture.curvature.hvp import hessian
from nurture.curvature.lanczos import lanczos, ritz
from tests.curvature.test_hvp import cross_entropy, dense, model, network

SPECTRUM = np.array([5.0, 3.0, 2.0, 2.0, 1.0, 0.5, 0.0, 0.0, -1.0, -4.0])


def symmetric(values, dtype=np.float32):
  """A symmetric matrix with these eigenvalues, none of them along an axis."""
  q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(len(values), len(values))))
  return jnp.asarray((q * values) @ q.T, dtype)


def operator(matrix):
  """The matrix on trees of two leaves."""
  def product(tree):
    image = matrix @ jnp.concatenate([tree["a"], tree["b"].reshape(-1)])
    return {"a": image[:4], "b": image[4:].reshape(2, -1)}

  return product


LIKE = {"a": jnp.zeros(4), "b": jnp.zeros((2, 3))}
values_of = jax.jit(
  lambda matrix, key: ritz(lanczos(operator(matrix), LIKE, key, steps=20))[0])  # 20 are cut to the 10 there are


def test_all_of_lanczos_is_the_spectrum_repeated_eigenvalues_included(key):
  np.testing.assert_allclose(values_of(symmetric(SPECTRUM), key), np.sort(SPECTRUM), atol=1e-5)
  for values in (np.ones(10), np.zeros(10), np.repeat([0.0, 7.0], 5)):
    np.testing.assert_allclose(values_of(symmetric(values), key), np.sort(values), atol=1e-5)
  scaled = values_of(symmetric(1e-9 * SPECTRUM), key)
  np.testing.assert_allclose(scaled, 1e-9 * np.sort(SPECTRUM), atol=1e-14)  # nothing is small by itself
  assert np.isnan(values_of(jnp.full((10, 10), jnp.nan), key)).all()


REPEATED, RANK_ONE = np.repeat([0.0, 3.0, 7.0], [3, 3, 4]), np.array([2.0] + [0.0] * 9)
KINDS = (SPECTRUM, -SPECTRUM, np.ones(10), np.zeros(10), REPEATED, RANK_ONE, np.geomspace(1, 1e-9, 10))
SCALES = (1e-30, 1e-20, 1.0, 1e19, 1e30)


def at_every_scale():
  """Returns matrices [kinds x scales, 10, 10], what they were multiplied by, and their eigenvalues [., 1, 10]."""
  scales = np.tile(SCALES, len(KINDS)).astype(np.float32)
  matrices = np.stack([symmetric(values) for values in KINDS for _ in SCALES]) * scales[:, None, None]
  return matrices, scales.astype(float), np.linalg.eigvalsh(matrices.astype(float))[:, None]


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_eigenvalues_of_any_scale_lie_within_their_errors(steps, key):
  matrices, scales, exact = at_every_scale()
  run = jax.vmap(lambda m: spectrum.top_eigenvalues(operator(m), LIKE, key, k=steps, steps=steps))
  values, errors = (np.asarray(part, float) for part in jax.jit(run)(matrices))
  distance = np.abs(values[:, :, None] - exact).min(axis=2)
  assert (distance <= errors).all()
  sizes = np.abs(exact).max(axis=(1, 2))
  assert (errors[sizes > 0].max(axis=1) > 1e-6 * sizes[sizes > 0]).all()  # rounding is never 0
  if steps == 10:
    assert (errors.max(axis=1) <= 1e-5 * sizes).all()
    np.testing.assert_allclose(values / scales[:, None], exact[:, 0, ::-1] / scales[:, None], atol=1e-5)


def test_the_error_of_an_operator_that_is_not_symmetric_says_so(key):
  matrix = symmetric(SPECTRUM)
  crooked = matrix + 0.1 * (jnp.triu(jnp.ones((10, 10))) - jnp.tril(jnp.ones((10, 10))))
  run = jax.jit(lambda m: spectrum.top_eigenvalues(operator(m), LIKE, key, k=10, steps=10).errors)
  assert run(matrix).max() < 2e-5 and run(crooked).min() > 0.02


def test_traces_and_quadratures_of_any_scale(key):
  matrix = symmetric(SPECTRUM)

  @jax.jit
  @jax.vmap
  def run(m):
    return (
      *spectrum.trace(operator(m), LIKE, key, num_vectors=3),
      *spectrum.quadrature(operator(m), LIKE, key, num_vectors=2, steps=4),
    )

  scales = np.array(SCALES, np.float32)
  means, errors, nodes, weights = run(matrix[None] * scales[:, None, None])
  for parts in (means, errors, nodes):
    scaled = np.asarray(parts).reshape(len(SCALES), -1) / scales[:, None].astype(float)
    np.testing.assert_allclose(scaled, np.tile(scaled[2], (len(SCALES), 1)), rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(weights, np.tile(weights[2], (len(SCALES), 1, 1)), atol=1e-5)
  assert errors[2] > 0.1


def test_the_basis_is_orthonormal_and_t_is_the_operator_in_it(key):
  n, steps = 300, 60
  values = np.concatenate([np.linspace(0, 1, n - 3), [50.0, 60.0, 70.0]])  # loses orthogonality without care
  matrix = symmetric(values)
  decomposition = jax.jit(lambda m: lanczos(lambda v: m @ v, jnp.zeros(n), key, steps=steps))(matrix)
  q = np.asarray(decomposition.basis, np.float64)
  np.testing.assert_allclose(q @ q.T, np.eye(steps), atol=2e-6)
  t = np.diag(decomposition.diagonal) + sum(np.diag(decomposition.off_diagonal[:-1], k) for k in (1, -1))
  np.testing.assert_allclose(q @ np.asarray(matrix, np.float64) @ q.T, t, atol=2e-4)
  top = spectrum.eigenvalues_of(decomposition, 5)
  np.testing.assert_allclose(top.values[:3], [70, 60, 50], rtol=1e-6)
  assert top.values[3] < 1.01  # each is found once
  # Inside jit T is decomposed in float32, on the host in float64.
  on_host = ritz(jax.device_get(decomposition))[0]
  assert on_host.dtype == np.float64
  assert 0 < np.abs(on_host - ritz(decomposition)[0]).max() < 4e-5  # 70 is 6e7 roundings of 1e-6


def test_top_eigenvalues_lie_within_their_errors(key):
  values = np.sort(np.random.default_rng(1).normal(size=200))
  like = jnp.zeros(200)
  top = jax.jit(lambda m: spectrum.top_eigenvalues(lambda v: m @ v, like, key, k=3, steps=12))(symmetric(values))
  distance = np.abs(values[:, None] - top.values[None]).min(axis=0)
  assert (distance <= top.errors + 1e-5).all() and top.errors[0] < top.errors[2] < 1


def test_the_hessian_of_a_network_alone_and_as_members(key):
  params, x = network(jnp.float32)
  of = lambda params: hessian(lambda p: cross_entropy(model(p, x)), params)
  members = jax.tree.map(lambda leaf: jnp.stack([leaf, 0.5 * leaf]), params)

  top = jax.jit(jax.vmap(lambda p: spectrum.top_eigenvalues(of(p), p, key, k=4, steps=24).values))(members)
  matrices = jax.vmap(lambda p: dense(of, p))(members)
  for i in range(2):
    exact = np.linalg.eigvalsh(matrices[i])
    np.testing.assert_allclose(top[i], exact[::-1][:4], rtol=1e-5)


def test_quadrature_has_the_moments_of_its_vectors_and_in_the_mean_those_of_the_matrix(key):
  with jax.enable_x64(True):
    matrix = np.asarray(symmetric(SPECTRUM, np.float64))
    like = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), LIKE)
    run = jax.jit(lambda m: spectrum.quadrature(operator(m), like, key, num_vectors=400, steps=4))
    nodes, weights = run(matrix)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    draw = jax.vmap(lambda key: jax.random.rademacher(key, (10,), jnp.float64))
    starts = np.asarray(jax.jit(draw)(jax.random.split(key, 400))) / 10**0.5
    for power in range(8):  # 4 nodes are exact up to degree 7
      moments = (weights * nodes**power).sum(axis=1)
      exact = np.einsum("si,ij,sj->s", starts, np.linalg.matrix_power(matrix, power), starts)
      np.testing.assert_allclose(moments, exact, rtol=1e-9, atol=1e-9)
      error = np.abs(moments.mean() - (SPECTRUM**power).mean())
      assert error <= 4 * moments.std() / 20 + 1e-12
    assert np.abs((weights * nodes**8).sum(axis=1)
                  - np.einsum("si,ij,sj->s", starts, np.linalg.matrix_power(matrix, 8), starts)).max() > 1


def test_density_integrates_to_one_and_counts_eigenvalues(key):
  matrix = symmetric(SPECTRUM)
  found = jax.jit(lambda m: spectrum.quadrature(operator(m), LIKE, key, num_vectors=64, steps=10))(matrix)
  grid = jnp.linspace(-6, 7, 2601)
  p = jax.jit(spectrum.density)(found, grid, 0.05)
  np.testing.assert_allclose(jnp.trapezoid(p, grid), 1, rtol=1e-5)
  around = lambda place: float(jnp.trapezoid(jnp.where(jnp.abs(grid - place) < 0.25, p, 0), grid))
  np.testing.assert_allclose([around(5), around(2), around(0), around(4)], [0.1, 0.2, 0.2, 0.0], atol=0.04)


def test_hutchinson_is_exact_for_a_diagonal_and_knows_its_error(key):
  diagonal = jnp.arange(10.0)
  run = jax.jit(lambda m, n: spectrum.trace(operator(m), LIKE, key, num_vectors=n), static_argnums=1)
  mean, error = run(jnp.diag(diagonal), 3)
  np.testing.assert_allclose([mean, error], [45, 0], atol=1e-5)
  matrix = symmetric(SPECTRUM)
  mean, error = run(matrix, 2000)
  off = np.asarray(matrix) - np.diag(np.diag(matrix))
  np.testing.assert_allclose(error, np.sqrt(2 * (off**2).sum() / 2000), rtol=0.1)
  assert abs(mean - SPECTRUM.sum()) < 4 * error
  assert np.isnan(run(matrix, 1)[1])
  # Of two values a and b the sample variance is (a - b)^2 / 2, and the standard error of their mean |a - b| / 2.
  vectors = [np.asarray(jax.random.rademacher(k, (10,)), float) for k in jax.random.split(key, 2)]
  a, b = (v @ np.asarray(matrix, float) @ v for v in vectors)
  np.testing.assert_allclose(run(matrix, 2), [(a + b) / 2, abs(a - b) / 2], rtol=1e-5)


@pytest.mark.parametrize("momentum, nesterov", [(0.0, False), (0.9, False), (0.9, True)])
def test_gradient_descent_on_a_quadratic_diverges_above_the_threshold(momentum, nesterov):
  threshold = spectrum.stability_threshold(0.1, momentum, nesterov)

  def distance(sharpness):
    x, velocity = 1.0, 0.0
    for _ in range(2000):
      gradient = sharpness * x
      velocity = momentum * velocity + gradient
      x -= 0.1 * (gradient + momentum * velocity if nesterov else velocity)
    return abs(x)

  assert distance(0.99 * threshold) < 0.1 and distance(1.01 * threshold) > 10


def test_mistakes_name_the_fix(key):
  matrix = operator(symmetric(SPECTRUM))
  for k in (0, 11):
    with pytest.raises(UserError, match="at most as many as steps and parameters"):
      spectrum.top_eigenvalues(matrix, LIKE, key, k=k)
  for call in (
    lambda: lanczos(matrix, LIKE, key, steps=0),
    lambda: spectrum.quadrature(matrix, LIKE, key, num_vectors=0),
    lambda: spectrum.trace(matrix, LIKE, key, num_vectors=0),
  ):
    with pytest.raises(UserError, match="is 0; give a whole number of at least 1"):
      call()
  with pytest.raises(UserError, match="give the parameters of a network"):
    lanczos(matrix, {}, key, steps=3)
  with pytest.raises(UserError, match="steps is 5.0"):
    lanczos(matrix, LIKE, key, steps=5.0)
  for start in (jax.tree.map(jnp.zeros_like, LIKE), jnp.ones(3)):
    with pytest.raises(UserError, match="the start has"):
      lanczos(matrix, LIKE, key, steps=3, start=start)
  with pytest.raises(UserError, match="learning rate is 0"):
    spectrum.stability_threshold(0.0)
  with pytest.raises(UserError, match="width of a density is 0"):
    spectrum.density(spectrum.Quadrature(jnp.ones((1, 2)), jnp.ones((1, 2))), jnp.zeros(2), 0)
  with pytest.raises(UserError, match="a vector of places"):
    spectrum.density(spectrum.Quadrature(jnp.ones((1, 2)), jnp.ones((1, 2))), jnp.zeros((2, 2)), 1.0)
