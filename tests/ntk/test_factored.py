"""The layer rules against plain Jacobians, on every kind of layer, sharing and wrapping; all methods on the models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models
from nurture.ntk.contraction import Linear
from nurture.ntk.empirical import ntk
from nurture.ntk.factored import make_plan

N = 3
IMAGE, TOKENS = (4, 4, 2), (4,)
TRANSFORMER = {"width": 4, "depth": 1, "heads": 2, "mlp_dim": 3}
# A config, the shape of an input, and the parameters that no rule covers.
MODELS = {
  "mlp": ({"name": "mlp", "depth": 1, "width": 4, "norm": "batch", "activation": "tanh"}, IMAGE, ()),
  "cnn": ({
    "name": "cnn", "norm": "layer",
    "layers": (("conv", 3, 3, 2), ("conv", 2, 3), ("max_pool", 2), ("dense", 3)),
  }, (5, 5, 2), ()),
  "resnet": ({"name": "resnet", "blocks": (1, 1), "width": 2}, IMAGE, ()),
  "vit": (
    {"name": "vit", **TRANSFORMER, "patch": 2, "pool": "cls", "positions": "learned", "layer_scale": 0.5},
    IMAGE, ("attention_scale", "mlp_scale", "cls", "embedding", "positions"),
  ),
  "decoder": (
    {"name": "decoder", **TRANSFORMER, "max_length": 4, "tied": True, "qk_norm": True}, TOKENS, ("embedding",),
  ),
  "vanillanet": (
    {"name": "vanillanet", "dims": (2, 3), "strides": (2,), "stem_patch": 2, "act_num": 1}, IMAGE,
    ("stem_conv1", "series"),
  ),
  "rnn": ({"name": "lstm", "width": 3, "embedding": 2}, TOKENS, ("layer_00",)),
}


def random_like(variables, seed=7):
  """Returns variables of float64 with no zeros and no ones among them, so that every term of a kernel counts."""
  draws = np.random.default_rng(seed)
  sign = lambda a: np.where(draws.random(a.shape) < 0.3, -1, 1) if a.ndim > 1 else 1
  return jax.tree.map(lambda a: draws.uniform(0.3, 0.8, a.shape) * sign(a), variables)


def plain(apply, variables, x):
  """Returns the full kernel by its definition, from the Jacobian of the whole batch."""
  jacobian = jax.jacrev(lambda params: apply({**variables, "params": params}, x))(variables["params"])
  flat = [leaf.reshape(*leaf.shape[:2], -1) for leaf in jax.tree.leaves(jacobian)]
  return sum(jnp.einsum("ikp,jlp->ijkl", leaf, leaf) for leaf in flat)


def uncovered(apply, variables, x):
  names, free = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(variables["params"])], []
  jax.eval_shape(lambda v: free.extend(make_plan(apply, v, x[0]).free), variables)
  return [names[i] for i in free]


def initialized(model, shape, key):
  draws = np.random.default_rng(0)
  x = jnp.asarray(draws.integers(0, 2, (N, *shape)) if len(shape) == 1 else draws.normal(size=(N, *shape)))
  return x, random_like(jax.eval_shape(model.init, key, x))


METHODS = ("jacobian", "factored", "ntvp")  # the last looks at no layer: two models tell of it


@pytest.mark.parametrize("name, methods", [
  ("mlp", METHODS), ("cnn", METHODS[:2]), ("decoder", METHODS[:2]), ("rnn", METHODS),
  *(pytest.param(name, METHODS, marks=pytest.mark.long) for name in MODELS),
], ids=lambda value: value if isinstance(value, str) else str(len(value)))
def test_all_methods_agree_on_the_models(name, methods, key):
  config, shape, without_rule = MODELS[name]
  with jax.enable_x64(True):
    model = models.build(config, num_classes=2).clone(dtype="float64")
    x, variables = initialized(model, shape, key)

    def apply(variables, x):
      logits = model.apply(variables, x).logits
      return logits if logits.ndim == 2 else logits[:, -1]

    def kernels(variables, x):
      return [ntk(apply, variables, x, reduce="full", method=method) for method in methods]

    jacobian, *others = jax.jit(kernels)(variables, x)
    for kernel in others:
      np.testing.assert_allclose(kernel, jacobian, rtol=0, atol=1e-12 * np.abs(jacobian).max())
    free = uncovered(apply, variables, x)
    assert all(any(part in leaf for part in without_rule) for leaf in free)
    assert all(any(part in leaf for leaf in free) for part in without_rule)


class Layers(nn.Module):
  """Convolutions of all kinds, norms, and dense layers over several axes."""

  @nn.compact
  def __call__(self, x):
    conv = lambda features, size, **fields: nn.Conv(features, size, param_dtype=jnp.float64, **fields)
    x = conv(4, (3, 2), strides=(2, 1), padding="SAME", name="strided")(x)
    x = conv(6, (2, 2), feature_group_count=2, kernel_dilation=2, padding=((1, 0), (2, 1)), name="grouped")(x)
    x = nn.GroupNorm(3, param_dtype=jnp.float64, name="group_norm")(jnp.sin(x))
    x = conv(2, (3, 3), padding="CIRCULAR", use_bias=False, name="circular")(x)
    x = nn.InstanceNorm(param_dtype=jnp.float64, name="instance_norm")(x)
    x = conv(2, (2, 2), padding="REFLECT", strides=2, name="reflect")(x)
    x = jnp.tanh(x).reshape(x.shape[0], -1, 2)
    x = conv(3, 2, padding="CAUSAL", name="causal")(x)
    x = nn.RMSNorm(param_dtype=jnp.float64, name="rms_norm")(x)
    x = nn.MultiHeadDotProductAttention(3, param_dtype=jnp.float64, name="attention")(x)
    return nn.DenseGeneral(2, axis=(-1, 1), param_dtype=jnp.float64, name="head")(x)


class Shared(nn.Module):
  """Layers called several times, on inputs of several sizes."""

  @nn.compact
  def __call__(self, tokens):
    embed, dense = nn.Embed(5, 3, param_dtype=jnp.float64), nn.Dense(3, param_dtype=jnp.float64)
    norm, conv = nn.LayerNorm(param_dtype=jnp.float64), nn.Conv(3, (2,), strides=2, param_dtype=jnp.float64)
    x = embed(tokens) + jnp.sin(embed(tokens[:, ::-1] - 2))  # negative tokens count from the end
    x = norm(jnp.tanh(dense(norm(dense(x)))))
    return dense(conv(jnp.concatenate([conv(x), x[:, :1]], axis=1)).mean(axis=1))[:, :2]


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, _=None):
    return x + jnp.tanh(nn.Dense(3, param_dtype=jnp.float64, name="dense")(x)), None


class Evasive(nn.Module):
  """Parameters that are used beside a layer's call, or in a layer that is not what it seems."""

  @nn.compact
  def __call__(self, x):
    x = x.reshape(x.shape[0], -1)
    dense = nn.Dense(3, param_dtype=jnp.float64, name="also_read")
    x = dense(x)
    x = x * jnp.sum(dense.variables["params"]["kernel"] ** 2)
    x = nn.Dense(3, param_dtype=jnp.float64, name="own_product", dot_general=_doubled)(x)
    x = nn.WeightNorm(nn.Dense(3, param_dtype=jnp.float64, name="normed"))(x)
    x = nn.scan(Block, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)(name="scanned")(x)[0]
    repeated = nn.scan(Block, variable_broadcast="params", split_rngs={"params": False}, length=2)
    x = repeated(name="repeated")(x)[0]
    x = nn.remat(Block)(name="again")(x)[0]
    x = x[:, :, None] * nn.Conv(1, (2,), mask=jnp.arange(2.0).reshape(2, 1, 1), name="masked")(x[:, :, None])
    return x.reshape(x.shape[0], -1)[:, :2]


