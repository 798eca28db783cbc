"""Generated sequences: closed forms, independent streams, fresh batches as a function of (seed, step), bad input."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import models
from nurture.core import UserError, build, rng, trees
from nurture.data import DATASETS, Dataset, Split, device_fields, gather, load, preprocess
from nurture.data.synthetic import Copy, Multiplication, Parity
from nurture.data.tasks import Classification

N = 1500
_SIZE = dict(num_examples=N, test_examples=N)  # equal, so both splits are one program
TASKS = {
  "parity": Parity(2, 9, **_SIZE),
  "copy": Copy(2, 5, num_symbols=3, **_SIZE),
  "copy_end": Copy(2, 5, num_symbols=3, end=True, **_SIZE),
  "multiplication": Multiplication(1, 5, **_SIZE),
}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def config_of(task, **changes):
  fields = {"name": task.name, **dataclasses.asdict(task)}
  return {
    "source": fields, "seed": 0, "validation": 0, "subset": 0, "test_subset": 0, "label_noise": {},
    "noisy_validation": True, "normalize": "none", "normalize_labels": "none", "augment": {}, **changes,
  }


def integer(bits):
  return sum(int(bit) << i for i, bit in enumerate(bits))


def expected(task, tokens):
  """Returns (length, whole row of tokens, whole row of labels) from what a row says before its answer."""
  width = len(tokens)
  row = lambda values, fill: [*values, *[fill] * (width - len(values))]
  tokens = tokens.tolist()
  if isinstance(task, Parity):
    length = (tokens + [2]).index(2)
    return length, row(tokens[:length], 2), row([-1] * (length - 1) + [sum(tokens[:length]) % 2], -1)
  if isinstance(task, Copy):
    delimiter, blank, end = range(task.num_symbols, task.num_symbols + 3)
    length = tokens.index(delimiter)
    symbols, last = tokens[:length], [end] * task.end
    assert max(symbols) < delimiter
    return length, row([*symbols, delimiter, *[blank] * length, *last], blank), row(
      [-1] * (length + 1) + symbols + last, -1
    )
  length = tokens.index(2)
  numbers = tokens[:length], tokens[length + 1 : 2 * length + 1]
  product = integer(numbers[0]) * integer(numbers[1])
  bits = [product >> i & 1 for i in range(2 * length)]
  return length, row([*numbers[0], 2, *numbers[1]], 3), row([-1] * (2 * length + 1) + bits, -1)


@every_task
def test_every_row_is_the_closed_form_and_lengths_are_uniform(task):
  data = task.load()
  lengths = []
  for tokens, label in zip(data.train.inputs["tokens"], data.train.label):
    length, whole, answer = expected(task, tokens)
    lengths.append(length)
    np.testing.assert_array_equal(tokens, whole)
    np.testing.assert_array_equal(label, answer)
  kinds = task.max_length - task.min_length + 1
  counts = np.bincount(lengths, minlength=task.max_length + 1)
  assert counts[: task.min_length].sum() == 0
  assert np.all(abs(counts[task.min_length :] - N / kinds) < 5 * np.sqrt(N / kinds))


@every_task
def test_drawn_tokens_are_uniform(task):
  symbols = task.num_symbols if isinstance(task, Copy) else 2
  tokens = task.load().train.inputs["tokens"]
  drawn = tokens[tokens < symbols]  # answers are never among the tokens
  counts = np.bincount(drawn)
  assert np.all(abs(counts - len(drawn) / symbols) < 5 * np.sqrt(len(drawn) / symbols))


def test_products_of_more_bits_than_a_machine_word_are_exact():
  data = Multiplication(40, 40, num_examples=20, test_examples=20).load()
  a, b, c = data.train.inputs["tokens"][:, :40], data.train.inputs["tokens"][:, 41:81], data.train.label[:, 81:]
  for row in zip(a, b, c):
    x, y, product = map(integer, row)
    assert x * y == product > 2**64


@every_task
def test_classes_are_the_tokens_and_both_kinds_of_model_take_them(task):
  data = task.load()
  assert data.task.num_outputs == 1 + data.train.inputs["tokens"].max() and data.train.inputs["tokens"].min() == 0
  assert set(data.train.inputs) == {"tokens"} and data.num_examples == N and len(data.validation) == 0
  for split in (data.train, data.test):
    assert split.inputs["tokens"].dtype == split.label.dtype == np.int32
    assert split.label.max() < data.task.num_outputs and np.all((split.label >= 0).any(axis=1))
    np.testing.assert_array_equal(split.label, split.true_label)
  for name, fields in {"rnn": {"width": 4}, "decoder": {"width": 8, "depth": 1, "heads": 2}}.items():
    model = models.build(name, num_classes=data.task.num_outputs, **fields)
    run = lambda tokens, model=model: model.init_with_output(jax.random.key(0), tokens)[0].logits
    logits = jax.eval_shape(run, data.train.inputs["tokens"][:2])
    assert logits.shape == (*data.train.label[:2].shape, data.task.num_outputs)


def test_the_seed_of_the_source_decides_both_splits_and_nothing_else_does():
  task = TASKS["parity"]
  data, again = task.load(), load(config_of(task, seed=5), "")
  other = dataclasses.replace(task, seed=1).load()
  for name in ("train", "test"):
    one, two, three = (d.split(name) for d in (data, again, other))
    np.testing.assert_array_equal(one.inputs["tokens"], two.inputs["tokens"])
    np.testing.assert_array_equal(one.label, two.label)
    assert np.any(one.inputs["tokens"] != three.inputs["tokens"])
  assert np.any(data.train.inputs["tokens"] != data.test.inputs["tokens"])
  assert data.checksums == again.checksums
  assert not {*data.checksums, *data.checksums.values()} & {*other.checksums, *other.checksums.values()}


def test_the_test_split_does_not_depend_on_the_number_of_training_examples():
  small = dataclasses.replace(TASKS["parity"], num_examples=7).load()
  assert len(small.train) == 7
  np.testing.assert_array_equal(small.test.inputs["tokens"], TASKS["parity"].load().test.inputs["tokens"])


def regenerated(task):
  """Returns the data and (seed, step) -> the training batch of a member, as the trainer makes it."""
  data = load(config_of(task, augment={"fresh": {"name": "regenerate"}}), "")
  pre = preprocess({"normalize": "none", "augment": {"fresh": {"name": "regenerate"}}}, data)
  stored = gather(device_fields(data.train), jnp.arange(50))
  batch_at = lambda seed, step: pre.train_batch(rng.stream(jax.random.key(seed), "augment", step), stored)
  return data, batch_at


@every_task
def test_infinite_batches_are_new_and_a_function_of_seed_and_step(task):
  data, batch_at = regenerated(task)
  members = jax.jit(jax.vmap(batch_at))(np.uint32([3, 3, 4, 3]), np.int32([0, 7, 7, 7]))
  one, two, other, again = (trees.member(members, i) for i in range(4))
  assert set(one) == {"tokens", "label", "true_label", "id", "weight"}
  jax.tree.map(np.testing.assert_array_equal, two, again)
  assert np.any(one["tokens"] != two["tokens"]) and np.any(two["tokens"] != other["tokens"])
  assert np.any(one["tokens"] != data.train.inputs["tokens"][:50])
  np.testing.assert_array_equal(one["id"], -1)
  np.testing.assert_array_equal(one["weight"], 1)
  np.testing.assert_array_equal(one["label"], one["true_label"])
  for tokens, label in zip(np.asarray(one["tokens"]), np.asarray(one["label"])):
    _, whole, answer = expected(task, tokens)
    np.testing.assert_array_equal(tokens, whole)
    np.testing.assert_array_equal(label, answer)


def test_training_never_meets_the_test_split():
  task = Copy(20, 20, num_examples=500, test_examples=500, seed=3)
  data, batch_at = regenerated(task)
  batches = [jax.jit(batch_at)(np.uint32(3), np.int32(step)) for step in range(8)]  # data and member share their seed
  resumed = jax.jit(jax.vmap(batch_at))(np.uint32([0, 3]), np.int32([1, 6]))  # another program, beside another member
  jax.tree.map(np.testing.assert_array_equal, trees.member(resumed, 1), batches[6])
  drawn = [data.train.inputs["tokens"], data.test.inputs["tokens"], *(np.asarray(batch["tokens"]) for batch in batches)]
  rows = [bytes(row[:20].astype(np.uint8)) for part in drawn for row in part]
  assert len(set(rows)) == len(rows) == 1000 + 8 * 50


@pytest.mark.parametrize("source, words", [
  ({"min_length": 0}, "data.source.min_length is 0; give a whole number of at least 1"),
  ({"min_length": 10}, "data.source: lengths run from 10 to 9"),
  ({"num_examples": 0}, "data.source.num_examples is 0; give a whole number of at least 1"),
  ({"test_examples": 0}, "data.source.test_examples is 0; give"),
  ({"seed": -1}, "data.source.seed is -1; give a whole number from 0 to 4294967295"),
  ({"max_length": 2.5}, "data.source.max_length is 2.5 .*a whole number"),
  ({"max_length": 2**31}, "data.source.max_length is 2147483648; give a whole number of at least 1, within 32 bits"),
  ({"num_examples": 2**40}, "num_examples is 1099511627776; give a whole number of at least 1, within 32 bits"),
  ({"num_examples": 2**31 - 1}, "data.source: 2147485147 examples of 9 tokens would take about 360 GiB, but"),
  ({"test_examples": 2**31 - 1}, "data.source: 2147485147 examples of 9 tokens would take"),
  ({"max_length": 2**31 - 1}, "data.source: 3000 examples of 2147483647 tokens would take .*give fewer or shorter"),
  ({"bits": 3}, "data.source.bits does not exist for 'parity'"),
])
def test_a_bad_source_is_one_sentence(source, words):
  config = config_of(TASKS["parity"])
  with pytest.raises(UserError, match=words) as error:
    load({**config, "source": config["source"] | source}, "")
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("symbols", [1, 2**20])
def test_one_symbol_cannot_be_copied_and_a_vocabulary_has_an_end(symbols):
  with pytest.raises(UserError, match=f"num_symbols is {symbols}; give a whole number from 2 to 65536"):
    build(DATASETS, {"name": "copy", "min_length": 1, "max_length": 2, "num_symbols": symbols}, path="data.source")


@every_task
def test_the_estimate_of_memory_is_above_what_the_compiler_reports(task):
  from nurture.data.synthetic import _WORDS, _generate  # noqa: PLC0415

  long = dataclasses.replace(task, min_length=20, max_length=20)
  memory = _generate.lower(long, jax.random.key(0), 1000).compile().memory_analysis()
  taken = memory.output_size_in_bytes + memory.temp_size_in_bytes
  assert 12 <= taken / (1000 * long.length) <= 4 * _WORDS


@pytest.mark.parametrize("name, inputs", [("image", np.zeros((4, 8, 8, 1))), ("tokens", np.zeros((4, 5), np.int32))])
def test_data_without_a_generator_are_not_regenerated(name, inputs):
  split = Split.clean({name: inputs}, np.zeros(4))
  data = Dataset.read("files", split, split, Classification(("a", "b")))
  for row, words in (
    ("regenerate", "data.augment.fresh: this data set cannot be generated; remove the augm"),
    ({"name": "regenerate", "generate": "parity"}, "data.augment.fresh.generate is 'parity'.* needs a function"),
  ):
    with pytest.raises(UserError, match=words):
      preprocess({"normalize": "none", "augment": {"fresh": row}}, data)


def test_pixels_are_still_not_cut_out_of_tokens():
  data = TASKS["parity"].load()
  with pytest.raises(UserError, match="data.augment.cut needs images .*but parity has tokens"):
    preprocess({"normalize": "none", "augment": {"cut": {"name": "cutout", "size": 2}}}, data)
