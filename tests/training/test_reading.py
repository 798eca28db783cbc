"""A config read for training: which examples stand where, what is read once, and who may ask for outputs that
were computed before."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import Outputs, UserError, trees
from nurture.data import Reader, catalogue, gather
from nurture.probes import PROBES
from nurture.training import step as steps
from nurture.training.experiment import Experiment, hyper_parameters
from nurture.training.probing import check_probe
from nurture.training.programs import Programs, members_at_once, steps_per_dispatch
from nurture.training.sweep import can_vary
from tests.tiny import read, tiny_config

MLP = {"name": "mlp", "depth": 1, "width": 4, "activation": "relu"}
HELD_OUT = {"data__validation": 20, "data__subset": 50, "batch_size": 8, "evaluation__batch_size": 16}


@pytest.fixture(scope="module")
def held_out():
  """A config with a validation split and a guide whose logits are kept."""
  reference = {"guide": {"model": MLP, "seed": 3, "cache": "logits"}, "other": {"model": MLP, "seed": 4}}
  return Programs(read(tiny_config(references=reference, **HELD_OUT)), 1)


def test_no_validation_example_is_trained_on(held_out):
  train, validation = held_out.experiment.read().train, held_out.experiment.read().validation
  assert len(train) == 50 and len(validation) == 20
  assert not set(train.id.tolist()) & set(validation.id.tolist())
  np.testing.assert_array_equal(held_out.fields["id"], train.id)
  np.testing.assert_array_equal(held_out.fields["label"], train.label)
  np.testing.assert_array_equal(held_out.fields["image"], train.inputs["image"])
  experiment = held_out.experiment
  assert experiment.num_train == 50 and experiment.spec.num_examples == experiment.read().num_examples > 70
  rows = np.asarray(held_out.rows({"seed": jnp.zeros(1, jnp.uint32), "values": {}}, 0, length=60)).ravel()
  assert set(rows.tolist()) == set(range(50))  # every example of the split, and no other


def test_references_are_filled_from_the_training_split_in_its_order(held_out):
  batches = list(held_out.experiment.inputs_in_order())
  assert [len(ids) for ids, _ in batches] == [16, 16, 16, 2] == [len(x) for _, x in batches]
  np.testing.assert_array_equal(np.concatenate([ids for ids, _ in batches]), held_out.experiment.read().train.id)
  expected = held_out.experiment.read().train.inputs["image"].astype(np.float32) / 255
  np.testing.assert_allclose(np.concatenate([x for _, x in batches]), expected, rtol=1e-6)
  kept, guide = held_out.arrays["guide"], held_out.experiment.references["guide"]
  logits = guide.module.apply(held_out.arrays["guide"].variables, jnp.asarray(expected)).logits
  rows = np.asarray(kept.row)[held_out.experiment.read().train.id]
  np.testing.assert_array_equal(rows, np.arange(50))
  np.testing.assert_allclose(kept.logits, logits, atol=1e-5)
  assert held_out.arrays["other"].row is None
  assert jax.tree.map(np.shape, held_out.arrays) == jax.tree.map(np.shape, dict(held_out.experiment.arrays))


@pytest.mark.parametrize("split", ["test", "validation", "train"])
def test_what_is_kept_of_the_training_examples_is_not_asked_in_evaluation(held_out, split):
  """An id of a test example is also one of some training example."""
  examples = held_out.experiment.read().split(split).take(np.arange(5))
  batch = {name: jnp.asarray(field) for name, field in examples.fields.items()} | {"weight": jnp.ones(5)}
  parts, hp = held_out.experiment.parts(), hyper_parameters(0)
  state, root = held_out.experiment.init(hp), jax.random.key(0)
  guide, loaded = parts.references["guide"], held_out.arrays
  network = guide.module.apply(loaded["guide"].variables, parts.preprocess.inputs(batch)).logits
  evaluated = steps.evaluation_context(parts, state, batch, root, loaded).references["guide"]
  np.testing.assert_allclose(evaluated.logits, network, atol=1e-6)
  assert evaluated.taps  # the network's own; of the kept logits there are none
  ready = {**batch, "image": parts.preprocess.inputs(batch)}
  trained = steps.make_context(parts, state, ready, root, loaded, train=True).references["guide"]
  assert not trained.taps
  kept = np.asarray(loaded["guide"].logits)[np.asarray(loaded["guide"].row)[examples.id]]
  np.testing.assert_array_equal(trained.logits, kept)
  same = np.allclose(kept, network, atol=1e-5)
  assert same if split == "train" else not same


def test_a_batch_may_be_as_large_as_the_training_split_and_no_larger():
  changes = HELD_OUT | {"probes": {}}
  assert read(tiny_config(**changes | {"batch_size": 50})).spec.batch_size == 50
  with pytest.raises(UserError, match="batch_size is 51, but the training split of digits has 50 examples"):
    read(tiny_config(**changes | {"batch_size": 51}))


def test_facts_of_the_data_reach_the_experiment(held_out):
  spec = held_out.experiment.spec
  assert (spec.num_classes, spec.batch_size, spec.task.name) == (10, 8, "classification")
  assert spec.inputs == {"image": held_out.experiment.read().train.inputs["image"].shape[1:]}
  assert spec.task == held_out.experiment.read().task and spec.task.outputs == tuple("0123456789")
  assert held_out.experiment.config["data"]["validation"] == 20


def test_of_equal_sections_one_data_set_is_read_and_the_last_two_are_kept(monkeypatch):
  made = []
  load = lambda config, data_dir, given: made.append((config["x"], data_dir)) or types.SimpleNamespace(
    checksums={f"file {config['x']}": "sha"}, described={"name": str(config["x"])},
  )
  monkeypatch.setattr(catalogue, "load", load)
  reader = Reader("here")
  one, two = reader({"x": 1}), reader({"x": 2})
  assert reader({"x": 1}) is one and reader({"x": 2}) is two and made == [(1, "here"), (2, "here")]
  reader({"x": 3})
  assert reader({"x": 2}) is two and len(made) == 3
  assert reader({"x": 1}) is not one and len(made) == 4  # the oldest has gone
  assert reader({"x": (1, 2)}) is reader({"x": [1, 2]})  # a list is a tuple, as everywhere in configs
  assert list(reader.checksums) == ["file 1", "file 2", "file 3", "file (1, 2)"]
  assert [one["name"] for one in reader.described] == ["1", "2", "3", "(1, 2)"]


def test_data_are_read_once_for_configs_that_differ_elsewhere(monkeypatch):
  load, count = catalogue.load, []
  monkeypatch.setattr(catalogue, "load", lambda *args: (count.append(1), load(*args))[1])
  reader = Reader("data")
  a, b = (Experiment.of(tiny_config(probes={}, optimizer__learning_rate=rate), reader) for rate in (0.1, 0.2))
  assert a.read() is b.read() and len(count) == 1
  windowed = {"blur": {"name": "noise_input", "stop_step": 4}}
  assert Experiment.of(tiny_config(probes={}, data__augment=windowed), reader).read().train.id.shape == (64,)


def test_checksums_name_every_reference_that_is_frozen():
  references = {"guide": {"model": MLP, "seed": 3}, "average": {"model": {}, "parameters": "average"}}
  experiment = read(tiny_config(references=references, probes={}))
  assert experiment.checksums == {"config.references.guide": trees.digest(experiment.arrays["guide"].variables)}


def test_values_that_vary_and_values_that_are_checked():
  experiment = read(tiny_config(probes={}))
  points = [{"optimizer.learning_rate": 0.1, "model.dropout": 0.0, "batch_size": 8},
            {"optimizer.learning_rate": 0.2, "model.dropout": 0.5, "batch_size": 16}]
  assert can_vary(experiment, points) == ("optimizer.learning_rate",)
  assert can_vary(experiment, [{"losses.ce.weight": 1.0, "gradients.noise.eta": 0.1}]) == (
    "losses.ce.weight", "gradients.noise.eta",
  )
  with pytest.raises(UserError, match="alpha is 2.0"):
    can_vary(experiment, [{"targets.smoothing.alpha": 0.5}, {"targets.smoothing.alpha": 2.0}])


def test_what_is_chosen_for_a_device_follows_the_config(held_out):
  experiment = held_out.experiment
  assert steps_per_dispatch(experiment) == experiment.config["steps_per_dispatch"] == 3
  assert members_at_once(experiment, 2) == 2 and held_out.mode == "vmap" and len(experiment.jaxprs()) == 1
  assert "dot_general" in str(experiment.jaxprs())


class Pieces:
  """A probe that keeps what it was given."""

  def __init__(self, split="test", limit=0):
    self.split, self.limit = split, limit

  def prepare(self, spec, key):
    self.key = key
    return spec.batches(self.split, self.limit)

  def __call__(self, network, variables, piece):
    return {}

  def finish(self, sums):
    return sums


def test_probes_get_their_split_in_batches_padded_with_weight_zero(monkeypatch):
  monkeypatch.setitem(PROBES, "pieces", Pieces)
  probes = {
    "a": {"name": "pieces", "split": "test", "every": 6}, "b": {"name": "pieces", "split": "test", "every": 0},
    "few": {"name": "pieces", "split": "train", "limit": 5, "every": 2},
    "many": {"name": "pieces", "split": "train", "limit": 1000, "every": 2},
  }
  programs = Programs(read(tiny_config(probes=probes)), 1)
  attached = programs.probes
  assert programs.probes is attached
  assert {label: probe.every for label, probe in attached.items()} == {"a": 6, "b": 0, "few": 2, "many": 2}
  assert attached["a"].pieces is attached["b"].pieces  # one copy on the device
  weights = [np.asarray(piece["weight"]).sum() for piece in attached["a"].pieces]
  assert weights == [16, 16, 8] and all(len(piece["id"]) == 16 for piece in attached["a"].pieces)
  assert [len(piece["id"]) for piece in attached["few"].pieces] == [5]  # a batch of no more than there are
  np.testing.assert_array_equal(attached["few"].pieces[0]["id"], programs.experiment.read().train.id[:5])
  assert sum(float(piece["weight"].sum()) for piece in attached["many"].pieces) == 64


@pytest.mark.parametrize(("every", "shown"), [(-1, "-1"), (2.0, "2.0"), (True, "True"), ("6", "'6'"), (None, "None")])
def test_a_probe_needs_a_whole_number_of_steps(every, shown, held_out):
  fields = {"name": "accuracy", "split": "test", "every": every}
  with pytest.raises(UserError, match=rf"config\.probes\.p\.every is {shown}"):
    check_probe("p", fields, held_out.experiment.read())


def test_other_mistakes_of_a_probe_are_found_before_training(held_out):
  check = lambda **fields: check_probe("p", {"every": 0} | fields, held_out.experiment.read())
  check(name="accuracy", split="validation", limit=0)
  check(name="weight_statistics")
  with pytest.raises(UserError, match=r"config\.probes\.p\.limit is -1"):
    check(name="accuracy", split="test", limit=-1)
  with pytest.raises(UserError, match="the split 'tset' of digits does not exist"):
    check(name="accuracy", split="tset")
  with pytest.raises(UserError, match=r"config\.probes\.p\.split"):
    check(name="weight_statistics", split="test")
  with pytest.raises(UserError, match=r"config\.probes\.p\.name is 'acuracy'"):
    check(name="acuracy")


def test_probes_see_the_parameters_that_evaluation_names():
  """The raw ones, or an average of them; of other collections there is no average."""
  hp = hyper_parameters(0)
  for name in ("", "average"):
    experiment = read(tiny_config(probes={}, evaluation__parameters=name))
    state, fields = experiment.init(hp), Programs(experiment, 1).fields
    batch = gather(fields, jnp.arange(8))
    take = jax.jit(lambda state, fields=fields, experiment=experiment: experiment.step(
      state, hp, jnp.arange(8), fields, {})[0])
    state = take(take(state))
    network, variables = experiment.network(state, hp, {})
    expected = state.parameter_states["average"]["average"] if name else state.variables["params"]
    jax.tree.map(np.testing.assert_array_equal, variables["params"], expected)
    outputs = network.apply(variables, network.inputs(batch))
    assert isinstance(outputs, Outputs) and outputs.logits.shape == (8, 10)
    total = sum(network.terms(variables, batch).values())
    assert network.loss(variables, batch) == total
  assert trees.digest(expected) != trees.digest(state.variables["params"])
  jax.tree.map(np.testing.assert_array_equal, network.initial(), experiment.init(hp).variables)
