"""Blocks of queries and keys: exact, of any sizes, and in linear memory."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.attention import Chunked, sigmoid_attention
from nurture.core import UserError
from tests.attention.cases import CASES, arguments, reference, value_and_gradients


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield


def assert_same(actual, expected, **tolerance):
  (out, gradients), (expected_out, expected_gradients) = actual, expected
  np.testing.assert_allclose(out, expected_out, **tolerance)
  assert gradients.keys() == expected_gradients.keys()
  for name, gradient in gradients.items():
    np.testing.assert_allclose(gradient, expected_gradients[name], err_msg=name, **tolerance)


# What other cases contain, "everything" and what is longer than it is wide.
CONTAINED = {"one token", "full", "more keys, one key head", "causal", "causal, more keys", "window", "slopes"}


@pytest.mark.parametrize("name", [
  pytest.param(name, marks=pytest.mark.long if name in CONTAINED else ()) for name in CASES
])
def test_results_and_gradients(name):
  arrays, fields = arguments(name)
  actual = value_and_gradients(arrays, fields, implementation=Chunked(block_q=4, block_k=7))
  assert_same(actual, reference(arrays, fields), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("shape", [
  (2, 1, 1, 11), (1, 4, 17, 1),  # each axis once of its full size and once of 1
  *(pytest.param(shape, marks=pytest.mark.long) for shape in [(2, 4, 17, 11), (1, 1, 17, 11), (1, 1, 1, 1)]),
])
def test_arrays_of_biases_and_masks(shape):
  arrays, fields = arguments("odd lengths, shared heads")
  draws = np.random.default_rng(3)
  arrays["bias"], fields["mask"] = draws.normal(size=shape), draws.random(shape) < 0.6
  if shape == (1, 4, 17, 1):
    arrays["bias"][0, :, 3] = -np.inf
  actual = value_and_gradients(arrays, fields, implementation=Chunked(block_q=4, block_k=7))
  assert_same(actual, reference(arrays, fields), rtol=1e-11, atol=1e-13)


def test_rows_that_see_nothing_are_exactly_0():
  arrays, fields = arguments("lengths")
  out, gradients = value_and_gradients(arrays, fields, implementation=Chunked(4, 4))
  assert not np.any(out[1, 3:]) and not np.any(out[2]) and np.all(out[0] != 0)
  assert not np.any(gradients["query"][2]) and not np.any(gradients["key"][1, 1:])


def test_row_sums():
  arrays, fields = arguments("everything")
  sums = lambda kernel: sigmoid_attention(**arrays, **fields, return_row_sum=True, implementation=kernel)[1]
  np.testing.assert_allclose(jax.jit(lambda: sums("xla"))(), jax.jit(lambda: sums(Chunked(5, 5)))(), rtol=1e-12)


@pytest.mark.parametrize("mapped", [
  ("query", "key", "value", "bias", "alibi_slopes"), ("value", "bias"),
  *(pytest.param(names, marks=pytest.mark.long) for names in [("query",), ("bias",)]),
])
def test_members_under_vmap(mapped):
  """A member of an ensemble gets what it gets alone, also for what all members share."""
  arrays, fields = arguments("everything")
  arrays = {name: np.stack([x, 0.7 * x, -x]) if name in mapped else x for name, x in arrays.items()}
  axes = {name: 0 if name in mapped else None for name in arrays}
  take = lambda m: {name: x[m] if name in mapped else x for name, x in arrays.items()}
  function = lambda arrays: value_and_gradients(arrays, fields, implementation=Chunked(8, 8))
  together = jax.device_get(jax.jit(jax.vmap(function, in_axes=(axes,)))(arrays))
  member_alone = jax.jit(lambda arrays: value_and_gradients(arrays, fields, implementation="xla"))
  for m in range(3):
    member = jax.tree.map(lambda x, m=m: x[m], together)
    assert_same(member, member_alone(take(m)), rtol=1e-11, atol=1e-13)


def test_low_precision_is_rounded_at_the_end_only():
  arrays, fields = arguments("causal, more keys")
  low = {name: jnp.asarray(x, jnp.bfloat16 if name in ("query", "key", "value") else jnp.float32)
         for name, x in arrays.items()}
  out, gradients = value_and_gradients(low, fields, implementation=Chunked(4, 4))
  exact, exact_gradients = reference(low, fields)
  assert out.dtype == jnp.bfloat16
  np.testing.assert_allclose(out.astype(np.float64), exact, rtol=2**-8, atol=1e-6)
  for name, gradient in gradients.items():
    assert gradient.dtype == low[name].dtype
    np.testing.assert_allclose(gradient.astype(np.float64), exact_gradients[name], rtol=2**-8, atol=1e-5, err_msg=name)


MEMORY = """
import resource, jax, jax.numpy as jnp
from nurture.attention import sigmoid_attention
resource.setrlimit(resource.RLIMIT_AS, (24 * 2**30, 24 * 2**30))
query = jax.random.normal(jax.random.key(0), (1, 32_768, 1, 64))
window = dict(is_causal=True, local_window_size=4095)  # an eighth of the work, and the same memory
loss = lambda q: jnp.sum(sigmoid_attention(q, query, query, **window, implementation="xla_chunked") ** 2)
assert jnp.isfinite(jax.jit(jax.value_and_grad(loss))(query)[0])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.long
def test_32768_tokens_need_less_than_2_gib():
  done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
  assert int(done.stdout) < 2 * 2**30


