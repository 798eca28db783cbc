"""Attention as pure functions of queries, keys and values, named as in `jax.nn.dot_product_attention`."""

from nurture.attention.api import SIGMOID, SOFTMAX, sigmoid_attention, softmax_attention
from nurture.attention.chunked import Chunked
from nurture.attention.positions import alibi_slopes

__all__ = ["SIGMOID", "SOFTMAX", "Chunked", "alibi_slopes", "sigmoid_attention", "softmax_attention"]