class Unusual(nn.Module):
  """Layers that a rule would get wrong, or whose settings are seldom used; parameters within a map."""

  @nn.compact
  def __call__(self, x):
    double = {"param_dtype": jnp.float64}
    conv = lambda features, size, **fields: nn.Conv(features, size, **double, **fields)
    x = conv(2, (2, 2), padding=1, name="whole_padding")(x)
    x = conv(2, (2, 2), padding=((-1, 1), (0, -1)), name="cropped")(x)
    x = conv(2, (2, 2), input_dilation=2, padding=((0, 0), (1, 0)), name="spread")(x)
    x = conv(3, (2,), name="more_batch_axes")(x)
    x = nn.LayerNorm(**double, reduction_axes=(1, 2), feature_axes=(1, -1), name="feature_axes")(x)
    x = nn.LayerNorm(**double, name="partly")(x, mask=x > x.min(axis=-1, keepdims=True))
    x = x.reshape(x.shape[0], -1)[:, :3]
    x = x + nn.Embed(1, 3, **double, name="one_row")(jnp.full(x.shape[:1], 4))
    inner = nn.Dense(3, **double, name="in_a_map")
    x = inner(x)  # makes the parameters; in the map it is the same layer
    x = jax.vmap(lambda row: jnp.tanh(inner(row)))(x)
    return x[:, :2]


