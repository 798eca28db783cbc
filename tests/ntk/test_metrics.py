"""Measures of kernels: limits, invariances, closed forms, and what is no kernel."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk import metrics

N = 8
DRAWS = np.random.default_rng(0)
FEATURES = DRAWS.normal(size=(3, N, 20)).astype(np.float32)
K, L, M = FEATURES @ FEATURES.transpose(0, 2, 1)
ONE_HOT = np.eye(4, dtype=np.float32)[np.arange(N) % 4]
ZERO, EYE, ONES = np.zeros((N, N), np.float32), np.eye(N, dtype=np.float32), np.ones((N, N), np.float32)

distance, alignment = jax.jit(metrics.kernel_distance), jax.jit(metrics.centred_alignment)
energy = jax.jit(metrics.label_energy, static_argnums=2)


@jax.jit
def spectrum(k):
  values = metrics.eigenvalues(k)
  return {
    "values": values, "effective_rank": metrics.effective_rank(values),
    "participation_ratio": metrics.participation_ratio(values),
    "top_mass": jnp.stack([metrics.top_mass(values, count) for count in (1, 2, N)]),
  }


def rotation(n):
  return np.linalg.qr(DRAWS.normal(size=(n, n)))[0].astype(np.float32)


def test_distance_and_alignment_are_their_definitions():
  exact = [np.float64(matrix) for matrix in (K, L)]
  cosine = lambda a, b: (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
  h = np.eye(N) - 1 / N
  np.testing.assert_allclose(distance(K, L), 1 - cosine(*exact), rtol=1e-5)
  np.testing.assert_allclose(alignment(K, L), cosine(*(h @ m @ h for m in exact)), rtol=1e-5)
  np.testing.assert_allclose(metrics.kernel_velocity(K, L, 50), distance(K, L) / 50)


def test_what_distance_and_alignment_do_not_see():
  permutation = DRAWS.permutation(N)
  shuffled = lambda k: k[permutation][:, permutation]
  shifted = (FEATURES[0] + 3) @ (FEATURES[0] + 3).T  # another mean of the features
  for measure in (distance, alignment):
    np.testing.assert_allclose(measure(1e4 * K, 1e-4 * L), measure(K, L), rtol=1e-5)
    np.testing.assert_allclose(measure(shuffled(K), shuffled(L)), measure(K, L), rtol=1e-5)
    np.testing.assert_allclose(measure(L, K), measure(K, L), rtol=1e-5)
  np.testing.assert_allclose(alignment(shifted, L), alignment(K, L), rtol=1e-4)
  assert abs(distance(shifted, L) - distance(K, L)) > 0.1


def test_limits_of_distance():
  assert distance(K, K) == distance(ZERO, ZERO) == 0
  assert distance(K, ZERO) == distance(ZERO, K) == 1
  np.testing.assert_allclose(distance(K, 3 * K), 0, atol=1e-13)
  disjoint = np.diag(np.repeat([1.0, 0.0], 4)), np.diag(np.repeat([0.0, 1.0], 4))
  np.testing.assert_allclose(distance(*disjoint), 1, rtol=1e-6)
  # A small distance keeps its digits where 1 - cosine has none.
  small = 1e-4 * (M - (M * K).sum() / (K * K).sum() * K)
  exact = 0.5 * (np.linalg.norm(np.float64(small)) / np.linalg.norm(np.float64(K))) ** 2
  assert 0 < exact < 1e-7
  np.testing.assert_allclose(distance(K, K + small), exact, rtol=0.02)


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e19, 1e30])
def test_scales_whose_squares_leave_float32(scale):
  k, other = np.float32(K), np.float32(M)
  large = np.float32(scale) * k
  for measure in (distance, alignment):
    np.testing.assert_allclose(measure(large, other), measure(k, other), rtol=1e-5)
    np.testing.assert_allclose(measure(large, np.float32(scale) * other), measure(k, other), rtol=1e-5)
  change = metrics.relative_change({"a": large}, {"a": np.float32(scale) * other})
  np.testing.assert_allclose(change, metrics.relative_change({"a": k}, {"a": other}), rtol=1e-5)
  lone = metrics.relative_change({"a": large, "b": 0 * k}, {"a": 0 * k, "b": k})
  np.testing.assert_allclose(lone, max(scale, 1.0), rtol=1e-5)  # |a|, |b| and |b| alone, far apart
  y = metrics.centred_targets(ONE_HOT) @ np.float32([[1.0], [2.0], [0.0], [5.0]])
  np.testing.assert_allclose(energy(k, np.float32(scale) * y, 3), energy(k, y, 3), rtol=1e-5)
  square = lambda scale: lambda p: np.float32(scale) * jnp.square(p)
  gap = lambda scale: metrics.linearization_gap(square(scale), jnp.ones(3), jnp.arange(3.0))
  np.testing.assert_allclose(gap(scale), gap(1.0), rtol=1e-5)


def test_limits_of_alignment():
  y = metrics.centred_targets(ONE_HOT)
  np.testing.assert_allclose(alignment(metrics.label_kernel(y), metrics.label_kernel(ONE_HOT)), 1, rtol=1e-5)
  for constant in (ZERO, ONES, 1000 * ONES / 3, metrics.label_kernel(np.ones(N)),
                   metrics.label_kernel(metrics.centred_targets(np.tile(ONE_HOT[:1], (N, 1))))):
    assert alignment(constant, K) == alignment(K, constant) == 0
  # Of n orthogonal examples and c balanced classes: <HKH, HLH> / ... = sqrt((c - 1) / (n - 1)).
  np.testing.assert_allclose(alignment(EYE, metrics.label_kernel(ONE_HOT)), np.sqrt(3 / 7), rtol=1e-5)


@pytest.mark.parametrize("kernel, expected", [
  (ZERO, (0, 0, (0, 0, 0))),
  (EYE, (N, N, (1 / N, 2 / N, 1))),
  (1e-12 * EYE, (N, N, (1 / N, 2 / N, 1))),
  (np.outer(FEATURES[0, 0, :N], FEATURES[0, 0, :N]), (1, 1, (1, 1, 1))),
  (np.kron(np.eye(2), np.ones((4, 4))), (2, 2, (0.5, 1, 1))),
  (np.diag([3.0, 1.0] + [0.0] * 6), (4 / 27**0.25, 1.6, (0.75, 1, 1))),
])
def test_ranks_and_masses(kernel, expected):
  q = rotation(N)
  for k in (kernel, q @ kernel @ q.T):
    found = spectrum(np.float32(k))
    for name, value in zip(("effective_rank", "participation_ratio", "top_mass"), expected):
      np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_eigenvalues_are_descending_and_rounding_is_none():
  rank_two = FEATURES[0, :, :2] @ FEATURES[0, :, :2].T
  values = np.asarray(spectrum(rank_two)["values"])
  np.testing.assert_allclose(values[:2], np.linalg.eigvalsh(np.float64(rank_two))[::-1][:2], rtol=1e-5)
  assert (values[2:] == 0).all()


def test_label_energy():
  y = np.asarray(metrics.centred_targets(ONE_HOT))
  q = rotation(N)
  basis = np.concatenate([np.linalg.svd(y)[0][:, :3], q[:, :5]], axis=1)
  basis = np.linalg.qr(basis)[0]  # the first three span the centred targets
  first, last = ((basis * np.float32(values)) @ basis.T for values in (range(N, 0, -1), range(1, N + 1)))
  for count, expected in ((3, 1), (8, 1)):
    np.testing.assert_allclose(energy(first, y, count), expected, rtol=1e-5)
  np.testing.assert_allclose([energy(last, y, 5), energy(last, y, 8)], [0, 1], atol=1e-5)
  np.testing.assert_allclose(energy(first, y, 2), energy(7 * first, -3 * y, 2), rtol=1e-5)
  np.testing.assert_allclose(energy(first, y[:, 0], 3), 1, rtol=1e-5)
  assert energy(K, 0 * y, 3) == 0
  one = np.outer(y[:, 0], y[:, 0])  # of rank one: the other seven eigenvectors are anything
  share = (y[:, 0] @ y) ** 2 / (y[:, 0] @ y[:, 0])
  for count in (1, 4, 8):
    np.testing.assert_allclose(energy(one, y, count), share.sum() / (y**2).sum(), rtol=1e-5)


def test_lazy_and_rich():
  start = {"w": jnp.array([[1.0, -2.0], [0.5, 1.0]]), "b": jnp.array([0.3, 0.4])}
  moved = jax.tree.map(lambda leaf: leaf + 0.5, start)
  x = jnp.asarray(FEATURES[0, :, :2])
  linear = lambda p: x @ p["w"] + p["b"][None]
  square = lambda p: jnp.square(linear(p))
  gap = jax.jit(metrics.linearization_gap, static_argnums=0)
  np.testing.assert_allclose(gap(linear, start, moved), 0, atol=1e-6)
  assert gap(square, start, start) == 0
  f, f0 = square(moved), square(start)
  difference = linear(moved) - linear(start)  # (a + d)^2 - a^2 - 2 a d = d^2
  expected = np.linalg.norm(difference**2) / np.linalg.norm(f - f0)
  np.testing.assert_allclose(gap(square, start, moved), expected, rtol=1e-5)
  np.testing.assert_allclose(metrics.linearized(square, start, moved)[1], f - difference**2, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(metrics.relative_change(moved, start), np.sqrt(6 * 0.25 / 6.5), rtol=1e-6)
  np.testing.assert_allclose(metrics.relative_change(1.5 * K, K), 0.5, rtol=1e-6)
  assert metrics.relative_change(K, K) == metrics.relative_change(ZERO, ZERO) == 0
  assert np.isinf(metrics.relative_change(K, ZERO))


def test_kernels_map_over_members_and_nan_stays():
  y = metrics.centred_targets(ONE_HOT)
  every = lambda k: {**spectrum(k), "distance": distance(k, K), "alignment": alignment(k, metrics.label_kernel(y)),
                     "energy": energy(k, y, 3)}
  together = jax.jit(jax.vmap(every))(np.stack([L, M]))
  for i, k in enumerate((L, M)):
    for name, value in every(k).items():
      np.testing.assert_allclose(together[name][i], value, rtol=1e-4, err_msg=name)
  broken = np.array(K)
  broken[0, 0] = np.nan
  for name, value in every(broken).items():
    assert np.isnan(value).all(), name


@pytest.mark.parametrize("call, match", [
  (lambda: metrics.eigenvalues(np.ones((3, 2))), r"the kernel is \[3, 2\].*take reduce='trace'"),
  (lambda: metrics.label_energy(np.ones((4, 4, 2, 2)), np.ones(4), 1), "kernels are .n, n."),
  (lambda: metrics.eigenvalues(np.ones((0, 0))), "kernels are .n, n."),
  (lambda: metrics.kernel_distance(EYE, np.eye(3)), "of 8 and 3 examples"),
  (lambda: metrics.centred_alignment(np.eye(3), EYE), "of 3 and 8 examples"),
  (lambda: metrics.label_energy(EYE, np.ones(3), 1), "the same examples"),
  (lambda: metrics.label_energy(EYE, np.ones(N), 0), "from 1 to 8"),
  (lambda: metrics.label_energy(EYE, np.ones(N), 9), "from 1 to 8"),
  (lambda: metrics.top_mass(np.ones(N), 9), "from 1 to 8"),
  (lambda: metrics.top_mass(np.ones(N), 2.5), "whole number from 1 to 8"),
  (lambda: metrics.relative_change({"a": EYE}, {"b": EYE}), "differ in structure"),
  (lambda: metrics.kernel_velocity(EYE, EYE, np.int64(-2)), "a number above 0"),
  (lambda: metrics.label_kernel(np.ones((2, 2, 2))), "one-hot"),
  (lambda: metrics.kernel_velocity(EYE, EYE, 0), "a number above 0"),
])
def test_mistakes_name_the_fix(call, match):
  with pytest.raises(UserError, match=match):
    call()
