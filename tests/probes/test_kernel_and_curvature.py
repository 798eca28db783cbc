"""Probes of kernels and curvature on a small network, against dense matrices; every sample is one piece."""

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import Network, Outputs, UserError, build
from nurture.data.tasks import Regression
from nurture.ntk import metrics
from nurture.probes import ProbeSpec
from nurture.probes.laziness import Laziness
from nurture.probes.noise_scale import NoiseScale
from nurture.probes.sample import in_chunks, whole_sample
from nurture.probes.sharpness import Sharpness
from nurture.probes.spectral_density import SpectralDensity
from nurture.probes.tangent_kernel import TangentKernel
from nurture.testing import class_spec
from tests.curvature.test_hvp import exact_hessian

N, D, K = 12, 4, 3
TABLE = {
  "laziness": Laziness, "noise_scale": NoiseScale, "sharpness": Sharpness, "spectral_density": SpectralDensity,
  "tangent_kernel": TangentKernel,
}
DRAWS = np.random.default_rng(0)
X = DRAWS.normal(size=(N, D)).astype(np.float32)
LABEL = np.arange(N, dtype=np.int32) % K
TRUE = np.where(np.arange(N) % 4 == 0, (LABEL + 1) % K, LABEL).astype(np.int32)
START, NOW = (
  {"params": {"in": jnp.asarray(DRAWS.normal(size=(D, 3)), jnp.float32),
              "out": jnp.asarray(DRAWS.normal(size=(3, K)), jnp.float32)}, "batch_stats": {}}
  for _ in range(2)
)


def apply(variables, x):
  return Outputs(jnp.tanh(x @ variables["params"]["in"]) @ variables["params"]["out"], {})


def loss(variables, batch):
  values = optax.softmax_cross_entropy_with_integer_labels(apply(variables, batch["image"]).logits, batch["label"])
  return jnp.sum(values * batch["weight"]) / jnp.sum(batch["weight"])


FIELDS = {"model": None, "inputs": lambda batch: batch["image"], "apply": apply, "loss": loss}
NETWORK = Network(**FIELDS)


