"""Curvature of the loss: Hessian and Gauss-Newton products, their spectra, and the noise scale of gradients."""

from nurture.curvature.hvp import gauss_newton, hessian, hvp
from nurture.curvature.lanczos import Lanczos, lanczos, ritz
from nurture.curvature.noise_scale import batch_gradients, noise_and_signal, simple_noise_scale
from nurture.curvature.spectrum import (
  Eigenvalues,
  density,
  eigenvalues_of,
  quadrature,
  stability_threshold,
  top_eigenvalues,
  trace,
)

__all__ = [
  "Eigenvalues", "Lanczos", "batch_gradients", "density", "eigenvalues_of", "gauss_newton", "hessian",
  "hvp", "lanczos", "noise_and_signal", "quadrature", "ritz", "simple_noise_scale",
  "stability_threshold", "top_eigenvalues", "trace",
]
