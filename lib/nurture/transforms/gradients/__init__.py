"""Gradient transforms, which change the gradient before the optimizer sees it.

Every row of GRADIENTS returns a transformation of optax. Its update receives, beside the gradients, the state and the
parameters, what it takes of these, and all of them if it takes any:

    key         of this step and this transform alone
    step        [] int32, updates already made
    value       [] float32, the loss
    grad        the gradient, before any link
    value_fn    params -> the loss of the same batch at other parameters
    grad_fn     params -> its gradient there

The last two cost a forward pass, or a gradient, at every call; augmentation, dropout, references and the states of
loss terms are those of the step. Leaves keep shape and dtype. Optimizers, a table of their own, receive the same but
the key.
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
from nurture.transforms.gradients.other_points import extragradient, sam

GRADIENTS = {
  "adaptive_grad_clip": adaptive_grad_clip,
  "add_decayed_weights": add_decayed_weights,
  "annealed_noise": annealed_noise,
  "centralize": centralize,
  "clip": clip,
  "clip_by_block_rms": clip_by_block_rms,
  "clip_by_global_norm": clip_by_global_norm,
  "extragradient": extragradient,
  "normalize_by_update_norm": normalize_by_update_norm,
  "sam": sam,
  "scale": scale,
}
