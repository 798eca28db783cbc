"""What the implementations that keep no weights have in common: their backward pass, and vmap."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from lib.attention.call import ARRAYS, Call


class Kernel(Protocol):
  """An implementation of sigmoid attention. Frozen and hashable: programs are compiled for it."""

  def refusal(self, call: Call) -> str:
    """Returns why it cannot serve a call, as the end of a sentence; "" if it can."""

  def forward(self, call: Call) -> jax.Array:
    """Returns the output [B, T, N, Hv] in the dtype of the query."""

  def backward(self, call: Call, cotangent: jax.Array) -> Call:
    """Returns the gradients by the arrays of the call in their places; None for integers, booleans and None."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(kernel: Kernel, call: Call) -> jax.Array:
  """Returns sigmoid(logits) V [B, T, N, Hv] by a kernel.

  Differentiable once, in reverse; nothing but the arguments is kept for that. Under vmap the mapped axis becomes part
  of the batch, so that an ensemble is one call of the kernel.
  """
  return _batched(kernel.forward)(call)


def _attend_fwd(kernel: Kernel, call: Call) -> tuple[jax.Array, Call]:
  return attend(kernel, call), call


def _attend_bwd(kernel: Kernel, call: Call, cotangent: jax.Array) -> tuple[Call]:
  return (_batched(kernel.backward)(call, cotangent),)


attend.defvjp(_attend_fwd, _attend_bwd)


def _batched(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a function of a call (and more) whose vmap makes the mapped axis part of the batch."""
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def rule(size, in_batched, call, *rest):
    batch = call.query.shape[1 if in_batched[0].query else 0]

    def merged(x, is_batched):
      x = x if is_batched else x[None]  # then an axis of 1 that the batch shares
      return jnp.broadcast_to(x, (size, batch, *x.shape[2:])).reshape(size * batch, *x.shape[2:])

    def parted(x, like=None, is_batched=True):
      x = x.reshape(size, batch, *x.shape[1:])
      shared = like is not None and like.shape[1 if is_batched else 0] == 1
      return x.sum(axis=1, keepdims=True) if shared else x

    out = _batched(function)(*jax.tree.map(merged, (call, *rest), tuple(in_batched)))
    if isinstance(out, Call):  # gradients, in the places of what they are the gradients of
      fields = {name: (getattr(out, name), getattr(call, name), getattr(in_batched[0], name)) for name in ARRAYS}
      out = dataclasses.replace(out, **{name: parted(*leaf) for name, leaf in fields.items() if leaf[0] is not None})
    else:
      out = parted(out)
    return out, jax.tree.map(lambda _: True, out)

  return mapped