def test_programs_for_32768_tokens_need_less_than_2_gib():
  """By XLA's own account, without running them."""
  query = jax.ShapeDtypeStruct((1, 32_768, 1, 64), jnp.float32)

  def needed(implementation):
    loss = lambda q: jnp.sum(sigmoid_attention(q, q, q, implementation=implementation) ** 2)
    return jax.jit(jax.value_and_grad(loss)).lower(query).compile().memory_analysis().temp_size_in_bytes

  assert needed("xla") > 4 * 2**30  # one [T, S] array of float32
  assert needed("xla_chunked") < 2 * 2**30


def test_it_is_the_default_where_the_weights_are_large():
  shapes = [jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32) for length in (64, 16_384)]
  small, large = (str(jax.make_jaxpr(lambda q: sigmoid_attention(q, q, q))(s)) for s in shapes)
  assert "while" not in small and "while" in large


def test_an_unknown_implementation():
  arrays, fields = arguments("full")
  with pytest.raises(UserError, match="did you mean 'xla_chunked'"):
    sigmoid_attention(**arrays, implementation="chunked")


def test_an_array_that_all_members_share_is_not_copied_for_each():
  """The bias [1, N, T, T] of 8 members of 4 examples is one array forward, and backward if it is a constant."""
  query = jnp.zeros((8, 4, 64, 2, 8), jnp.float32)
  shared = np.zeros((1, 2, 64, 64), np.float32)

  def total(query, bias):
    attention = lambda q: sigmoid_attention(q, q, q, bias, shared[:, :1] > 0, implementation=Chunked(8, 8))
    return jnp.sum(jax.vmap(attention)(query))

  copies = 8 * 4 * shared.nbytes
  for function in (total, jax.grad(lambda query, _: total(query, shared))):
    compiled = jax.jit(function).lower(query, shared).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < copies


@pytest.mark.parametrize("batch, heads, block", [(1, 2, 512), (8, 12, 256), (256, 12, 64), (4096, 64, 64)])
def test_blocks_shrink_as_the_batch_grows(batch, heads, block):
  x = jax.ShapeDtypeStruct((batch, 2048, heads, 8), jnp.float32)
  text = str(jax.make_jaxpr(lambda x: sigmoid_attention(x, x, x, implementation="xla_chunked"))(x))
  assert f"f32[{batch},{heads},1,{block},{block}]" in text


def test_devices_share_the_work():
  mesh = jax.make_mesh((2,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
  arrays, fields = arguments("causal, more keys")
  arrays = {name: jnp.asarray(x) for name, x in arrays.items()}
  fields |= {"bias": arrays.pop("bias")}

  def gradients(implementation, arrays):
    total = lambda arrays: jnp.sum(sigmoid_attention(**arrays, **fields, implementation=implementation) ** 2)
    return jax.grad(total)(arrays)

  spec = jax.sharding.PartitionSpec("x")
  sharded = jax.shard_map(lambda arrays: gradients(Chunked(4, 4), arrays), mesh=mesh, in_specs=spec, out_specs=spec)
  expected = jax.jit(lambda arrays: gradients("xla", arrays))(arrays)
  for name, actual in jax.jit(sharded)(arrays).items():
    np.testing.assert_allclose(actual, expected[name], rtol=1e-10, atol=1e-12)


def test_a_second_derivative_is_refused_by_name():
  arrays, fields = arguments("full")
  total = lambda q: jnp.sum(sigmoid_attention(q, *list(arrays.values())[1:], implementation=Chunked(4, 4)))
  with pytest.raises(UserError, match="once and in reverse only; use implementation='xla'"):
    jax.grad(lambda q: jnp.sum(jax.grad(total)(q)))(jnp.asarray(arrays["query"]))


@pytest.mark.parametrize("sizes", [(0, 4), (-3, 4), (4, 2.5), ("4", 4)])
def test_a_block_has_a_size(sizes):
  with pytest.raises(UserError, match="give a whole number of at least 1, or None"):
    Chunked(*sizes)
