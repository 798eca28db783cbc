"""The doors of the empirical kernel: closed forms, blocks, devices, products, sketches, memory, and mistakes."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models
from nurture.core import UserError
from nurture.ntk import empirical
from nurture.ntk.contraction import num_bytes
from nurture.ntk.empirical import ntk, ntk_matvec, ntk_sketch
from nurture.ntk.function import checked_function
from nurture.ntk.memory import choose_block, needed_bytes, row_bytes
from nurture.ntk.sketch import _projected


class Linear(nn.Module):
  """A deep linear network without biases."""

  widths: tuple[int, ...]

  @nn.compact
  def __call__(self, x):
    for i, width in enumerate(self.widths):
      x = nn.Dense(width, use_bias=False, param_dtype=jnp.float64, name=f"layer_{i}")(x)
    return x


def linear(widths, n=3, features=4):
  model, draws = Linear(widths), np.random.default_rng(0)
  x = jnp.asarray(draws.normal(size=(n, features)))
  matrices = [draws.normal(size=shape) for shape in zip([features, *widths], widths)]
  return model.apply, {"params": {f"layer_{i}": {"kernel": w} for i, w in enumerate(matrices)}}, x, matrices


@pytest.mark.parametrize("widths", [(3, 2, 5, 2), (6, 1)])
def test_deep_linear_networks_have_the_kernel_of_their_closed_form(widths, key):
  """Θ_kl(x, x') = sum_layers <h(x), h(x')> (A^T A)_kl, with h before the layer and A the product of those after it.

  Of two layers f = <a, W x> it is <x, x'> |a|² + <W x, W x'>.
  """
  with jax.enable_x64(True):
    apply, variables, x, matrices = linear(widths)
    hidden = [np.asarray(x)]
    for w in matrices:
      hidden.append(hidden[-1] @ w)
    after = [functools.reduce(np.matmul, matrices[i + 1 :], np.eye(w.shape[1])) for i, w in enumerate(matrices)]
    expected = sum(np.einsum("ij,kl->ijkl", h @ h.T, a.T @ a) for h, a in zip(hidden, after))
    v = np.asarray(jax.random.normal(key, (len(x), widths[-1]), jnp.float64))

    def everything(variables, x, v):
      kernels = [ntk(apply, variables, x, reduce=reduce) for reduce in ("full", "trace", "pseudo")]
      return kernels, [
        ntk_matvec(apply, variables, x, v, reduce="full", block=1),
        ntk_matvec(apply, variables, x, v[:, 0], reduce="trace"),
        ntk_matvec(apply, variables, x, v[:, 0], reduce="pseudo"),
        ntk_matvec(apply, variables, x[:2], v, x2=x, reduce="full"),
      ]

    kernels, products = jax.jit(everything)(variables, x, v)
  outputs = widths[-1]
  reduced = [expected, np.trace(expected, axis1=2, axis2=3) / outputs, expected.sum(axis=(2, 3)) / outputs]
  along = [np.einsum("ijkl,jl->ik", expected, v), *(kernel @ v[:, 0] for kernel in reduced[1:])]
  along.append(along[0][:2])
  for ours, theirs in zip([*kernels, *products], [*reduced, *along]):
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * np.abs(theirs).max())
  if len(widths) == 2:
    (w, a), z = matrices, np.asarray(x)
    np.testing.assert_allclose(expected[..., 0, 0], z @ z.T * np.sum(a**2) + (z @ w) @ (z @ w).T)


class Whole(nn.Module):
  """A network of whole numbers: every sum is exact, in any order."""

  @nn.compact
  def __call__(self, x):
    draw = lambda key, shape, dtype: jax.random.randint(key, shape, -2, 3).astype(dtype)
    dense = functools.partial(nn.Dense, kernel_init=draw, bias_init=draw)
    return dense(2)(nn.relu(dense(3)(x)))


WHOLE = Whole()


def whole_numbers(key, n):
  x = jax.random.randint(key, (n, 4), -2, 3).astype(jnp.float32)
  return WHOLE.apply, WHOLE.init(jax.random.key(1), x), x


@pytest.mark.parametrize("reduce", ["trace", "full"])
def test_blocks_and_devices_change_no_bit(reduce, key):
  apply, variables, x = whole_numbers(key, 5)
  kernel = ntk(apply, variables, x, reduce=reduce)
  mirrored = np.swapaxes(kernel, 0, 1) if reduce == "trace" else np.transpose(kernel, (1, 0, 3, 2))
  np.testing.assert_array_equal(kernel, mirrored)
  np.testing.assert_array_equal(ntk(apply, variables, x, reduce=reduce, block=2), kernel)
  mesh = jax.make_mesh((2,), ("rows",), axis_types=(jax.sharding.AxisType.Explicit,))
  np.testing.assert_array_equal(ntk(apply, variables, x, reduce=reduce, block=4, mesh=mesh), kernel)
  rectangle = ntk(apply, variables, x, x[1:4], reduce=reduce, block=2)
  np.testing.assert_array_equal(rectangle, kernel[:, 1:4])
  np.testing.assert_array_equal(ntk(apply, variables, x, x[1:4], reduce=reduce, mesh=mesh), rectangle)


def test_one_output_has_one_kernel(key):
  """Pseudo and trace are the same for K = 1; the pseudo-NTK of K copies of one output is K times the trace."""
  apply, variables, x = whole_numbers(key, 3)
  single = lambda v, x: apply(v, x)[:, :1]
  np.testing.assert_array_equal(ntk(single, variables, x, reduce="pseudo"), ntk(single, variables, x))
  twice = lambda v, x: jnp.concatenate([single(v, x)] * 2, axis=1)
  np.testing.assert_allclose(ntk(twice, variables, x, reduce="pseudo"), 2 * ntk(twice, variables, x), rtol=1e-6)


@pytest.mark.parametrize("reduce", ["trace", pytest.param("pseudo", marks=pytest.mark.long)])
def test_sketches_are_unbiased_and_keep_their_bound(reduce, key):
  apply, variables, x = whole_numbers(key, 3)
  kernel = np.asarray(ntk(apply, variables, x, reduce=reduce))
  m, draws = 40, 200  # not a multiple of the 32 signs of a word
  sketch = jax.jit(lambda key: ntk_sketch(apply, variables, x, m, key, reduce=reduce))
  features = np.stack([sketch(k) for k in jax.random.split(key, draws)]).astype(np.float64)
  assert features.shape == (draws, 3, m)
  estimates = np.einsum("dim,djm->dij", features, features)
  norms = np.outer(np.diag(kernel), np.diag(kernel))
  error = np.abs(estimates.mean(axis=0) - kernel)
  assert np.all(error < 4 * np.sqrt(2 * norms / m / draws))
  variance = np.mean((estimates - kernel) ** 2, axis=0)
  assert np.all(variance < 1.5 * (norms + kernel**2) / m) and np.all(variance > 0.2 * norms / m)
  one = sketch(key)
  np.testing.assert_allclose(ntk_sketch(apply, variables, x, m, key, reduce=reduce, block=1), one, rtol=1e-5)


def test_signs_are_signs_and_pieces_of_columns_are_independent(key, monkeypatch):
  monkeypatch.setattr("nurture.ntk.sketch._COLUMNS", 8)
  signs = np.asarray(_projected(jnp.eye(20), key, 500))
  np.testing.assert_array_equal(np.abs(signs), 1)
  correlations = signs @ signs.T / 500 - np.eye(20)
  assert np.abs(correlations).max() < 5 / np.sqrt(500)


@pytest.mark.parametrize("config, reduce", [
  pytest.param("resnet18_cifar", "pseudo", marks=pytest.mark.long),
  ({"name": "cnn", "layers": (("conv", 32, 3), ("conv", 32, 3), ("global_avg_pool",))}, "trace"),
  pytest.param({"name": "vit", "depth": 1, "width": 64, "heads": 4, "patch": 4}, "trace", marks=pytest.mark.long),
], ids=["resnet", "cnn", "vit"])
def test_blocks_take_no_more_than_is_said(config, reduce, monkeypatch):
  """By XLA's own account of its programs; 8 rows against 8 others, with 4 MiB of work."""
  work, block = 2**22, 8
  monkeypatch.setattr("nurture.ntk.contraction.WORK", work)
  model, x = models.build(config, num_classes=10), jnp.zeros((block, 32, 32, 3))
  variables = jax.eval_shape(model.init, jax.random.key(0), x[:1])
  network = checked_function(lambda variables, x: model.apply(variables, x).logits, variables, x)
  settings = empirical._Settings(network, reduce, "factored", None)
  factors = empirical._prepare.eval_shape(settings, variables, x)
  held = num_bytes(factors)
  row = row_bytes(held // block, max(factor.expanded_bytes() for factor in factors) // block)
  taken = lambda program: program.compile().memory_analysis()
  prepare = taken(empirical._prepare.lower(settings, variables, x))
  assert held + prepare.temp_size_in_bytes + prepare.output_size_in_bytes <= needed_bytes(block, row, 4, 0)
  distinct = {str(jax.tree.map(lambda a: (a.shape, a.dtype), factor)): factor for factor in factors}
  for factor in distinct.values():
    layer = taken(empirical._with_layer.lower(settings, None, factor, factor)).temp_size_in_bytes
    assert 2 * held + layer <= block * row + work


@pytest.mark.parametrize("model, samples", [
  (lambda x: nn.Embed(2000, 16)(x).mean(axis=1), lambda n: jnp.arange(n * 60).reshape(n, 60) % 2000),
  (lambda x: nn.Embed(300, 16)(x).mean(axis=1), lambda n: jnp.arange(n * 60).reshape(n, 60) % 300),
  (lambda x: nn.Conv(1, (11, 11))(x).mean(axis=(1, 2)), lambda n: jnp.ones((n, 20, 20, 8))),
  (lambda x: nn.Dense(1)(nn.relu(nn.Dense(8)(x))), lambda n: jnp.ones((n, 8))),
], ids=["large table", "table in pieces", "patches", "many samples"])
def test_memory_is_kept_where_one_part_dominates(model, samples, monkeypatch):
  """Tables of an embedding, patches of a large window, and results of many samples: by XLA's own account."""
  work = 2**20
  monkeypatch.setattr("nurture.ntk.contraction.WORK", work)
  monkeypatch.setattr("nurture.ntk.memory.WORK", work)
  module = Calls(model)
  block = 1500 if samples(2).ndim == 2 and samples(2).shape[1] == 8 else 16
  x = samples(block)
  variables = jax.eval_shape(module.init, jax.random.key(0), x[:1])
  settings = empirical._Settings(checked_function(module.apply, variables, x), "trace", "factored", None)
  factors = empirical._prepare.eval_shape(settings, variables, x)
  held, total = num_bytes(factors), jax.ShapeDtypeStruct((block, block), jnp.float32)
  row = row_bytes(held // block, max(factor.expanded_bytes() for factor in factors) // block)
  for factor in factors:
    layer = empirical._with_layer.lower(settings, total, factor, factor).compile().memory_analysis()
    assert 2 * held + layer.temp_size_in_bytes + layer.output_size_in_bytes <= needed_bytes(block, row, 4, 0)


def test_the_block_is_what_memory_allows():
  row, entry, kernel = 8 * 10**6, 4, 10**8
  memory = needed_bytes(10, row, entry, kernel)
  choose = lambda block, rows=25, multiple=1: choose_block(block, rows, row, entry, kernel, memory, multiple)
  assert [choose(None), choose(None, rows=8), choose(4), choose(10), choose(None, multiple=4)] == [9, 8, 4, 10, 8]
  with pytest.raises(UserError, match=r"block=11 needs .* GB, but there are .* GB; block=10 fits\."):
    choose(11)
  with pytest.raises(UserError, match=r"ntk_matvec and ntk_sketch"):
    choose_block(None, 25, row, entry, kernel, kernel, 1)
  with pytest.raises(UserError, match=r"block=3 cannot be spread over the 4 devices"):
    choose(3, multiple=4)


def test_blocks_are_counted(key):
  apply, variables, x = whole_numbers(key, 5)
  counted = []
  count = lambda done, blocks: counted.append((done, blocks))
  ntk(apply, variables, x, block=2, on_block=count)
  ntk(apply, variables, x, on_block=count)
  assert counted == [(i, 6) for i in range(1, 7)] + [(1, 1)]


def test_memory_may_be_a_float(key):
  apply, variables, x = whole_numbers(key, 4)
  np.testing.assert_array_equal(ntk(apply, variables, x, memory=268.5e6), ntk(apply, variables, x))


def test_a_jitted_apply_is_looked_into(key):
  apply, variables, x = whole_numbers(key, 2)
  assert checked_function(jax.jit(apply), variables, x).apply == apply


class Trains(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=False, name="norm")(nn.Dense(3)(x))


class Drops(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.Dropout(0.5, name="drop")(nn.Dense(3)(x), deterministic=False)


class Calls(nn.Module):
  """A module around a function of its input."""

  function: Callable

  @nn.compact
  def __call__(self, x):
    return self.function(x)


class Path(nn.Module):
  @nn.compact
  def __call__(self, x):
    kept = jax.random.bernoulli(self.make_rng("dropout"), 0.5, (len(x), 1))
    return nn.Dense(3, name="out")(x) * kept


class Complex(nn.Module):
  @nn.compact
  def __call__(self, x):
    phase = self.param("phase", lambda key: jnp.ones(3, jnp.complex64))
    return nn.Dense(3)(x) * jnp.abs(phase)[None]


def attention_that_drops(x):
  y = nn.MultiHeadDotProductAttention(1, dropout_rate=0.5, deterministic=False, name="heads")(x[:, None])
  return y[:, 0]


@jax.custom_vjp
def reverse_only(x):
  return x


reverse_only.defvjp(lambda x: (x, None), lambda _, g: (g,))


class Unhashable(dict):
  def __call__(self, v, x):
    return x


def trained(module, x):
  variables = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(module.init, jax.random.key(0), x))
  apply = lambda v, x: module.apply(v, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)})[0]
  return apply, variables


