"""Infinitely wide networks through neural-tangents (Novak et al. 2020, arXiv:1912.02803), repaired for today's JAX.

`neural_tangents()` is the whole package, loaded when first asked for; `nurture.ntk.infinite.repair` says what is mended
and what of JAX that relies on. Around it stand the parts that studies need: Myrtle kernels, kernel matrices in bounded
memory, Monte Carlo, and gradient flow in function space (`predict`). No other package imports neural-tangents.

Known not to work, or not as its name says:

* `neural_tangents.experimental`: left out, it loads tensorflow.
* Structured derivatives (implementation 3, which AUTO tries too) of operations whose linearization has several outputs,
  such as loops: NotImplementedError, as it was before. Implementations 1 and 2 take them.
* AUTO prints the cost of every implementation on stdout.
* `neural_tangents.batch` spreads over devices with jax.pmap, which works (seen on two CPU devices); the batch size must
  divide the number of inputs, and both triangles of a symmetric kernel are computed. `kernel_matrix` needs neither.
* Arrays of different ranks are promoted inside: call the package within `jax.numpy_rank_promotion("allow")` if that is
  an error elsewhere.
"""

from nurture.ntk.infinite.gradient_flow import Prediction, predict
from nurture.ntk.infinite.kernels import KINDS, Layers, kernel_matrix, myrtle, myrtle_kernel
from nurture.ntk.infinite.repair import neural_tangents

__all__ = [
  "KINDS", "Layers", "Prediction", "kernel_matrix", "myrtle", "myrtle_kernel",
  "neural_tangents", "predict",
]
