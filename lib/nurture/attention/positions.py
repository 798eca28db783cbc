"""Positions of tokens: tables to add, rotations of queries and keys, slopes of a linear penalty."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nurture.core import UserError


def sinusoidal(length: int, width: int, *, base: float = 10_000.0) -> np.ndarray:
  """Returns the sine and cosine table [length, width] float64 of the original transformer.

      table[t, 2i] = sin(t / base^(2i / width)),    table[t, 2i + 1] = cos(t / base^(2i / width))

  Raises:
    UserError: if width is odd.

  Reference: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
  """
  if width % 2:
    raise UserError(f"sinusoidal positions need an even width, not {width}; choose another width or other positions.")
  angles = np.arange(length)[:, None] / base ** (np.arange(0, width, 2) / width)[None]
  return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, width)


def sincos2d(height: int, width: int, features: int, *, base: float = 10_000.0) -> np.ndarray:
  """Returns the table [height * width, features] float64 of a grid in row-major order, four quarters of features:

      sin(x w_i), cos(x w_i), sin(y w_i), cos(y w_i),    w_i = base^(-i / (features / 4 - 1))

  x counts the columns and y the rows, from 0.

  Raises:
    UserError: if features is not divisible by 4.

  Differs from MAE's table: there i is divided by features / 4, so the lowest frequency is a little above 1 / base.

  Reference: Beyer et al. 2022, arXiv:2205.01580.
  """
  if features % 4:
    raise UserError(
      f"sincos2d positions need a width divisible by 4, not {features}; choose another width or other positions."
    )
  frequencies = base ** -(np.arange(features // 4) / max(features // 4 - 1, 1))
  y, x = np.mgrid[:height, :width].reshape(2, -1, 1) * frequencies[None, None]
  return np.concatenate([np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=1)


def rope(x: Float[Array, "B T N H"], *, offset: int = 0, base: float = 10_000.0) -> Float[Array, "B T N H"]:
  """Rotates queries or keys [B, T, N, H], so that a score depends on the distance of its two tokens alone.

      (x_i, x_{i + H/2}) -> rotation by the angle t / base^(2i / H),    t = offset, offset + 1, ...

  Raises:
    UserError: if H is odd.

  Differs from the paper: feature i is paired with i + H/2, as in GPT-NeoX and Llama, not with its neighbour; the
  two differ by a fixed permutation of the features of queries and keys.

  Reference: Su et al. 2021, arXiv:2104.09864, eq. 34.
  """
  length, features = x.shape[1], x.shape[3]
  if features % 2:
    raise UserError(f"rotary positions need an even number of features per head, not {features}; choose width / heads "
                    "even or other positions.")
  angles = (offset + np.arange(length))[:, None] / base ** (np.arange(0, features, 2) / features)[None]
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  cos, sin = (jnp.asarray(f(angles), dtype)[None, :, None] for f in (np.cos, np.sin))
  a, b = jnp.split(x.astype(dtype), 2, axis=-1)
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(x.dtype)


def alibi_slopes(heads: int) -> np.ndarray:
  """Returns the slopes [heads] float32 of the penalty -slope |t - s| on the logits of query t and key s.

  2^(-8/N), 2^(-16/N), ..., 2^(-8) for N heads, a power of two; otherwise those of the power of two below, then every
  other one of the power of two above.

  Reference: Press et al. 2022, arXiv:2108.12409, section 3, and the authors' code for other numbers of heads.
  """
  geometric = lambda n: [2.0 ** (-8 * (i + 1) / n) for i in range(n)]
  below = 2 ** math.floor(math.log2(heads))
  slopes = geometric(below) + geometric(2 * below)[::2][: heads - below]
  return np.asarray(slopes, np.float32)