BAD = {
  "batch norm": (lambda a, v, x: ntk(*trained(Trains(), x), x), "norm is a BatchNorm in training mode"),
  "dropout": (lambda a, v, x: ntk_matvec(*trained(Drops(), x), x, x[:, 0]), "drop is a Dropout that is on"),
  "dropped path": (lambda a, v, x: ntk(*trained(Path(), x), x), r"Path draws random numbers \('dropout'\)"),
  "dropped attention": (lambda a, v, x: ntk(*trained(Calls(attention_that_drops), x), x), "heads draws random numbers"),
  "complex": (lambda a, v, x: ntk(*trained(Complex(), x), x), "complex parameters"),
  "whole parameters": (lambda a, v, x: ntk(a, {"params": {"w": jnp.ones(2, int)}}, x), "of a floating type"),
  "module": (lambda a, v, x: ntk(Path(), v, x), "apply is a Path; .* such as model.apply"),
  "no function": (lambda a, v, x: ntk(None, v, x), "apply is a NoneType"),
  "no hash": (lambda a, v, x: ntk(Unhashable(), v, x), "without a hash"),
  "no outputs": (lambda a, v, x: ntk(lambda v, x: a(v, x)[:, :0], v, x), r"an array \[1, 0\]"),
  "no array": (lambda a, v, x: ntk(a, v, {"a": x}), "x1 is a dict"),
  "nothing": (lambda a, v, x: ntk_matvec(a, v, None, x), "x is a NoneType"),
  "fraction of a block": (lambda a, v, x: ntk(a, v, x, block=2.0), "block is 2.0"),
  "word for a block": (lambda a, v, x: ntk_matvec(a, v, x, x[:, 0], block="2"), "block is '2'"),
  "memory in words": (lambda a, v, x: ntk(a, v, x, memory="4GB"), "memory is '4GB'; give bytes"),
  "less than nothing": (lambda a, v, x: ntk(a, v, x, memory=-1), "memory is -1"),
  "forwards": (lambda a, v, x: ntk(lambda v, x: reverse_only(a(v, x)), v, x, method="ntvp"), "reverse derivative only"),
  "forwards too": (
    lambda a, v, x: ntk_matvec(lambda v, x: reverse_only(a(v, x)), v, x, x[:, 0]), 'method="factored" or "jacobian"'),
  "complex vector": (lambda a, v, x: ntk_matvec(a, v, x, 1j * x[:, 0]), "vector is complex"),
  "no key": (lambda a, v, x: ntk_sketch(a, v, x, 8, 0), "no single key"),
  "keys": (lambda a, v, x: ntk_sketch(a, v, x, 8, jax.random.split(jax.random.key(0))), "no single key"),
  "some features": (lambda a, v, x: ntk_sketch(a, v, x, 8.5, jax.random.key(0)), "num_features is 8.5"),
  "no logits": (lambda a, v, x: ntk(lambda v, x: a(v, x).sum(), v, x), r"an array \[\] of float32 .* \[n, K\]"),
  "a tuple": (lambda a, v, x: ntk(lambda v, x: (a(v, x),), v, x), "returns a tuple"),
  "other shape": (lambda a, v, x: ntk(a, v, x, x[:, :2]), "give both the same shape"),
  "empty": (lambda a, v, x: ntk(a, v, x[:0]), "x1 is .* at least one sample"),
  "empty columns": (lambda a, v, x: ntk(a, v, x, x[:0]), "x2 is .* at least one sample"),
  "block": (lambda a, v, x: ntk(a, v, x, block=0), "block is 0"),
  "reduce": (lambda a, v, x: ntk(a, v, x, reduce="mean"), "reduce is 'mean'; known: full, pseudo, trace"),
  "method": (lambda a, v, x: ntk(a, v, x, method="jacobi"), "did you mean 'jacobian'"),
  "mesh": (lambda a, v, x: ntk(a, v, x, mesh=2), "mesh is a int"),
  "no params": (lambda a, v, x: ntk(a, {}, x), "variables hold no parameters"),
  "memory": (lambda a, v, x: ntk(a, v, x, memory=10**6), "but there are 0.001 GB"),
  "few": (lambda a, v, x: ntk(a, v, x[:1], mesh=jax.sharding.Mesh(jax.devices(), ("r",))), "1 samples cannot"),
  "vector": (lambda a, v, x: ntk_matvec(a, v, x, x), r"vector is \[3, 4\], but the kernel acts on \[3\]"),
  "divisor": (lambda a, v, x: ntk_matvec(a, v, x, x[:, 0], block=2), "does not divide 3 samples"),
  "features": (lambda a, v, x: ntk_sketch(a, v, x, 0, jax.random.key(0)), "num_features is 0"),
  "sketch block": (lambda a, v, x: ntk_sketch(a, v, x, 8, jax.random.key(0), block=2), "does not divide 3 samples"),
  "full sketch": (lambda a, v, x: ntk_sketch(a, v, x, 8, jax.random.key(0), reduce="full"), "reduce is 'full'"),
}


@pytest.mark.parametrize("name", BAD)
def test_mistakes_are_one_sentence(name, key):
  call, message = BAD[name]
  apply, variables, x = whole_numbers(key, 3)
  with pytest.raises(UserError, match=message):
    call(apply, variables, x)
