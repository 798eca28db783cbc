"""An experiment: what is built of a config, what may vary in one program, and what a probe is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.data import gather
from nurture.training import step as steps
from nurture.training import sweep
from nurture.training.config import get
from nurture.training.experiment import hyper_parameters
from nurture.training.programs import Programs
from tests.tiny import read, tiny_config

MLP = {"name": "mlp", "depth": 1, "width": 4, "activation": "relu"}
CE = {"name": "cross_entropy", "weight": 1.0}


@pytest.fixture(scope="module")
def ready():
  config = tiny_config(probes={}, references={"guide": {"model": MLP}}, losses={"ce": CE, "mse": {
    "name": "mse", "weight": {"name": "step_ramp", "steps": 4}, "stop_step": 6,
  }})
  return read(config)


def test_the_parts_are_those_of_the_config_with_values_put_in(ready):
  parts = ready.parts({"losses.ce.weight": 3.0, "model.width": 5})
  assert parts.losses["ce"].weight(0) == 3 and parts.model.width == 5 and parts.model.num_classes == 10
  assert parts.losses["mse"].weight(jnp.int32(2)) == 0.5
  assert (parts.steps, parts.spec) == (12, ready.spec)
  assert list(parts.gradients) == ["clip", "noise"] and list(parts.targets) == ["smoothing"]
  assert list(parts.parameters) == ["average"] and list(parts.references) == ["guide"]
  assert [list(ready.parts(phase=phase).losses) for phase in (0, 6)] == [["ce", "mse"], ["ce"]]
  assert ready.phases == (0, 6) and len(ready.jaxprs()) == 2


@pytest.mark.parametrize(("changes", "words"), [
  ({"losses": {"ce": {"name": "cross_entropy"}}}, r"config\.losses\.ce\.weight is missing; give the term's weight"),
  ({"losses__ce__weight": True}, r"config\.losses\.ce\.weight is True"),
  ({"model__name": "mpl"}, r"config\.model\.name is 'mpl'"),
  ({"targets__smoothing__name": "smothing"}, r"config\.targets\.smoothing\.name is 'smothing'"),
  ({"gradients__clip__name": "clp"}, r"config\.gradients\.clip\.name is 'clp'"),
  ({"parameters__average__name": "emma"}, r"config\.parameters\.average\.name is 'emma'"),
  ({"optimizer__name": "sdg"}, r"config\.optimizer\.name is 'sdg'"),
  ({"scheduled": {"slope": {"name": "ramp"}}}, r"config\.scheduled\.slope\.name is 'ramp'"),
  ({"scheduled": {"slope": 1.0}}, r"config\.scheduled\.slope is no argument of the model 'mlp'"),
  *(({"references": {"a": {"model": {}, "parameters": "average"} | field}}, r"config\.references\.a runs the trained")
    for field in ({"model": MLP}, {"run": "runs/x"}, {"cache": "pre"}, {"batch_norm": "calibrated"})),
  ({"references": {"a": {"model": {}, "parameters": "mean"}}}, r"config\.references\.a\.parameters is 'mean'"),
  ({"references": {"input": {"model": MLP}}}, r"config\.references\.input cannot be called 'input'"),
  ({"references": {"a": {"model": MLP, "view": "unmixed"}}}, r"config\.references\.a\.view is 'unmixed', but"),
  ({"references": {"a": {"model": MLP, "cache": "pre", "batch_norm": "batch"}}}, r"a\.cache knows no batches"),
])
def test_a_mistake_in_a_part_is_named_by_its_path(changes, words):
  with pytest.raises(UserError, match=words):
    read(tiny_config(probes={}, **changes))


def test_hyper_parameters_are_arrays_of_one_member():
  hp = hyper_parameters(2**32 - 1, {"a.b": 1})
  assert hp["seed"].dtype == jnp.uint32 and int(hp["seed"]) == 2**32 - 1
  assert hp["values"]["a.b"].dtype == jnp.float32 and hp["values"]["a.b"] == 1
  assert hyper_parameters(0)["values"] == {}


def test_values_that_stop_the_trace_do_not_hide_those_that_vary(ready):
  can_vary = lambda *paths: sweep.can_vary(ready, [{path: get(ready.config, path) for path in paths}])
  assert can_vary("optimizer.learning_rate", "losses.ce.weight") == ("optimizer.learning_rate", "losses.ce.weight")
  assert can_vary("model.depth", "optimizer.learning_rate") == ("optimizer.learning_rate",)
  assert can_vary("losses.mse.weight.steps", "batch_size", "losses.mse.stop_step") == ("losses.mse.weight.steps",)
  assert can_vary("data.seed", "batch_size") == ()


def test_what_no_result_needs_is_not_in_the_program():
  conv = {"name": "cnn", "layers": (("conv", 2, 3), ("dense", 4))}
  unread = read(tiny_config(probes={}, references={"guide": {"model": conv}}))
  assert not unread.has_convolution
  used = read(tiny_config(probes={}, references={"guide": {"model": conv}}, losses={
    "ce": CE, "kd": {"name": "distillation", "teachers": ("guide",), "weight": 1.0, "teacher_temperature": 2.0,
                     "student_temperature": 1.0, "scale": "none"},
  }))
  assert used.has_convolution


def test_a_probe_is_given_the_member_as_it_stands(ready):
  hp = hyper_parameters(3)
  state, arrays = ready.init(hp), ready.filled_arrays()
  network, variables = ready.network(state, hp, arrays)
  batch = gather(Programs(ready, 1).fields, jnp.arange(4))
  assert network.model == ready.parts().model and network.loss_states == state.loss_states
  np.testing.assert_allclose(network.inputs(batch), np.asarray(batch["image"]) / np.float32(255), rtol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, variables, state.variables)
  jax.tree.map(np.testing.assert_array_equal, network.initial(), state.variables)
  parts, root = ready.parts(phase=0), jax.random.key(jnp.uint32(3))
  other = jax.tree.map(lambda leaf: leaf * 2, variables)
  expected = steps.evaluation_terms(parts, state, other, batch, root, arrays)
  assert {n: float(v) for n, v in network.terms(other, batch).items()} == {n: float(v) for n, v in expected.items()}
  assert network.loss(other, batch) == sum(expected.values()) and list(expected) == ["ce", "mse"]
  guide = network.references(batch)["guide"]
  module = parts.references["guide"].module
  alone = module.apply(arrays["guide"].variables, network.inputs(batch))
  np.testing.assert_allclose(guide.logits, alone.logits, atol=1e-6)
  later, _ = ready.network(state, hp, arrays, phase=6)
  assert list(later.terms(other, batch)) == ["ce"]
