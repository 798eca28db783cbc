"""The noise scale of the loss gradient."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from nurture.core import Network, UserError, trees
from nurture.core.hints import Count, Whole
from nurture.curvature.noise_scale import batch_gradients, noise_and_signal
from nurture.probes.sample import SampleProbe, in_float32
from nurture.probes.spec import ProbeSpec

Tree = Any


@dataclasses.dataclass(frozen=True)
class NoiseScale(SampleProbe):
  """The two parts of B_simple = tr(Sigma) / |G|^2 of the experiment's loss, the model in evaluation mode:

      noise    S = tr Sigma, of the gradient of one example
      signal   |G|^2, of the expected gradient; an unbiased estimate, negative where noise hides it

  from batches of two sizes: `batch` examples each, in the order of the split, and all of them together. Average noise
  and signal over steps or members, each by itself, and give the averages to
  `nurture.curvature.noise_scale.simple_noise_scale`; the ratio of one measurement is not given, as its mean is no
  estimate. Both are squares in float32: of gradients longer than 1e19 they are infinite or NaN, of shorter ones than
  1e-19 0.

  Attributes:
    split: "train", "validation" or "test".
    limit: takes the first examples only; 0 takes all. What is left over by the small batches does not count.
    batch: examples of a small batch; 1 gives the least variance and the most work.

  Raises:
    UserError: (in prepare) for examples for less than two small batches.

  Reference: McCandlish et al. 2018, arXiv:1812.06162.
  """

  split: str = "train"
  limit: Whole = 1000
  batch: Count = 10

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Tree]:
    """Returns one piece: the sample as [m, batch, ...]."""
    [sample] = super().prepare(spec, key)
    n = len(sample["weight"])
    count = n // self.batch
    if count < 2:
      raise UserError(f"the probe 'noise_scale' has {n} examples, less than two batches of {self.batch}; raise its "
                      "limit or lower its batch.")
    cut = lambda values: values[: count * self.batch].reshape(count, self.batch, *values.shape[1:])
    return [jax.tree.map(cut, sample)]

  def __call__(self, net: Network, variables: Tree, piece: Tree) -> dict[str, Any]:
    """Returns the sums over the small batches: {"gradient", "squares", "count"}."""
    variables = in_float32(variables)
    loss = lambda params, batch: net.loss({**variables, "params": params}, batch)
    gradient, squares = batch_gradients(lambda batch: jax.grad(loss)(variables["params"], batch), piece)
    return {"gradient": gradient, "squares": squares, "count": jnp.float32(piece["weight"].shape[0])}

  def finish(self, sums: dict[str, Any]) -> dict[str, jax.Array]:
    """Returns {"noise", "signal"}."""
    count = sums["count"]
    mean = jax.tree.map(lambda leaf: leaf / count, sums["gradient"])
    parts = noise_and_signal(
      sums["squares"] / count, jnp.square(trees.norm(mean)), self.batch, count * self.batch
    )
    return parts._asdict()
