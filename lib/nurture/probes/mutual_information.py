"""Mutual information of an example and a difference of two logits."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from nurture.core import Network, UserError, linalg
from nurture.core.hints import NonNegative, Range, Whole
from nurture.core.task import ONE_CLASS
from nurture.data import AUGMENTATIONS
from nurture.probes.sample import whole_sample
from nurture.probes.spec import ProbeSpec, SplitProbe

Tree = Any


def mutual_information(y: jax.Array) -> jax.Array:
  """Estimates I(X; Y) of the index X of an example and a number Y that depends on it and on chance, in nats.

  y_xl is draw l of Y for example x, [N, L]. Each example gets a Gaussian, all of one variance:

      mu_x = 1/L sum_l y_xl,    sigma^2 = 1/(NL) sum_xl (y_xl - mu_x)^2
      I = 1/(NL) sum_xl [ -(y_xl - mu_x)^2 / (2 sigma^2) - log 1/N sum_x' exp(-(y_xl - mu_x')^2 / (2 sigma^2)) ]

  It does not change under y -> a y + b. It is at most log N, its value where all examples are told apart; about log 2
  where they form two tight clusters, and a little more, since a mean over few draws follows them; and 0 for a constant.
  Where the variances of the examples differ it is an approximation and can be below 0.

  Reference: Müller et al. 2019, arXiv:1906.02629, section 4.
  """
  y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
  y = y - y[:1, :1]
  y = y / linalg.size_of(y)  # whose squares neither over- nor underflow
  mean = jnp.mean(y, axis=1)
  variance = jnp.maximum(jnp.mean(jnp.square(y - mean[:, None])), jnp.finfo(y.dtype).tiny)
  exponent = lambda column, centres: -jnp.square((column[:, None] - centres) / jnp.sqrt(2 * variance))

  def of_draw(column: jax.Array) -> jax.Array:  # [N]; one draw at a time, as its table is [N, N]
    own = exponent(column, mean[:, None])[:, 0]
    return jnp.mean(own - jax.nn.logsumexp(exponent(column, mean[None]), axis=1))

  return jnp.mean(jax.lax.map(of_draw, y.T)) + math.log(y.shape[0])


@dataclasses.dataclass(frozen=True)
class MutualInformation(SplitProbe):
  """The mutual information of the example and the difference of two classes' logits, over examples of the two classes.

  See `mutual_information` for the estimate. What is random given the example is the augmentation, in the paper and here
  a shift of the image by up to `shift` pixels along each axis, zeros moving in; for inputs that are no images, Gaussian
  noise. The draws are the same for every member and at every step. It is a sum over pairs of examples, so all of
  them make one piece.

  Attributes:
    split: "train", "validation" or "test".
    classes: the two.
    limit: N, at most: the first examples of the two classes; 0 takes all.
    samples: L, draws of the augmentation for each example.
    shift: pixels of the image as stored; 0 for no shifts.
    noise: standard deviation of Gaussian noise on the normalized input; 0 for none.

  Raises:
    UserError: (in prepare) for a class without examples, and for shifts of what is no image.
  """

  split: str = "train"
  classes: tuple[Whole, Whole] = (0, 1)
  limit: Whole = 600
  samples: Annotated[int, Range(least=2)] = 8
  shift: Whole = 2
  noise: NonNegative = 0.0

  tasks = ONE_CLASS

  def __post_init__(self):
    if len(self.classes) != 2 or self.classes[0] == self.classes[1]:
      raise ValueError(f"classes is {self.classes}; give two different ones")
    if not self.shift and not self.noise:
      raise ValueError("shift and noise are 0, which leaves nothing to chance and log N for any network; give one")

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Tree]:
    """Returns one piece: {"batch": the examples, "keys": one a draw}."""
    rows = whole_sample(spec, self.split, 0)
    if self.shift and len(spec.data.inputs.get("image", ())) != 3:
      raise UserError(f"the probe {self.name!r} shifts images; set its shift to 0 and its noise above 0 for other "
                      "inputs, or remove it.")
    label = np.asarray(rows["label"])
    index = np.flatnonzero(np.isin(label, self.classes))[: self.limit or None]
    for c in self.classes:
      if not np.any(label[index] == c):
        raise UserError(f"the probe {self.name!r} finds no example of class {c} among the first {self.limit} of "
                        f"its classes {self.classes} in the split {self.split!r}; choose other classes.")
    return [{"batch": {name: values[index] for name, values in rows.items()},
             "keys": jax.random.split(key, self.samples)}]

  def __call__(self, net: Network, variables: Tree, piece: Tree) -> dict[str, jax.Array]:
    """Returns {"information", "log_n"} of the one piece."""
    def draw(key: jax.Array) -> jax.Array:
      batch = piece["batch"]
      if self.shift:
        batch = AUGMENTATIONS["pad_crop"](pad=self.shift)(key, batch)
      inputs = net.inputs(batch)
      if self.noise:
        inputs = inputs + self.noise * jax.random.normal(jax.random.fold_in(key, 1), inputs.shape, inputs.dtype)
      logits = net.apply(variables, inputs).logits.astype(jnp.float32)
      return logits[:, self.classes[0]] - logits[:, self.classes[1]]

    y = jax.lax.map(draw, piece["keys"])  # [L, N]
    return {"information": mutual_information(y.T), "log_n": jnp.log(jnp.float32(y.shape[1]))}

  def finish(self, sums: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns {"information", "log_n"}: the estimate and its largest value, in nats."""
    return sums
