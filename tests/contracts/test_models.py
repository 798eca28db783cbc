"""Contracts of models."""

import dataclasses
import random

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from nurture import models
from nurture.core import Context, Outputs
from nurture.models.native import native
from nurture.testing import check_model, class_spec
from nurture.testing.laws import pure, shapes
from nurture.testing.models import images, train, variables_of
from tests.contracts.rows import PUBLISHED, configs, label, made, tasks_of

B, K, T = 4, 10, 6
CONFIGS = [config for config in configs("models") if config["name"] not in PUBLISHED]
SEQUENCES = ("decoder", "gru", "lstm", "rnn")
SCANNED = ("mlp", "cnn", "vanillanet", "vit")  # of which steps are looped as well, which takes longest


def example(config):
  """A batch of inputs: images, tokens for the models of sequences, or both."""
  if config["name"] in SEQUENCES:
    return jax.random.randint(jax.random.key(5), (B, T), 0, K)
  return {"image": images(), "tokens": example({"name": "gru"})} if config["name"] == "two_towers" else images()


@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_models(config):
  check_model(config, example(config), steps=2 if config["name"] in SCANNED else 0)


@pytest.mark.parametrize("name", PUBLISHED)
def test_shapes_at_published_size(name):
  shape, num_classes = native(name)
  x = jax.ShapeDtypeStruct((B, *shape), jnp.float32)
  module = models.build(name, num_classes=num_classes, dtype="bfloat16")
  outputs, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
  assert outputs.logits.shape == (B, num_classes)
  assert all(tap.shape[0] == B and tap.dtype == jnp.bfloat16 for tap in outputs.taps.values())


def test_evaluation_is_pure():
  config = {"name": "mlp", "depth": 1, "width": 4, "norm": "batch", "dropout": 0.5}
  module, x = made("models", config), example(config)
  variables = variables_of(module, jax.random.key(0), x)
  pure(lambda variables, x: module.apply(variables, x), variables, x)


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
    if self.mistake == "neighbours":
      y = y - y.mean(axis=0, keepdims=True)
    if self.mistake == "draws":
      y = y + jax.random.normal(self.make_rng("dropout"), y.shape)
    if self.mistake == "python's randomness":
      y = y * random.random()
    if self.mistake == "changes in evaluation":
      seen = self.variable("seen", "count", lambda: jnp.zeros(1))
      seen.value = seen.value + 1
    if self.mistake == "one network":
      y = y * 0 + nn.Dense(K, kernel_init=nn.initializers.ones)(x).astype(y.dtype)
    if self.mistake == "activation of another":
      taps["002_relu"] = jax.nn.relu(y)
    if self.mistake == "no taps":
      taps = {}
    if self.mistake == "another width":
      y = y[:, :7]
    if self.mistake == "64 bits":
      seen = self.variable("seen", "count", lambda: jnp.zeros(1))
    if self.mistake == "bare logits":
      return y
    return Outputs(y if self.mistake == "logits in the dtype" else y.astype(jnp.float32), taps)


@pytest.mark.parametrize("mistake, words", {
  "parameters in the dtype": "bfloat16: init makes bfloat16 variables; give parameters param_dtype",
  "logits in the dtype": "bfloat16: the logits are bfloat16; cast them to float32",
  "taps out of order": r"the names of taps are not sorted in call order \(\['9_dense', '10_twice'\]\); number them",
  "tap without batch": r"the tap 002_mean has the shape \[10\]; keep the axis of the 4 examples first",
  "taps in training only": r"train=True returns other .* \(taps/001_twice is float32\[4, 10\] instead of nothing\)",
  "statistics grow": r"a step changes the form of its state \(seen/count is float32\[2\] instead of float32\[1\]\)",
  "no taps": "there is no tap, so that guidance and probes see nothing",
  "another width": r"the logits have the shape \[4, 7\]; return \[4, 10\]",
  "bare logits": "the call returns .*; return nurture.models.Taps",
  "draws": "the model draws random numbers in evaluation; do so only if the argument train",
  "changes in evaluation": "the model changes variables in evaluation; do so only if",
  "python's randomness": "evaluation: tracing it again gives another program; draw random numbers from the key",
  "not finite": "evaluation: an output is not finite",
  "neighbours": "evaluation: the outputs of an example depend on the others in the batch",
  "activation of another": "evaluation: the tap 002_relu is not the activation of the tap before it, 001_twice",
  "constant": "training: all gradients are 0",
  "one network": "training: two keys make the same network",
  "64 bits": "64-bit numbers switched on: init makes float64 variables",
}.items())
def test_a_wrong_model_is_caught(mistake, words):
  with pytest.raises(AssertionError, match=words) as error:
    check_model(Twin(mistake), steps=0)
  assert str(error.value).startswith("Twin, ") and "\n" not in str(error.value)


def test_a_right_model_passes():
  check_model(Twin("none"))


class Bare(nn.Module):
  """Knows nothing of training."""

  @nn.compact
  def __call__(self, x):
    return nn.Dense(K)(x)


def test_a_model_without_the_argument_train_is_caught():
  with pytest.raises(AssertionError, match="Bare, float32: the call takes no argument train; add train=False"):
    check_model(Bare)


def test_a_captured_model_passes():
  class Theirs(nn.Module):
    @nn.compact
    def __call__(self, x):
      return nn.Dense(K)(nn.relu(nn.Dense(3)(x.reshape(len(x), -1))))

  check_model(models.capture(Theirs()), steps=0)
