"""Attention as pure functions of queries, keys and values, named as in `jax.nn.dot_product_attention`."""

from lib.attention.api import SIGMOID, SOFTMAX, sigmoid_attention, softmax_attention
from lib.attention.chunked import Chunked
from lib.attention.positions import alibi_slopes

__all__ = ["SIGMOID", "SOFTMAX", "Chunked", "alibi_slopes", "sigmoid_attention", "softmax_attention"]