def spec(size=5, **changes):
  """The N examples in batches, the last padded with rows that must not count."""
  index = np.arange(-(-N // size) * size)
  real = index < N
  take = lambda values, padding: jnp.where(
    jnp.asarray(real).reshape((-1,) + (1,) * (values.ndim - 1)), jnp.asarray(values)[np.minimum(index, N - 1)], padding)
  rows = {
    "image": take(X, 100.0), "label": take(LABEL, 0), "true_label": take(TRUE, 0), "id": take(np.arange(N), -1),
    "weight": jnp.asarray(real, jnp.float32), **changes,
  }
  cut = lambda start: {field: values[start : start + size] for field, values in rows.items()}
  batches = [cut(start) for start in range(0, len(index), size)]
  return ProbeSpec(class_spec(N, K, (D,), 5), lambda split, limit: batches)


def measure(config, net=NETWORK, variables=NOW, data=None):
  probe = build(TABLE, config)
  [piece] = probe.prepare(data or spec(), jax.random.key(0))
  return probe.finish(jax.jit(lambda variables, piece: probe(net, variables, piece))(variables, piece))


def test_the_sample_is_the_split_without_padding_whatever_the_batches():
  for size in (1, 5, 12, 20):
    sample = whole_sample(spec(size), "train", 0)
    np.testing.assert_array_equal(sample["image"], X)
    np.testing.assert_array_equal(sample["id"], np.arange(N))
  chunks = in_chunks(sample, 5)
  assert chunks["image"].shape == (3, 5, D)
  np.testing.assert_array_equal(chunks["weight"].sum(axis=1), [5, 5, 2])
  np.testing.assert_array_equal(chunks["id"][2], [10, 11, -1, -1, -1])
  assert in_chunks(sample, 0)["image"].shape == in_chunks(sample, 99)["image"].shape == (1, N, D)
  with pytest.raises(UserError, match="'sharpness' takes the Gauss-Newton matrix of .* and the task is regression"):
    Sharpness(matrix="gauss_newton").prepare(
      dataclasses.replace(spec(), data=dataclasses.replace(spec().data, task=Regression(("x",)))), jax.random.key(0)
    )


@jax.jit
def exact_kernel(variables):
  """The mean over the outputs of <J_k(x), J_k(x')>, from the Jacobian."""
  jacobian = jax.jacobian(lambda params: apply({"params": params}, X).logits)(variables["params"])
  j = jnp.concatenate([leaf.reshape(N, K, -1) for leaf in jax.tree.leaves(jacobian)], axis=-1)
  return jnp.einsum("ikp,jkp->ij", j, j, precision="highest") / K


def test_the_tangent_kernel():
  found, k = measure({"name": "tangent_kernel", "top": 3}), exact_kernel(NOW)
  values = np.linalg.eigvalsh(np.float64(k))[::-1]
  p = values / values.sum()
  np.testing.assert_allclose(found["eigenvalues"], values[:3] / N, rtol=1e-5)
  for name, value in (("trace", values.sum() / N), ("top_mass", p[:3].sum()), ("participation_ratio", 1 / (p**2).sum()),
                      ("effective_rank", np.exp(-(p[p > 1e-12] * np.log(p[p > 1e-12])).sum()))):
    np.testing.assert_allclose(found[name], value, rtol=1e-4, err_msg=name)
  fit = jax.jit(lambda k, y: (metrics.centred_alignment(k, metrics.label_kernel(y)), metrics.label_energy(k, y, 3)))
  for prefix, label in (("", LABEL), ("true_", TRUE)):
    y = np.eye(K, dtype=np.float32)[label]
    alignment, energy = fit(k, y - y.mean(axis=0))
    np.testing.assert_allclose(found[f"{prefix}alignment"], alignment, rtol=1e-4)
    np.testing.assert_allclose(found[f"{prefix}label_energy"], energy, rtol=1e-4)
  assert abs(found["alignment"] - found["true_alignment"]) > 1e-3
  halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), NOW)
  np.testing.assert_allclose(measure({"name": "tangent_kernel", "top": 3}, variables=halves)["trace"], found["trace"],
                             rtol=0.02)  # its parameters are rounded, its products are not


@functools.cache
def dense_hessian():
  """Returns its eigenvalues, ascending."""
  batch = {"image": X, "label": LABEL, "weight": jnp.ones(N)}
  return np.linalg.eigvalsh(exact_hessian(lambda p: loss({"params": p}, batch), NOW["params"]))


@functools.cache
def dense_gauss_newton():
  """Returns the eigenvalues of sum_i J_i^T (diag p_i - p_i p_i^T) J_i / N, ascending."""
  logits = lambda params: apply({"params": params}, X).logits
  j, p = jax.jit(lambda params: (jax.jacobian(logits)(params), jax.nn.softmax(logits(params))))(NOW["params"])
  j = np.concatenate([leaf.reshape(N, K, -1) for leaf in jax.tree.leaves(j)], axis=-1)
  second = np.stack([np.diag(row) - np.outer(row, row) for row in np.asarray(p)]) / N
  return np.linalg.eigvalsh(np.einsum("ika,ikl,ilb->ab", j, second, j))


@pytest.mark.parametrize("chunk", [0, 5])
def test_sharpness_is_of_the_dense_matrix(chunk):
  exact = dense_hessian()
  found = measure({"name": "sharpness", "top": 4, "steps": 21, "chunk": chunk})
  np.testing.assert_allclose(found["eigenvalues"], exact[::-1][:4], rtol=1e-4)
  np.testing.assert_allclose([found["largest"], found["smallest"]], exact[[-1, 0]], rtol=1e-4)
  assert exact[0] < -1e-3 and found["error"] < 1e-5
  found = measure({"name": "sharpness", "matrix": "gauss_newton", "steps": 21, "chunk": chunk})
  np.testing.assert_allclose(found["largest"], dense_gauss_newton()[-1], rtol=1e-4)
  assert abs(found["largest"] - exact[-1]) > 1e-3 and found["smallest"] > -1e-6


