"""neural-tangents through `nurture.ntk.infinite`: what is repaired, and kernels against closed forms and each other."""

import importlib.util
import subprocess
import sys

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.ntk import infinite
from nurture.ntk.infinite import repair

if importlib.util.find_spec("neural_tangents") is None:
  pytest.skip("neural-tangents is not installed", allow_module_level=True)


@pytest.fixture(autouse=True)
def float64_and_rank_promotion():
  with jax.enable_x64(True), jax.numpy_rank_promotion("allow"):  # neural-tangents promotes ranks
    yield


@pytest.fixture(scope="module")
def nt():
  return infinite.neural_tangents()


def draw(*shape, seed=0):
  return jax.random.normal(jax.random.key(seed), shape, jnp.float64)


def test_a_fresh_process_loads_no_tensorflow_and_keeps_jax_as_it_was():
  code = """
import sys, jax, jax.core, jax.interpreters.ad
from nurture.ntk import infinite
assert "neural_tangents" not in sys.modules
modules = jax.core, jax.interpreters, jax.interpreters.ad
before = [dict(vars(m)) for m in modules]
nt = infinite.neural_tangents()
assert before == [dict(vars(m)) for m in modules] and not hasattr(jax, "util")
assert sys.modules["jax.core"] is jax.core and "jax.util" not in sys.modules
assert nt is infinite.neural_tangents() and nt.stax.Relu()
print("tensorflow" in sys.modules)
"""
  done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
  assert done.returncode == 0 and done.stdout.split() == ["False"], done.stderr


def networks(stax):
  attention = dict(n_chan_out=4, n_chan_key=4, n_chan_val=4, n_heads=2)
  return {
    "fully connected": ((3, 4), stax.serial(stax.Dense(5, b_std=0.1), stax.Erf(), stax.Dense(2, b_std=0.1))),
    "convolutional": ((3, 4, 4, 2), stax.serial(
      stax.Conv(3, (3, 3), padding="SAME", b_std=0.1), stax.Relu(), stax.AvgPool((2, 2), (2, 2)),
      stax.Flatten(), stax.Dense(2),
    )),
    "layer norm": ((3, 4), stax.serial(stax.Dense(5), stax.LayerNorm(), stax.Relu(), stax.Dense(2))),
    "attention": ((3, 4, 4), stax.serial(stax.GlobalSelfAttention(**attention), stax.GlobalAvgPool(), stax.Dense(2))),
  }


@pytest.mark.filterwarnings("ignore:Linear scaling attention")  # what neural-tangents has for a finite network
@pytest.mark.parametrize("name, trace_axes", [
  ("fully connected", (-1,)), ("convolutional", ()),
  *(pytest.param(*case, marks=pytest.mark.long) for case in [
    ("fully connected", ()), ("layer norm", (-1,)), ("attention", ()),
  ]),
])
def test_structured_derivatives_are_the_contracted_jacobians(nt, name, trace_axes):
  shape, (init, apply, _) = networks(nt.stax)[name]
  x1, x2 = draw(*shape), draw(*shape, seed=1)[:2]
  _, params = init(jax.random.key(2), shape)
  jacobian, structured = (
    jax.jit(nt.empirical_ntk_fn(apply, trace_axes=trace_axes, implementation=i))(x1, x2, params) for i in (1, 3)
  )
  assert jacobian.shape == ((3, 2) if trace_axes else (3, 2, 2, 2))
  np.testing.assert_allclose(structured, jacobian, rtol=0, atol=1e-12 * np.abs(jacobian).max())


@pytest.mark.long  # of neural-tangents itself, but for two repaired functions that it alone calls
def test_auto_compares_costs_and_chooses(nt, capsys):
  shape, (init, apply, _) = networks(nt.stax)["fully connected"]
  _, params = init(jax.random.key(2), shape)
  auto, jacobian = (nt.empirical_ntk_fn(apply, implementation=i)(draw(*shape), None, params) for i in (0, 1))
  np.testing.assert_allclose(auto, jacobian, rtol=1e-12)
  costs = [float(line.split("flops=")[1]) for line in capsys.readouterr().out.splitlines() if "flops=" in line]
  assert len(costs) == 3 and 0 < min(costs) < max(costs) < np.inf


