"""Recurrent networks: stacks of Elman, LSTM or GRU layers over a sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from nurture.core import Outputs, Preset, UserError, build
from nurture.core.hints import Count, Share, Whole
from nurture.models.checks import check_ranges
from nurture.models.initializers import INITIALIZERS, Initializer
from nurture.models.taps import Taps

State = tuple[jax.Array, ...]  # the hidden state first, [B, width] each


def _tanh(x: jax.Array, u: jax.Array, state: State) -> tuple[State, dict[str, jax.Array]]:
  """h' = tanh(x + u)."""
  a = x + u
  h = jnp.tanh(a)
  return (h,), {"pre_activation": a, "tanh": h}


def _lstm(x: jax.Array, u: jax.Array, state: State) -> tuple[State, dict[str, jax.Array]]:
  """c' = sigmoid(f) c + sigmoid(i) tanh(g), h' = sigmoid(o) tanh(c'), where (i, f, g, o) = x + u."""
  i, f, g, o = jnp.split(x + u, 4, axis=-1)
  c = jax.nn.sigmoid(f) * state[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
  h = jax.nn.sigmoid(o) * jnp.tanh(c)
  return (h, c), {"cell": c, "hidden": h}


def _gru(x: jax.Array, u: jax.Array, state: State) -> tuple[State, dict[str, jax.Array]]:
  """h' = (1 - z) tanh(x_n + r u_n) + z h, where r and z are the sigmoids of the first two parts of x + u."""
  (x_r, x_z, x_n), (u_r, u_z, u_n) = jnp.split(x, 3, axis=-1), jnp.split(u, 3, axis=-1)
  z = jax.nn.sigmoid(x_z + u_z)
  h = (1 - z) * jnp.tanh(x_n + jax.nn.sigmoid(x_r + u_r) * u_n) + z * state[0]
  return (h,), {"hidden": h}


class Cell(NamedTuple):
  """`step(x, u, state) -> (state, taps)`, where x = W x_t + b and u = U h_{t-1} + b' are [B, parts * width] each."""

  parts: int
  states: int
  step: Callable[[jax.Array, jax.Array, State], tuple[State, dict[str, jax.Array]]]


CELLS = {"gru": Cell(3, 1, _gru), "lstm": Cell(4, 2, _lstm), "tanh": Cell(1, 1, _tanh)}


class Recurrent(nn.Module):
  """One recurrent layer from a zero state, causal in time.

  Attributes:
    cell: a row of CELLS.
    width: of the state.
    vocabulary: of one-hot tokens.
    kernel_init, recurrent_init, bias_init: flax initializers; each part of a kernel is drawn by itself.
    dtype: of the computation.
  """

  cell: str
  width: int
  vocabulary: int
  kernel_init: Any
  recurrent_init: Any
  bias_init: Any
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Maps [B, T, C], or tokens [B, T] for one-hot vectors, to (hidden states [B, T, width], taps [B, T, width])."""
    cell, tokens = CELLS[self.cell], jnp.issubdtype(x.dtype, jnp.integer)

    def weight(name, init, *rows):
      draw = lambda key: jnp.concatenate(
        [init(k, (*rows, self.width), jnp.float32) for k in jax.random.split(key, cell.parts)], axis=-1
      )
      return self.param(name, draw).astype(self.dtype)

    kernel = weight("kernel", self.kernel_init, self.vocabulary if tokens else x.shape[-1])
    recurrent_kernel = weight("recurrent_kernel", self.recurrent_init, self.width)
    bias = weight("bias", self.bias_init)
    recurrent_bias = weight("recurrent_bias", self.bias_init)

    # Does not depend on the state, so it is one matrix product for all steps.
    projected = (jnp.take(kernel, x, axis=0) if tokens else x @ kernel) + bias[None, None]

    def step(state, x):
      return cell.step(x, state[0] @ recurrent_kernel + recurrent_bias[None], state)

    state = (jnp.zeros((x.shape[0], self.width), self.dtype),) * cell.states
    _, arrays = jax.lax.scan(step, state, projected.swapaxes(0, 1))
    taps = Taps()
    for kind, array in arrays.items():  # the last one is the hidden state
      y = taps(kind, array.swapaxes(0, 1))
    return y, taps.arrays


class RNN(nn.Module):
  """`depth` recurrent layers of `width` units and a linear head at every position, or on one vector a sequence.

      tanh   h_t = tanh(W x_t + b + U h_{t-1} + b')                                  Elman 1990
      lstm   (i, f, g, o) = W x_t + b + U h_{t-1} + b',  c_t = s(f) c_{t-1} + s(i) tanh(g),  h_t = s(o) tanh(c_t)
                                                    Hochreiter & Schmidhuber 1997; Gers et al. 2000 (s: sigmoid)
      gru    h_t = (1 - z) n + z h_{t-1},  (r, z) = s(...),  n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + b'_n))
                                                    Cho et al. 2014, arXiv:1406.1078

  Parameters are those of PyTorch, with both of its biases and its order of the gates (i, f, g, o; r, z, n), in
  "layer_00": "kernel" W [C, g width], "recurrent_kernel" U [width, g width], "bias" b and "recurrent_bias" b'
  [g width], where g is 1, 4 or 3. A layer with C inputs has g width (C + width + 2) of them, the head (width + 1) K.

  Taps, all [B, T, width]: "layer0.pre_activation" and "layer0.tanh", or "layer0.cell" and "layer0.hidden" of the LSTM,
  or "layer0.hidden" of the GRU; "embed" and "global_avg_pool" where there are such; not the logits.

  Differs from the code of Subramaniam et al. 2024 (arXiv:2410.20035), whose every layer starts from the last state of
  the layer below and so sees the future: here each starts from zero, and no output depends on a later input.

  Attributes:
    num_classes: K.
    cell: of every layer.
    depth: layers.
    width: units of every layer.
    vocabulary: number of tokens; 0 takes num_classes.
    embedding: size of a learned embedding of the tokens, drawn from N(0, 1); 0 gives the first layer one-hot vectors.
    pool: "none" gives logits at every position, "last" at the last position only, "mean" of the mean over positions.
    dropout: rate between layers, not after the last; stream "dropout".
    kernel_init, recurrent_init, bias_init: rows of INITIALIZERS for W and the head, U, and all biases, by name or with
      their numbers. PyTorch draws all from U(-a, a) with a = 1 / sqrt(width); "orthogonal" for U learns long
      dependencies sooner (Saxe et al. 2014, arXiv:1312.6120). Each gate is drawn by itself.
    dtype: of the computation; parameters and logits are float32.
  """

  num_classes: Count
  cell: Literal["tanh", "lstm", "gru"] = "tanh"
  depth: Count = 1
  width: Count = 128
  vocabulary: Whole = 0
  embedding: Whole = 0
  pool: Literal["none", "last", "mean"] = "none"
  dropout: Share = 0.0
  kernel_init: str | Mapping[str, Any] = "torch_default"
  recurrent_init: str | Mapping[str, Any] = "torch_default"
  bias_init: str | Mapping[str, Any] = "torch_default"
  dtype: Literal["float32", "bfloat16"] = "float32"

  @nn.compact
  def __call__(self, x: jax.Array, train: bool = False) -> Outputs:
    """Maps a batch of sequences to `Outputs` with logits [B, T, K], or [B, K] with a pool.

    Args:
      x: tokens [B, T] of an integer type, one outside the vocabulary gives NaN; vectors [B, T, C]; or images
        [B, H, W, C], read row by row: H steps of W C numbers.
      train: whether dropout acts.

    Raises:
      UserError: for inputs that are no sequences, and for fields that do not fit them.
    """
    tokens = jnp.issubdtype(x.dtype, jnp.integer)
    self._check(x.shape, tokens)
    taps, dtype, vocabulary = Taps(), jnp.dtype(self.dtype), self.vocabulary or self.num_classes
    if self.embedding:
      normal = nn.initializers.normal(1.0)
      x = taps("embed", nn.Embed(vocabulary, self.embedding, dtype=dtype, embedding_init=normal, name="embed")(x))
    elif not tokens:
      x = x.reshape(*x.shape[:2], -1).astype(dtype)
    init: dict[str, Any] = {field: self._initializer(field) for field in ("kernel_init", "recurrent_init", "bias_init")}
    for i in range(self.depth):
      if i:
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
      x, arrays = Recurrent(self.cell, self.width, vocabulary, **init, dtype=dtype, name=f"layer_{i:02d}")(x)
      taps.extend(f"layer{i}", arrays)
    if self.pool == "last":
      x = x[:, -1]
    elif self.pool == "mean":
      x = taps("global_avg_pool", x.mean(axis=1))
    head = {field: init[field] for field in ("kernel_init", "bias_init")}
    return taps.outputs(nn.Dense(self.num_classes, dtype=dtype, name="head", **head)(x))

  def _initializer(self, field: str) -> Initializer:
    # PyTorch's bound has the width for W too, whatever enters it.
    return build(INITIALIZERS, getattr(self, field), path=f"config.model.{field}", fan_in=self.width)

  def _check(self, shape: tuple[int, ...], tokens: bool) -> None:
    check_ranges(self)
    for field in ("vocabulary", "embedding"):
      if getattr(self, field) and not tokens:
        raise UserError(f"config.model.{field} is {getattr(self, field)}, but the inputs are not tokens; "
                        "leave it at 0.")
    if len(shape) not in ((2,) if tokens else (3, 4)) or 0 in shape[1:]:
      raise UserError(f"config.model is a recurrent network and needs tokens [T], vectors [T, C] or images [H, W, C], "
                      f"not {'integers' if tokens else 'numbers'} {shape[1:]}; choose another model or data set.")


RNNS = {
  "gru": Preset(RNN, cell="gru"),
  "lstm": Preset(RNN, cell="lstm"),
  "rnn": Preset(RNN, cell="tanh"),
}
