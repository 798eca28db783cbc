"""Contracts of models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from nurture import models
from nurture.core import Context, Outputs
from nurture.core.taps import kind
from nurture.models.native import native
from nurture.testing import class_spec
from tests.contracts.laws import assert_close, assert_finite, assert_pure, assert_scans, shapes
from tests.contracts.rows import PUBLISHED, configs, label, made, tasks_of

B, K, T = 4, 10, 6
CONFIGS = [config for config in configs("models") if config["name"] not in PUBLISHED]
SEQUENCES = ("decoder", "gru", "lstm", "rnn")
WIDE = ("logits", "embedding")  # taps that are float32 in any dtype


def example(config):
  """A batch of inputs: images, tokens for the models of sequences, or both."""
  if config["name"] in SEQUENCES:
    return jax.random.randint(jax.random.key(5), (B, T), 0, K)
  image = jax.random.normal(jax.random.key(5), (B, 8, 8, 1))
  return {"image": image, "tokens": example({"name": "gru"})} if config["name"] == "two_towers" else image


def variables_of(module, key, x):
  return module.init({"params": key, "dropout": key}, x)


def drawn(module, x):
  """Returns variables of which none stands at a value that hides it, such as a shift of 0; compiles nothing."""
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key in ("scale", "var"):
      return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)
    if path[-1].key == "lam":
      return jnp.ones(leaf.shape, leaf.dtype)  # the slope of a network that is only evaluated
    return jnp.asarray(rng.normal(size=leaf.shape) * np.prod(leaf.shape[:-1] or 9) ** -0.5, leaf.dtype)

  shapes = jax.eval_shape(lambda: variables_of(module, jax.random.key(0), x))
  return jax.tree_util.tree_map_with_path(draw, shapes)


def train(module, variables, x, key=None):
  key = jax.random.key(1) if key is None else key
  collections = [name for name in variables if name != "params"]
  return module.apply(variables, x, train=True, rngs={"dropout": key}, mutable=collections)


def check_shapes(module, x):
  """Outputs in both modes, with taps [B, ...] in call order, float32 logits and parameters in any dtype."""
  for dtype in ("float32", "bfloat16"):
    module = module.clone(dtype=dtype)
    variables = jax.eval_shape(lambda module=module: variables_of(module, jax.random.key(0), x))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    order = []

    def forward(variables, module=module, order=order):
      outputs = module.apply(variables, x)
      order[:] = outputs.taps
      return outputs

    outputs = jax.eval_shape(forward, variables)
    assert isinstance(outputs, Outputs)
    positions = (T,) if outputs.logits.ndim == 3 else ()
    width = B if isinstance(x, dict) else K  # two views are compared with those of the other examples
    assert (outputs.logits.shape, outputs.logits.dtype) == ((B, *positions, width), jnp.float32)
    assert order and order == sorted(order) == list(outputs.taps)
    assert all(tap.shape[0] == B for tap in outputs.taps.values())
    assert all(tap.dtype == dtype for name, tap in outputs.taps.items() if kind(name) not in WIDE)
    trained, changed = jax.eval_shape(lambda variables, module=module: train(module, variables, x), variables)
    assert shapes(trained) == shapes(outputs)
    assert shapes(changed) == shapes({name: variables[name] for name in variables if name != "params"})


def loss_of(module, variables, x):
  def loss(params):
    outputs, changed = train(module, {**variables, "params": params}, x)
    return -jax.nn.log_softmax(outputs.logits)[:, 0].mean(), changed

  return jax.value_and_grad(loss, has_aux=True)(variables["params"])


def check_members(module, x):
  """A member does not depend on its neighbours; values and gradients are finite and not all zero."""

  def member(key):
    variables = variables_of(module, key, x)
    (value, _), gradient = loss_of(module, variables, x)
    return value, gradient

  keys = jax.random.split(jax.random.key(0), 2)
  members = jax.jit(jax.vmap(member))
  together, swapped = members(keys), members(keys[::-1])  # one compilation
  assert_finite(together)
  assert_close(jax.tree.map(lambda leaf: leaf[::-1], together), swapped)
  assert any(np.any(leaf) for leaf in jax.tree.leaves(together[1]))
  assert not np.allclose(together[0][0], together[0][1])


def check_training_scans(module, x):
  """Steps keep the structure of the variables, in bfloat16 too, and a scan of them is a loop of them."""
  variables = drawn(module, x)

  def step(variables, t):
    del t
    (_, changed), gradient = loss_of(module, variables, x)
    params = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradient)
    return {**changed, "params": params}

  assert_scans(step, variables, steps=2, tolerance=1e-3)


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_shapes(config):
  check_shapes(made("models", config), example(config))


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_members(config):
  check_members(made("models", config), example(config))


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_at_published_size(name):
  shape, num_classes = native(name)
  x = jax.ShapeDtypeStruct((B, *shape), jnp.float32)
  module = models.build(name, num_classes=num_classes, dtype="bfloat16")
  outputs, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
  assert outputs.logits.shape == (B, num_classes)
  assert all(tap.shape[0] == B and tap.dtype == jnp.bfloat16 for tap in outputs.taps.values())


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_what_goes_into_an_activation_is_the_tap_before(config):
  module, x = made("models", config), example(config)
  taps = jax.jit(lambda variables: module.apply(variables, x).taps)(drawn(module, x))
  functions = {**models.ACTIVATIONS, "annealed_relu": lambda x: x}  # the slope is 1
  names = sorted(taps)
  for before, name in zip(names, names[1:]):
    if kind(name) in functions:
      assert_close(functions[kind(name)](taps[before]), taps[name], tolerance=1e-6)


@pytest.mark.parametrize("config", [c for c in CONFIGS if c["name"] in ("mlp", "cnn", "vanillanet", "vit")], ids=label)
def test_training_scans(config):
  check_training_scans(made("models", {**config, "dtype": "bfloat16"}), example(config))


def test_evaluation_is_pure():
  config = {"name": "mlp", "depth": 1, "width": 4, "norm": "batch", "dropout": 0.5}
  module, x = made("models", config), example(config)
  variables = variables_of(module, jax.random.key(0), x)
  assert_pure(lambda variables, x: module.apply(variables, x), variables, x)


# Every model with a loss of its logits and with one of all its taps; every loss with a model of each kind of labels.
GUIDANCE = {"name": "guidance", "reference": "input", "taps": "all", "layer_map": ((0, 0),)}
OF_LOGITS = [{"name": "pair", "model": {"name": "mlp", "depth": 1, "width": 4}}, {"name": "rnn", "width": 4}]


@pytest.mark.parametrize("config, loss", [
  *((config, loss) for config in CONFIGS for loss in ({"name": "cross_entropy"}, GUIDANCE)),
  *(
    (config, loss) for config in OF_LOGITS for loss in configs("losses") if loss["name"] != "guidance"
    and ("per_position" if config["name"] in SEQUENCES else "classification") in tasks_of("losses", loss)
  ),
], ids=label)
def test_every_model_and_every_loss(config, loss):
  module, term, x = made("models", config), made("losses", loss), example(config)
  spec = class_spec(num_examples=B, num_classes=K, input_shape=(), batch_size=B)

  def gradient(key):
    variables, state = variables_of(module, key, x), term.init(spec)

    def total(params):
      outputs, _ = train(module, {**variables, "params": params}, x)
      targets = jnp.full(outputs.logits.shape, 1 / K)
      fields = x if isinstance(x, dict) else {"tokens" if config["name"] in SEQUENCES else "image": x}
      batch = {**fields, "label": jnp.zeros(B, jnp.int32), "id": jnp.arange(B), "weight": jnp.ones(B)}
      references = {"teacher": jax.lax.stop_gradient(outputs)}
      context = Context(jnp.int32(0), jax.random.key(0), batch, targets, None, references, jnp.float32(0))
      value, _ = term.apply(state, dataclasses.replace(context, outputs=outputs))
      return value.mean()

    return variables["params"], jax.grad(total)(variables["params"])

  params, slope = jax.eval_shape(gradient, jax.random.key(0))
  assert shapes(params) == shapes(slope)


class Twin(nn.Module):
  """A linear model with one mistake of choice."""

  mistake: str
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x, train=False):
    x = x.reshape(x.shape[0], -1).astype(self.dtype)
    kernel_dtype = self.dtype if self.mistake == "parameters in the dtype" else jnp.float32
    y = nn.Dense(K, dtype=self.dtype, param_dtype=kernel_dtype)(x)
    taps = {"000_dense": y, "001_twice": 2 * y}
    if self.mistake == "taps out of order":
      taps = {"9_dense": y, "10_twice": 2 * y}
    elif self.mistake == "tap without batch":
      taps["002_mean"] = y.mean(axis=0)
    elif self.mistake == "taps in training only":
      taps = taps if train else {"000_dense": y}
    if self.mistake == "statistics grow":
      size = 2 if train else 1
      seen = self.variable("seen", "count", lambda: jnp.zeros(1))
      if train:
        seen.value = jnp.zeros(size)
    if self.mistake == "not finite":
      y = jnp.log(jnp.zeros_like(y)) * y
    if self.mistake == "constant":
      y = jax.lax.stop_gradient(y)
    return Outputs(y if self.mistake == "logits in the dtype" else y.astype(jnp.float32), taps)


@pytest.mark.parametrize("mistake", [
  "parameters in the dtype", "logits in the dtype", "taps out of order", "tap without batch", "taps in training only",
  "statistics grow",
])
def test_wrong_shapes_are_caught(mistake):
  x = example({"name": "mlp"})
  check_shapes(Twin("none"), x)
  with pytest.raises(AssertionError):
    check_shapes(Twin(mistake), x)


@pytest.mark.parametrize("mistake", ["not finite", "constant"])
def test_wrong_values_are_caught(mistake):
  with pytest.raises(AssertionError):
    check_members(Twin(mistake), example({"name": "mlp"}))


def test_a_growing_state_is_caught():
  with pytest.raises(AssertionError):
    check_training_scans(Twin("statistics grow"), example({"name": "mlp"}))
