"""The empirical neural tangent kernel of a fixed sample: its spectrum, and how it fits the labels."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nurture.core import Batch, Network
from nurture.core.hints import Count, Whole
from nurture.core.task import ONE_CLASS
from nurture.ntk import metrics
from nurture.ntk.empirical import ntk
from nurture.probes.sample import SampleProbe, in_float32
from nurture.probes.spec import ProbeSpec

Tree = Any
Reduction = Literal["trace", "pseudo"]
Method = Literal["auto", "factored", "jacobian", "ntvp"]


class KernelProbe(SampleProbe):
  """A probe of neural tangent kernels. A kernel is no sum over examples, so they make one piece.

  Attributes:
    reduce, method, block: of `nurture.ntk.empirical.ntk`; block 0 leaves it to the method.
  """

  reduce: Reduction
  method: Method
  block: int

  tasks = ONE_CLASS

  def kernel(self, net: Network, variables: Tree, piece: Batch) -> jax.Array:
    """Returns the kernel [n, n] of the piece, of parameters in float32 at least."""
    return ntk(net.apply, in_float32(variables), net.inputs(piece), reduce=self.reduce, method=self.method,
               block=self.block or None)


@dataclasses.dataclass(frozen=True)
class TangentKernel(KernelProbe):
  """Measures of the neural tangent kernel K [n, n], the mean over the outputs k of <J_k(x), J_k(x')>:

      trace                 tr K / n
      eigenvalues           the `top` largest, of K / n, descending
      top_mass              their share of the trace
      effective_rank        exp of the entropy of the spectrum
      participation_ratio   (tr K)^2 / |K|_F^2
      alignment             centred alignment with Y Y^T, Y the one-hot labels
      label_energy          share of centred Y in the leading `top` eigenvectors
      true_...              the last two for the labels before label noise

  See `nurture.ntk.metrics`. The memory is n^2 numbers and the Jacobians of one block of rows. The model is in
  evaluation mode, its parameters in float32 at least.

  Attributes:
    split: "train", "validation" or "test".
    limit: n, takes the first examples only; 0 takes all.
    top: leading eigenvectors; 10 spans as many classes.
    reduce, method, block: as in `KernelProbe`.

  Raises:
    UserError: (in prepare) for fewer examples than `top`.
  """

  split: str = "train"
  limit: Whole = 200
  top: Count = 10
  reduce: Reduction = "trace"
  method: Method = "auto"
  block: Whole = 0

  def prepare(self, spec: ProbeSpec, key: jax.Array) -> list[Batch]:
    """Returns one piece, the sample."""
    [sample] = super().prepare(spec, key)
    metrics.check_count(self.top, len(sample["label"]))
    return [sample]

  def __call__(self, net: Network, variables: Tree, piece: Batch) -> dict[str, jax.Array]:
    """Returns the measures of the one piece."""
    k = self.kernel(net, variables, piece)
    n, system = k.shape[0], metrics.eigensystem(k)
    values = system.values
    fits = {}
    for prefix, field in (("", "label"), ("true_", "true_label")):
      y = metrics.centred_targets(jax.nn.one_hot(piece[field], num_classes(net, variables, piece)))
      fits[f"{prefix}alignment"] = metrics.centred_alignment(k, metrics.label_kernel(y))
      fits[f"{prefix}label_energy"] = metrics.label_energy(system, y, self.top)
    return {
      "trace": jnp.trace(k) / n,
      "eigenvalues": values[: self.top] / n,
      "top_mass": metrics.top_mass(values, self.top),
      "effective_rank": metrics.effective_rank(values),
      "participation_ratio": metrics.participation_ratio(values),
      **fits,
    }


def num_classes(net: Network, variables: Tree, piece: Batch) -> int:
  """Returns K, the number of logits, without computing any."""
  return jax.eval_shape(lambda: net.apply(variables, net.inputs(piece))).logits.shape[-1]