def _doubled(*args, **kwargs):
  return 2 * jax.lax.dot_general(*args, **kwargs)


@pytest.mark.parametrize("module, shape, covered", [
  (Layers(), (5, 6, 2), True), (Shared(), (4,), True), (Evasive(), (1, 2, 2), False),
])
def test_layers_sharing_and_evasion(module, shape, covered, key):
  with jax.enable_x64(True):
    x, variables = initialized(module, shape, key)
    pair = jax.jit(lambda v, x: (plain(module.apply, v, x), ntk(module.apply, v, x, reduce="full")))
    expected, kernel = pair(variables, x)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    free = uncovered(module.apply, variables, x)
    biases = sum("masked" in leaf for leaf in free)
    assert (free == []) if covered else len(free) == len(jax.tree.leaves(variables["params"])) and biases == 2


def test_layers_with_unusual_settings(key):
  with jax.enable_x64(True):
    x, variables = initialized(Unusual(), (3, 4, 2), key)
    apply = Unusual().apply
    expected, kernel = jax.jit(lambda v, x: (plain(apply, v, x), ntk(apply, v, x, reduce="full")))(variables, x)
    np.testing.assert_allclose(kernel, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


@pytest.mark.parametrize("change", ["inputs", "outputs"])
def test_an_interceptor_of_the_users_own_is_respected(change, key):
  """As adapters and activation steering use them."""
  class Two(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(2, param_dtype=jnp.float64)(jnp.tanh(nn.Dense(4, param_dtype=jnp.float64)(x)))

  def triple(next_function, args, kwargs, context):
    if not isinstance(context.module, nn.Dense):
      return next_function(*args, **kwargs)
    return 3 * next_function(*args) if change == "outputs" else next_function(3 * args[0])

  def apply(variables, x):
    with nn.intercept_methods(triple):
      return Two().apply(variables, x)

  with jax.enable_x64(True):
    x, variables = initialized(Two(), (3,), key)
    pair = jax.jit(lambda v, x: (plain(apply, v, x), ntk(apply, v, x, reduce="full")))
    expected, kernel = pair(variables, x)
    np.testing.assert_allclose(kernel, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (9, 2, 1, 2)])  # the cheaper side is: gradients; positions
@pytest.mark.parametrize("full", [False, True])
def test_both_sides_of_a_contraction_and_its_pieces_agree(shape, full, monkeypatch):
  """Positions against gradients, whole and in pieces, through the cost model's own choice."""
  features, width, groups, positions = shape
  n, outputs = 5, 2
  draws = np.random.default_rng(0)
  a = draws.normal(size=(n, positions, groups, features)).astype(np.float32)
  d = draws.normal(size=(n, outputs, positions, groups, width)).astype(np.float32)
  gradients = np.einsum("ntgp,nktgc->nkgpc", a, d).reshape(n, outputs, -1)
  gradients = np.concatenate([gradients, d.sum(axis=2).reshape(n, outputs, -1)], axis=-1)
  expected = np.einsum("ikp,jlp->ijkl" if full else "ikp,jkp->ij", gradients, gradients)

  def both(a, d):
    factor, other = (Linear((a,), (d,), (None,), bias=True) for _ in range(2))
    return factor.contract(factor, full), factor.contract(other, full)

  for work in (2**28, 64):
    monkeypatch.setattr("nurture.ntk.contraction.WORK", work)
    for result in jax.jit(lambda a, d: both(a, d))(a, d):
      np.testing.assert_allclose(result, expected, rtol=2e-5, atol=2e-5)
