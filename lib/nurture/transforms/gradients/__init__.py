"""Gradient transforms, which change the gradient before the optimizer sees it.

Every row of GRADIENTS returns an optax.GradientTransformationExtraArgs. Its update receives, beside the gradients,
the state and the parameters: `key` (of this step and this transform alone), `step` ([] int32, updates already
made) and `value` (the loss). Leaves keep shape and dtype. Optimizers are a table of their own.
"""

from nurture.transforms.gradients.annealed_noise import annealed_noise
from nurture.transforms.gradients.from_optax import (
  adaptive_grad_clip,
  add_decayed_weights,
  centralize,
  clip,
  clip_by_block_rms,
  clip_by_global_norm,
  normalize_by_update_norm,
  scale,
)

GRADIENTS = {
  "adaptive_grad_clip": adaptive_grad_clip,
  "add_decayed_weights": add_decayed_weights,
  "annealed_noise": annealed_noise,
  "centralize": centralize,
  "clip": clip,
  "clip_by_block_rms": clip_by_block_rms,
  "clip_by_global_norm": clip_by_global_norm,
  "normalize_by_update_norm": normalize_by_update_norm,
  "scale": scale,
}