def one_hidden_layer(nt, activation):
  """Returns the jitted kernel of a fully connected network; neural-tangents compiles every operation by itself."""
  kernel = nt.stax.serial(nt.stax.Dense(1), activation, nt.stax.Dense(1))[2]
  return jax.jit(kernel, static_argnums=2)


def test_fully_connected_kernels_are_the_closed_forms(nt):
  """One hidden layer: arc-cosine kernels for ReLU (Cho & Saul 2009), arc-sine for erf (Williams 1997)."""
  x, z = np.asarray(draw(4, 3)), np.asarray(draw(5, 3, seed=1))
  inner, lengths = x @ z.T / 3, np.sqrt(np.sum(x**2, 1)[:, None] * np.sum(z**2, 1)[None]) / 3
  theta = np.arccos(inner / lengths)
  second = lengths * (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
  first = (np.pi - theta) / (2 * np.pi)
  relu = one_hidden_layer(nt, nt.stax.Relu())
  np.testing.assert_allclose(relu(x, z, "nngp"), second, rtol=1e-10)
  np.testing.assert_allclose(relu(x, z, "ntk"), second + inner * first, rtol=1e-10)
  erf = one_hidden_layer(nt, nt.stax.Erf())
  scale = (1 + 2 * np.sum(x**2, 1)[:, None] / 3) * (1 + 2 * np.sum(z**2, 1)[None] / 3)
  value = 2 / np.pi * np.arcsin(2 * inner / np.sqrt(scale))
  slope = 4 / np.pi / np.sqrt(scale - 4 * inner**2)
  np.testing.assert_allclose(erf(x, z, "nngp"), value, rtol=1e-10)
  np.testing.assert_allclose(erf(x, z, "ntk"), value + inner * slope, rtol=1e-10)


def plain_cntk(x, z, depth, weight_std, bias_std):
  """The recursion of Arora et al. 2019 (arXiv:1904.11955) for two images [H, W, C]; covariances [H, W, H, W]."""
  images = {"x": x, "z": z}
  pairs = ("xx", "xz", "zz")
  sigma = {p: np.einsum("abc,dec->abde", images[p[0]], images[p[1]]) / x.shape[-1] for p in pairs}
  theta = np.zeros_like(sigma["xz"])

  def convolved(k):
    h, w = k.shape[:2]
    padded = np.pad(k, 1)
    taps = [padded[i : i + h, j : j + w, i : i + h, j : j + w] for i in range(3) for j in range(3)]
    return weight_std**2 * sum(taps) / 9

  def halved(k):
    h, w = k.shape[0] // 2, k.shape[1] // 2
    return k.reshape(h, 2, w, 2, h, 2, w, 2).mean(axis=(1, 3, 5, 7))

  for stage, count in enumerate({5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}[depth]):
    for _ in range(count):
      sigma = {p: convolved(k) + bias_std**2 for p, k in sigma.items()}
      theta = convolved(theta) + sigma["xz"]
      variance = {p: np.einsum("abab->ab", sigma[p + p]) for p in "xz"}
      moved = {}
      for p, k in sigma.items():
        lengths = np.sqrt(variance[p[0]][:, :, None, None] * variance[p[1]][None, None])
        angle = np.arccos(np.clip(k / lengths, -1, 1))
        moved[p] = lengths * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / (2 * np.pi)
        if p == "xz":
          theta = theta * (np.pi - angle) / (2 * np.pi)
      sigma = moved
    if stage < 2:
      sigma, theta = {p: halved(k) for p, k in sigma.items()}, halved(theta)
  nngp = weight_std**2 * sigma["xz"].mean() + bias_std**2
  return {"nngp": nngp, "ntk": weight_std**2 * theta.mean() + nngp}


@pytest.mark.parametrize("depth, weight_std, bias_std", [
  (5, 1.4, 0.3), *(pytest.param(*case, marks=pytest.mark.long) for case in [(5, 1.0, 0.0), (10, 1.4, 0.3)]),
])
def test_the_myrtle_kernel_is_the_convolutional_recursion(depth, weight_std, bias_std):
  kernel = infinite.myrtle_kernel(depth, weight_std=weight_std, bias_std=bias_std)
  x, z = draw(2, 8, 8, 2), draw(1, 8, 8, 2, seed=1)
  for kind in infinite.KINDS:
    ours = infinite.kernel_matrix(kernel, x, z, block=2, kind=kind)
    expected = [[plain_cntk(np.asarray(a), np.asarray(b), depth, weight_std, bias_std)[kind] for b in z] for a in x]
    np.testing.assert_allclose(ours, expected, rtol=1e-6)  # angles of an image with itself


def test_blocks_change_nothing(nt):
  kernel = one_hidden_layer(nt, nt.stax.Relu())
  x = draw(7, 3)
  x = x.at[6].set(x[0])  # coinciding inputs in different blocks
  z = draw(4, 3, seed=1)
  whole = infinite.kernel_matrix(kernel, x, block=7)
  np.testing.assert_allclose(whole, kernel(x, None, "ntk"), rtol=1e-7)
  blocked = infinite.kernel_matrix(kernel, x, block=3)
  np.testing.assert_array_equal(blocked, blocked.T)
  np.testing.assert_allclose(blocked, whole, rtol=1e-7)
  np.testing.assert_allclose(blocked[0], blocked[6], rtol=1e-7)
  assert np.linalg.eigvalsh(blocked)[0] > -1e-6
  np.testing.assert_allclose(infinite.kernel_matrix(kernel, z, x, block=3), kernel(z, x, "ntk"), rtol=1e-12)


def test_a_block_that_does_not_fit_is_refused_and_the_one_named_fits(nt):
  kernel = one_hidden_layer(nt, nt.stax.Relu())
  x = draw(64, 3)
  with pytest.raises(UserError, match=r"block=64 takes .* bytes, and memory is 2e\+04; block=\d+ should fit") as error:
    infinite.kernel_matrix(kernel, x, block=64, memory=2e4)
  block = int(str(error.value).split("; block=")[1].split()[0])
  assert infinite.kernel_matrix(kernel, x, block=block, memory=2e4).shape == (64, 64)
  with pytest.raises(UserError, match="not even one entry"):
    infinite.kernel_matrix(kernel, x, block=64, memory=1)


def test_gradient_flow_starts_at_zero_and_ends_in_kernel_regression():
  a, y, rate = draw(9, 12), draw(6, 2, seed=1), 3.0
  k = np.asarray(a @ a.T)
  k_train, k_test = k[:6, :6], k[6:, :6]
  for ridge in (0.0, 0.7):
    final = infinite.predict(k_train, k_test, y, ridge=ridge)
    coefficients = np.linalg.solve(k_train + ridge * np.eye(6), y)
    np.testing.assert_allclose(final.train, k_train @ coefficients, atol=1e-10)
    np.testing.assert_allclose(final.test, k_test @ coefficients, atol=1e-10)
    path = infinite.predict(k_train, k_test, y, [0.0, 2.0, 1e9], learning_rate=rate, ridge=ridge)
    values, vectors = np.linalg.eigh(k_train + ridge * np.eye(6))
    decay = -np.expm1(-rate * 2.0 * values / 12) / values
    np.testing.assert_allclose(path.test[1], k_test @ (vectors * decay) @ vectors.T @ y, atol=1e-10)
    np.testing.assert_allclose(path.train[0], 0, atol=1e-12)
    np.testing.assert_allclose(path.test[2], final.test, atol=1e-9)


def test_the_largest_learning_rate_is_two_over_the_largest_eigenvalue(nt):
  a = draw(5, 8)
  k = a @ a.T
  for momentum in (0.0, 0.9):
    rate = nt.predict.max_learning_rate(k, y_train_size=10, momentum=momentum)
    np.testing.assert_allclose(rate, 2 * (1 + momentum) * 10 / np.linalg.eigvalsh(k)[-1], rtol=1e-9)


@pytest.mark.long
def test_batches_run_on_two_devices(nt):
  init, apply, kernel = nt.stax.serial(nt.stax.Dense(4), nt.stax.Relu(), nt.stax.Dense(1))
  x = draw(4, 3)
  batched = nt.batch(kernel, batch_size=1, device_count=2)
  np.testing.assert_allclose(batched(x, None, "ntk"), kernel(x, None, "ntk"), rtol=1e-7)


def test_a_jax_that_breaks_it_is_named(monkeypatch):
  infinite.neural_tangents()
  message = rf"neural-tangents \S+ does not work with jax {jax.__version__} \(.*requirements.txt names"
  for module, name, broken in ((jax.extend.core, "Jaxpr", None), (jax, "linearize", lambda f: f)):
    repair.neural_tangents.cache_clear()
    with monkeypatch.context() as patch:
      if broken:
        patch.setattr(module, name, broken)
      else:
        patch.delattr(module, name)
      with pytest.raises(UserError, match=message):
        infinite.neural_tangents()
    assert infinite.neural_tangents().stax
  repair.neural_tangents.cache_clear()
  with monkeypatch.context() as patch:
    patch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed; run pip install"):
      infinite.neural_tangents()


def errors():
  k, y = np.eye(3), np.ones((3, 1))
  kernel, x = (lambda a, b, kind: a @ b.T), np.ones((3, 2))
  matrix = lambda *args, **kwargs: infinite.kernel_matrix(kernel, *args, **{"block": 2} | kwargs)
  return {
    "no Myrtle network of depth 6": lambda: infinite.myrtle_kernel(6),
    "block is 0": lambda: matrix(x, block=0),
    "kind is 'cntk'": lambda: matrix(x, kind="cntk"),
    "inputs of one shape": lambda: matrix(x, np.ones((3, 4))),
    "there is no input": lambda: matrix(x, np.ones((0, 2))),
    "give \\[n, n\\]": lambda: infinite.predict(k, k[:, :2], y),
    "not a finite symmetric matrix": lambda: infinite.predict(np.triu(np.ones((3, 3))), k, y),
    "eigenvalue -1": lambda: infinite.predict(np.diag([1.0, 2.0, -1.0]), k, y, 1.0),
    "singular up to rounding": lambda: infinite.predict(np.diag([1.0, 2.0, 0.0]), k, y),
    "width is 0": lambda: infinite.myrtle(5, width=0, num_outputs=1),
  }


@pytest.mark.parametrize("message", errors())
def test_a_mistake_is_one_sentence(message):
  with pytest.raises(UserError, match=message):
    errors()[message]()


def test_regression_is_refused_without_float64():
  with jax.enable_x64(False), pytest.raises(UserError, match=r"jax.enable_x64\(True\)"):
    infinite.predict(np.eye(3), np.eye(3), np.ones((3, 1)))


@pytest.mark.parametrize("t", [3.0, pytest.param(None, marks=pytest.mark.long)])
def test_gradient_descent_takes_traced_kernels_and_ridges(nt, t):
  x = draw(2, 6, 5)
  kernels, y = x @ x.swapaxes(1, 2), draw(6, 2, seed=1)

  def outputs(kernel, ridge):
    flow = nt.predict.gradient_descent_mse(kernel[:4, :4], y[:4], diag_reg=ridge)
    return flow(t, 0.0, jnp.zeros((2, 2)), kernel[4:, :4])[1]

  expected = np.stack([outputs(kernel, 0.1) for kernel in kernels])
  @jax.jit
  def traced(kernels, ridge):
    of_ridge = lambda ridge: outputs(kernels[0], ridge)
    return jax.vmap(outputs, (0, None))(kernels, ridge), of_ridge(ridge), jax.grad(lambda r: of_ridge(r).sum())(ridge)

  together, one, slope = traced(kernels, 0.1)
  np.testing.assert_allclose(together, expected, rtol=1e-9)
  np.testing.assert_allclose(one, expected[0], rtol=1e-9)
  np.testing.assert_allclose(jax.jit(lambda ridge: outputs(kernels[0], ridge))(0.1), expected[0], rtol=1e-9)
  assert np.isfinite(slope)