def test_spectral_density_has_the_trace_and_the_ends_of_the_hessian():
  exact = dense_hessian()
  found = measure({"name": "spectral_density", "vectors": 200, "steps": 21, "bins": 99, "width": 0.03})
  np.testing.assert_allclose([found["smallest"], found["largest"]], exact[[0, -1]], rtol=1e-3)
  np.testing.assert_allclose(jnp.trapezoid(found["density"], found["grid"]), 1, atol=0.01)
  np.testing.assert_allclose(found["trace"], exact.sum(), rtol=0.15)
  width = 0.03 * (exact[-1] - exact[0])
  np.testing.assert_allclose(found["negative_share"], (exact < -width).mean(), atol=0.05)


def test_the_noise_scale_is_of_the_variance_of_the_batches_gradients():
  found = measure({"name": "noise_scale", "batch": 5})  # two examples are left over
  flat = lambda tree: np.concatenate([leaf.reshape(-1) for leaf in jax.tree.leaves(tree)])
  gradient = lambda rows: flat(jax.grad(lambda p: loss(
    {"params": p}, {"image": X[rows], "label": LABEL[rows], "weight": jnp.ones(5)}))(NOW["params"]))
  g = np.stack([gradient(slice(0, 5)), gradient(slice(5, 10))]).astype(np.float64)
  noise = 5 * g.var(axis=0, ddof=1).sum()
  signal = (g.mean(axis=0) ** 2).sum() - noise / 10
  np.testing.assert_allclose([found["noise"], found["signal"]], [noise, signal], rtol=1e-4)


def test_laziness():
  net = types.SimpleNamespace(**FIELDS, initial=lambda: START)
  at = lambda variables: measure({"name": "laziness"}, net, variables)
  assert all(abs(value) < 1e-6 for value in at(START).values())
  found, k, start = at(NOW), exact_kernel(NOW), exact_kernel(START)
  np.testing.assert_allclose(found["kernel"], np.linalg.norm(k - start) / np.linalg.norm(start), rtol=1e-4)
  np.testing.assert_allclose(found["kernel_distance"], metrics.kernel_distance(k, start), rtol=1e-4)
  np.testing.assert_allclose(found["parameters"], metrics.relative_change(NOW["params"], START["params"]), rtol=1e-5)
  logits = lambda params: apply({"params": params}, X).logits
  change = jax.tree.map(jnp.subtract, NOW["params"], START["params"])
  f, linear = logits(NOW["params"]), logits(START["params"]) + jax.jvp(logits, (START["params"],), (change,))[1]
  gap = np.linalg.norm(f - linear) / np.linalg.norm(f - logits(START["params"]))
  np.testing.assert_allclose(found["linearization_gap"], gap, rtol=1e-4)
  cross_entropy = lambda values: optax.softmax_cross_entropy_with_integer_labels(values, LABEL).mean()
  np.testing.assert_allclose(found["loss_gap"], cross_entropy(linear) - cross_entropy(f), rtol=1e-4)


@pytest.mark.parametrize("config, match", [
  ({"name": "tangent_kernel", "top": 13}, "leading eigenvectors is 13; give a whole number from 1 to 12"),
  ({"name": "tangent_kernel", "top": 0}, "top is 0; give a whole number of at least 1"),
  ({"name": "tangent_kernel", "block": -1}, "block is -1; give a whole number of at least 0"),
  ({"name": "tangent_kernel", "reduce": "full"}, "one of"),
  ({"name": "laziness", "block": -1}, "block is -1"),
  ({"name": "sharpness", "top": 5, "steps": 4}, "at least as many steps"),
  ({"name": "sharpness", "chunk": -1}, "chunk is -1; give a whole number of at least 0"),
  ({"name": "sharpness", "top": 22, "steps": 30}, "as many as steps and parameters"),
  ({"name": "spectral_density", "bins": 100}, "bins is 100; give a whole number from 2 to 99"),
  ({"name": "noise_scale", "batch": 7}, "12 examples, less than two batches of 7"),
  ({"name": "noise_scale", "batch": 0}, "batch is 0; give a whole number of at least 1"),
])
def test_mistakes_name_the_fix(config, match):
  with pytest.raises(UserError, match=match):
    measure(config)
