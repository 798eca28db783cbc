"""CKA against published values, its definition, its bias, and sums over batches."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.similarity import cca, cka_of_sums, gram, hsic_sums, linear_cka, rbf_cka


def published():
  """The pair of the notebook of Kornblith et al., whose printed values it must reproduce."""
  random = np.random.RandomState(1337)
  x = random.randn(100, 10)
  return x, random.randn(100, 10) + x


@pytest.mark.parametrize("measure, value", [
  (linear_cka, 0.55761),
  (functools.partial(linear_cka, side="gram"), 0.55761),
  (functools.partial(linear_cka, debiased=True), 0.51346),
  (functools.partial(linear_cka, debiased=True, side="gram"), 0.51346),
  (lambda x, y: cka_of_sums(hsic_sums(x, y)), 0.51346),
  (rbf_cka, 0.65483),
  (lambda x, y: cca(jnp.concatenate([x, -x]), jnp.concatenate([y, -y])), 0.54312),  # there without centring
])
def test_published_values(measure, value):
  with jax.enable_x64(True):
    np.testing.assert_allclose(jax.jit(measure)(*published()), value, atol=5.1e-6)


def hsic(k, m):
  """n (n - 3) times the unbiased HSIC of Song et al. 2012, eq. 5, and (n - 1)^2 times the biased one."""
  n = len(k)
  h = np.eye(n) - 1 / n
  biased = np.trace(k @ h @ m @ h)
  k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
  unbiased = np.trace(k @ m) + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
  return unbiased, biased


def products(kx, ky, debiased):
  """Returns the HSIC, unbiased or not, of (x, y), (x, x) and (y, y)."""
  return np.array([hsic(*pair)[not debiased] for pair in ((kx, ky), (kx, kx), (ky, ky))])


def ratio(kx, ky, debiased):
  xy, xx, yy = products(kx, ky, debiased)
  return xy / np.sqrt(xx * yy)


@pytest.mark.parametrize("widths", [(5, 3), (30, 3), (30, 50)])
def test_both_sides_are_the_definition(widths):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(12, widths[0]))
  y = x @ rng.normal(size=widths) + rng.normal(size=(12, widths[1])) + 2
  expected = [ratio(x @ x.T, y @ y.T, debiased) for debiased in (False, True)]
  every = lambda x, y: [
    [linear_cka(x, y, debiased=debiased, side=side) for side in ("auto", "gram", "feature")]
    for debiased in (False, True)
  ]
  for enabled, tolerance in ((True, 1e-12), (False, 2e-6)):
    with jax.enable_x64(enabled):
      np.testing.assert_allclose(jax.jit(every)(x, y), np.transpose([expected] * 3), atol=tolerance)


@pytest.mark.parametrize("side", ["gram", "feature"])
def test_four_samples_are_enough_for_the_debiased_value(side):
  """By hand: four samples make two pairs in three ways, and a feature of two values says which way.

  A U-centred kernel is then 1 at the two pairs of this way, and -1/2 at those of the other two, as its rows sum to 0.
  Of two different ways the cosine is (-1/2 - 1/2 + 1/4) / (1 + 1/4 + 1/4) = -1/2.
  """
  x, y = (np.array(values, np.float32)[:, None] for values in ([0, 0, 1, 1], [3, 5, 3, 5]))
  run = jax.jit(lambda x, y: linear_cka(x, y, debiased=True, side=side))
  np.testing.assert_allclose([run(x, x), run(x, y)], [1.0, -0.5], atol=1e-6)


@pytest.mark.parametrize("n, widths, gram_side", [(6, (3, 9), True), (9, (3, 9), True), (10, (3, 9), False)])
def test_side_is_chosen_by_shape(n, widths, gram_side):
  program = str(jax.make_jaxpr(linear_cka)(*(jnp.ones((n, d)) for d in widths)))
  shapes = set(re.findall(r"f32\[(\d+,\d+)\] = dot_general", program))
  assert shapes == ({f"{n},{n}"} if gram_side else {"3,3", "3,9", "9,9"})


def test_bias_of_independent_features():
  """Biased CKA of independent isotropic features is about d / (d + n), debiased about 0."""
  both = lambda x, y: (linear_cka(x, y), linear_cka(x, y, debiased=True))
  for n, d in ((128, 512), (64, 64)):
    draws = np.random.default_rng(n).normal(size=(2, 16, n, d)).astype(np.float32)
    biased, debiased = (np.mean(values) for values in jax.jit(jax.vmap(both))(*draws))
    np.testing.assert_allclose([biased, debiased], [d / (d + n), 0.0], atol=0.01)


def test_rbf_is_its_definition_and_takes_a_traced_bandwidth():
  rng = np.random.default_rng(1)
  x, y = rng.normal(size=(12, 4)), rng.normal(size=(12, 30))
  kernels = []
  for side in (x, y):
    d = np.sum((side[:, None] - side[None]) ** 2, axis=-1)
    kernels.append(np.exp(-d / (2 * 0.8**2 * np.median(d))))
  with jax.enable_x64(True):
    for debiased in (False, True):
      value = jax.jit(functools.partial(rbf_cka, debiased=debiased))(x, y, bandwidth=0.8)
      np.testing.assert_allclose(value, ratio(*kernels, debiased), atol=1e-12)
    # Most of the distances are 0, and so is their median: the mean takes its place.
    clusters = np.repeat(x[:3], (1, 2, 9), axis=0)
    d = np.sum((clusters[:, None] - clusters[None]) ** 2, axis=-1)
    kernel = np.exp(-d / (2 * 0.8**2 * np.mean(d)))
    value = jax.jit(rbf_cka)(clusters, y, bandwidth=0.8)
    np.testing.assert_allclose(value, ratio(kernel, kernels[1], False), atol=1e-12)


def test_a_median_that_rounding_makes_is_no_unit():
  """Samples 1e-6 of the whole apart, most of them of one cluster: as if they were one sample."""
  rng = np.random.default_rng(1)
  x, y = np.repeat(rng.normal(size=(3, 4)), (1, 2, 9), axis=0), rng.normal(size=(12, 5))
  near = (x + 1e-6 * rng.normal(size=x.shape)).astype(np.float32)
  with jax.enable_x64(True):
    exact = jax.jit(rbf_cka)(x, y)
  np.testing.assert_allclose(jax.jit(rbf_cka)(near, y.astype(np.float32)), exact, atol=1e-4)


def test_a_wide_rbf_kernel_is_the_linear_one():
  x, y = (side.astype(np.float32) for side in published())
  wide, linear = jax.jit(lambda x, y: (rbf_cka(x, y, bandwidth=300.0), linear_cka(x, y)))(x, y)
  np.testing.assert_allclose(wide, linear, atol=1e-5)  # where 1 - 1e-6 is all that the kernel's entries differ by


def batches():
  rng = np.random.default_rng(2)
  x = rng.normal(size=(4, 8, 5)) * 3
  return x, np.tanh(x @ rng.normal(size=(5, 20))) + rng.normal(size=(4, 8, 20)) + 1


def test_sums_over_batches_then_the_ratio():
  """As in the code of Nguyen et al.: inner products of U-centred Gram matrices, summed, then divided."""
  xs, ys = batches()
  oracle = sum(products(x @ x.T, y @ y.T, debiased=True) for x, y in zip(xs, ys))
  with jax.enable_x64(True):
    sums = jax.tree.map(lambda leaf: leaf.sum(0), jax.jit(jax.vmap(hsic_sums))(xs, ys))
    np.testing.assert_allclose(cka_of_sums(sums), oracle[0] / np.sqrt(oracle[1] * oracle[2]), rtol=1e-12)
    np.testing.assert_allclose(sums["xy"], oracle[0] / (5 * 20), rtol=1e-12)
    kept = [gram(side.reshape(32, -1)) for side in (xs, ys)]
    part = lambda i: hsic_sums(*(k.take(jnp.arange(8) + 8 * i) for k in kept))
    from_grams = jax.tree.map(lambda leaf: leaf.sum(0), jax.jit(jax.vmap(part))(jnp.arange(4)))
    np.testing.assert_allclose(cka_of_sums(from_grams), cka_of_sums(sums), rtol=1e-10)


def test_sums_of_single_features_by_hand():
  """Two ways to make two pairs of four samples, as above: U-centred, x [0, 0, 1, 1] is 1/3 at its pairs and -1/6 at the
  others, and y, twice as far apart, four times that. Of the 12 entries off the diagonal each way has 4."""
  x, y = (np.array(values, np.float32)[:, None] for values in ([0, 0, 1, 1], [3, 5, 3, 5]))
  sums = hsic_sums(x, y)
  np.testing.assert_allclose([sums[name] for name in ("xy", "xx", "yy")], [-4 / 3, 2 / 3, 32 / 3], rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_fewer_than_four_samples_say_nothing(n):
  """A short last batch counts by its n (n - 3), which is 0 of three samples and no number of pairs of one or two."""
  (x, *_), (y, *_) = batches()
  for weight in (None, np.ones(n)):
    assert {float(value) for value in hsic_sums(x[:n], y[:n], weight).values()} == {0.0}


def test_padded_rows_are_absent():
  (x, *_), (y, *_) = batches()
  with jax.enable_x64(True):
    run = jax.jit(hsic_sums)
    for present in ([1, 2, 4, 5, 7], [3, 4, 5, 6], [0, 1, 2], []):
      weight = np.zeros(8)
      weight[present] = 1
      a, b = (np.where(weight[:, None] > 0, side, np.nan) for side in (x, y))
      few = len(present) < 4
      expected = np.zeros(3) if few else products(x[present] @ x[present].T, y[present] @ y[present].T, debiased=True)
      sums = run(a, b, weight)
      np.testing.assert_allclose([sums[k] * d for k, d in (("xy", 100), ("xx", 25), ("yy", 400))], expected, rtol=1e-11)
    slopes = jax.jit(jax.grad(lambda a: cka_of_sums(hsic_sums(a, y, jnp.arange(8) < 5))))(jnp.asarray(x))
    assert jnp.isfinite(slopes).all() and (slopes[5:] == 0).all() and (slopes[:5] != 0).all()


def test_sums_of_constant_features_give_0():
  (x, *_), _ = batches()
  for weight in (None, np.arange(8) > 2):
    sums = jax.jit(hsic_sums)(np.full((8, 3), 0.1, np.float32), x, weight)
    assert float(sums["xx"]) == 0 and float(cka_of_sums(sums)) == 0


@pytest.mark.parametrize("call, sentence", [
  (lambda x: linear_cka(x, x, side="both"), "side is 'both'"),
  (lambda x: linear_cka(x, gram(x), side="feature"), "holds no features"),
  (lambda x: linear_cka(x[:3], x[:3], debiased=True), "at least 4 samples, not 3"),
  (lambda x: rbf_cka(x, x, bandwidth=0), "bandwidth is 0"),
  (lambda x: rbf_cka(x, x, bandwidth=-0.5), "bandwidth is -0.5"),
  (lambda x: hsic_sums(x, x[:5]), "x has 8 samples and y has 5"),
  (lambda x: hsic_sums(x, x, jnp.ones(3)), "one weight"),
])
def test_what_does_not_fit(call, sentence):
  with pytest.raises(UserError, match=sentence):
    call(np.eye(8, 3))
