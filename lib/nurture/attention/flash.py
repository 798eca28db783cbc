"""Backward pass and vmap of the implementations that keep no weights."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from nurture.attention.call import ARRAYS, Call, varying
from nurture.core import UserError


class Kernel(Protocol):
  """An implementation of sigmoid attention. Frozen and hashable: programs are compiled for it."""

  def refusal(self, call: Call) -> str:
    """Returns why it cannot serve a call, as the end of a sentence; "" if it can."""

  def forward(self, call: Call) -> jax.Array:
    """Returns the output [B, T, N, Hv] in the dtype of the query."""

  def backward(self, call: Call, cotangent: jax.Array) -> Call:
    """Returns the gradients by the arrays of the call in their places; None for integers, booleans and None."""


def attend(kernel: Kernel, call: Call) -> jax.Array:
  """Returns sigmoid(logits) V [B, T, N, Hv] by a kernel.

  Differentiable once, in reverse; nothing but the arguments is kept for that. Under vmap the mapped axis becomes part
  of the batch, so that an ensemble is one call of the kernel.
  """
  return _attend(kernel, jax.tree.map(lambda x: x if x.dtype == bool else varying(x, call), call))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(kernel: Kernel, call: Call) -> jax.Array:
  return _batched(kernel.forward)(call)


def _attend_fwd(kernel: Kernel, call: Call) -> tuple[jax.Array, Call]:
  return _attend(kernel, call), call


def _attend_bwd(kernel: Kernel, call: Call, cotangent: jax.Array) -> tuple[Call]:
  return (_once(kernel, call, cotangent),)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _once(kernel: Kernel, call: Call, cotangent: jax.Array) -> Call:
  """Returns the gradients; they have no derivatives of their own."""
  return _batched(kernel.backward)(call, cotangent)


@_once.defjvp
def _twice(kernel: Kernel, primals, tangents):
  raise UserError(f"sigmoid attention by {type(kernel).__name__} differentiates once and in reverse only; use "
                  "implementation='xla' for derivatives of derivatives.")


_attend.defvjp(_attend_fwd, _attend_bwd)


def _batched(function: Callable[..., Any]) -> Callable[..., Any]:
  """Returns a function of a call (and more) whose vmap makes the mapped axis part of the batch."""
  mapped = jax.custom_batching.custom_vmap(function)

  @mapped.def_vmap
  def rule(size, in_batched, call, *rest):
    batch = call.query.shape[1 if in_batched[0].query else 0]

    def merged(x, is_batched, shared=False):
      if shared:
        return x
      x = x if is_batched else x[None]  # then an axis of 1 that the batch shares
      return jnp.broadcast_to(x, (size, batch, *x.shape[2:])).reshape(size * batch, *x.shape[2:])

    def parted(x, like=None, is_batched=True):
      x = x.reshape(size, batch, *x.shape[1:])
      shared = like is not None and like.shape[1 if is_batched else 0] == 1
      return x.sum(axis=1, keepdims=True) if shared else x

    # What all members and all examples have in common stays one array, unless each member asks for its gradient.
    shared = dataclasses.replace(call, **{
      name: name in ("bias", "mask") and name not in call.learned * bool(rest)
      and not getattr(in_batched[0], name) and x.shape[0] == 1
      for name in ARRAYS if (x := getattr(call, name)) is not None
    })
    out = _batched(function)(
      jax.tree.map(merged, call, in_batched[0], shared), *jax.tree.map(merged, rest, tuple(in_batched[1:]))
    )
    if isinstance(out, Call):  # gradients, in the places of what they are the gradients of
      alone = {name: getattr(shared, name) for name in ARRAYS if getattr(out, name) is not None}
      parts = {
        name: getattr(out, name) if is_shared
        else parted(getattr(out, name), getattr(call, name), getattr(in_batched[0], name))
        for name, is_shared in alone.items()
      }
      is_batched: dict[str, Any] = {name: not is_shared for name, is_shared in alone.items()}
      return dataclasses.replace(out, **parts), dataclasses.replace(out, **is_batched)
    return parted(out), True

  return mapped
