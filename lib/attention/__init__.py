"""Attention as pure functions of queries, keys and values, named as in `jax.nn.dot_product_attention`."""

from lib.attention.positions import alibi_slopes
from lib.attention.reference import sigmoid_attention, softmax_attention

__all__ = ["alibi_slopes", "sigmoid_attention", "softmax_attention"]
