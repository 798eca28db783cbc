"""Networks of the user's own, of four libraries, in a folder outside of the repository: a config names them."""

import importlib
import inspect
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.models import describe
from nurture import data, models, testing, training
from nurture.core import UserError, rng
from nurture.training.config import put
from nurture.training.experiment import hyper_parameters
from nurture.training.sweep import can_vary
from tests.end_to_end.test_configs import metrics_of
from tests.pages import ROOT, blocks
from tests.tiny import read, tiny_config

LIBRARIES = ["linen", "nnx", "equinox", "haiku"]
PLAIN = {
  "targets": {}, "gradients": {}, "parameters": {}, "optimizer": {"name": "sgd", "learning_rate": 0.1}, "probes": {},
  "report": {"metrics": ()}, "data__label_noise": {},
}
B, D, K, RATE = 8, 64, 10, 0.1


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A folder of the user's own, from which names are imported."""
  folder = tmp_path / "elsewhere" / "own_nets"
  shutil.copytree(ROOT / "tests" / "own_nets", folder, ignore=shutil.ignore_patterns("__pycache__"))
  monkeypatch.syspath_prepend(folder.parent)
  yield folder
  for name in [name for name in sys.modules if name.partition(".")[0] == "own_nets"]:
    del sys.modules[name]


def module_of(library):
  """Returns the user's module; skips where its library is not installed."""
  if library in ("equinox", "haiku"):
    pytest.importorskip(library)
  return importlib.import_module(f"own_nets.in_{library}")


def config_of(library, name="Net", **changes):
  return tiny_config(**PLAIN | {"model": {"name": f"own_nets.in_{library}:{name}"}} | changes)


def cross_entropy(logits, labels):
  return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def descended(params, gradient):
  return jax.tree.map(lambda p, g: p - RATE * g, params, gradient)


def loop_linen(module, variables, batches, x):
  net, params, stats = module.Net(K), variables["params"], variables["batch_stats"]

  def loss(params, stats, x, y):
    logits, changed = net.apply({"params": params, "batch_stats": stats}, x, train=True, mutable=["batch_stats"])
    return cross_entropy(logits, y), changed["batch_stats"]

  step = jax.jit(jax.grad(loss, has_aux=True))
  for batch in batches:
    gradient, stats = step(params, stats, *batch)
    params = descended(params, gradient)
  return net.apply({"params": params, "batch_stats": stats}, x, train=False)


def loop_nnx(module, variables, batches, x):
  net = module.Net(K, (8, 8, 1), rngs=nnx.Rngs(0))
  params, stats = variables["params"], variables["batch_stats"]
  net.layers[0].kernel[...], net.layers[0].bias[...] = (params["layers"]["0"][name] for name in ("kernel", "bias"))
  net.layers[1].scale[...], net.layers[1].bias[...] = (params["layers"]["1"][name] for name in ("scale", "bias"))
  net.head.kernel[...], net.head.bias[...] = (params["head"][name] for name in ("kernel", "bias"))
  net.layers[1].mean[...], net.layers[1].var[...] = (stats["layers"]["1"][name] for name in ("mean", "var"))
  net.train()
  step = nnx.jit(nnx.grad(lambda net, x, y: cross_entropy(net(x), y)))
  for batch in batches:
    gradient = step(net, *batch)
    nnx.update(net, descended(nnx.state(net, nnx.Param), gradient))
  net.eval()
  return net(x)


def loop_equinox(module, variables, batches, x):
  import equinox as eqx  # noqa: PLC0415

  net, state = eqx.nn.make_with_state(module.Net)(K, (8, 8, 1), key=jax.random.key(0))
  params = variables["params"]
  for layer in ("hidden", "norm", "head"):
    for name in ("weight", "bias"):
      net = eqx.tree_at(lambda net: getattr(getattr(net, layer), name), net, params[layer][name])  # noqa: B023

  def forward(net, state, x, keys):
    return jax.vmap(net, axis_name="batch", in_axes=(0, None, 0), out_axes=(0, None))(x, state, keys)

  def loss(net, state, x, y):
    logits, state = forward(net, state, x, jax.random.split(jax.random.key(0), len(x)))
    return cross_entropy(logits, y), state

  step = eqx.filter_jit(eqx.filter_grad(loss, has_aux=True))
  for batch in batches:
    gradient, state = step(net, state, *batch)
    net = eqx.apply_updates(net, jax.tree.map(lambda g: -RATE * g, gradient))
  return forward(eqx.nn.inference_mode(net), state, x, jax.random.split(jax.random.key(0), len(x)))[0]


def loop_haiku(module, variables, batches, x):
  import haiku as hk  # noqa: PLC0415

  net = hk.transform_with_state(lambda x, is_training: module.Net(K)(x, is_training))
  params, state = net.init(jax.random.key(0), x, True)
  params = {name: dict(variables["params"][name.replace("/", ".")]) for name in params}

  def loss(params, state, x, y):
    logits, state = net.apply(params, state, jax.random.key(0), x, True)
    return cross_entropy(logits, y), state

  step = jax.jit(jax.grad(loss, has_aux=True))
  for batch in batches:
    gradient, state = step(params, state, *batch)
    params = descended(params, gradient)
  return net.apply(params, state, None, x, False)[0]


LOOPS = {"linen": loop_linen, "nnx": loop_nnx, "equinox": loop_equinox, "haiku": loop_haiku}
TAPS = {
  "linen": ["hidden", "norm", "Dropout_0", "head"], "nnx": ["layers.0", "layers.1", "dropout", "head"],
  "equinox": ["hidden", "norm", "dropout", "head"], "haiku": ["flatten", "hidden", "norm", "head"],
}
KERNELS = {
  "linen": "hidden/kernel", "nnx": "layers/0/kernel", "equinox": "hidden/weight", "haiku": "net.hidden/w",
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_network_by_config_is_a_loop_of_its_library(library, own, tmp_path):
  module = module_of(library)
  probes = {
    "test": {"name": "accuracy", "split": "test", "every": 6}, "taps": {"name": "tap_norms", "every": 0},
    "weights": {"name": "weight_statistics", "every": 0},
  }
  config = config_of(library, probes=probes, ensemble__seeds=2)
  results = training.run(config, tmp_path / "run")
  measured = [member["metrics"] for member in results["members"]]
  assert len({member["params_sha256"] for member in results["members"]}) == 2
  assert sorted(n[len("taps/000_"):] for n in measured[0] if n.startswith("taps/")) == sorted(TAPS[library])
  assert f"weights/{KERNELS[library]}/std" in measured[0]

  trained = training.restore(tmp_path / "run", member=1)
  experiment, dataset, logits = trained.experiment, trained.data, trained.predictions("test")
  accuracy = np.mean(logits.argmax(axis=-1) == dataset.test.fields["label"], dtype=np.float32)
  assert accuracy == np.float32(measured[1]["test/accuracy"])
  hp, fields = hyper_parameters(trained.seed), data.device_fields(dataset.train)
  parts, order = experiment.parts(), rng.stream(jax.random.key(trained.seed), "order")
  batches = []
  for t in range(config["steps"]):
    batch = data.gather(fields, data.epoch_order_index(order, t, len(dataset.train), B))
    batches.append((parts.preprocess.inputs(batch), batch["label"]))
  x = parts.preprocess.inputs(data.device_fields(dataset.test))
  expected = LOOPS[library](module, experiment.init(hp).variables, batches, x)
  np.testing.assert_allclose(logits, expected, atol=2e-5)




@pytest.mark.parametrize("name, changes, words", [
  ("in_linen:Net", {"width": 0}, "config.model.width is 0; give a whole number of at least 1"),
  ("in_linen:Net", {"dropout": "much"}, "config.model.dropout is 'much' .str., but 'own_nets.in_linen:Net' needs a"),
  ("in_linen:Net", {"widht": 3}, "config.model.widht does not exist for .*; did you mean 'width'. .known: dropout"),
  ("in_nnx:Net", {"rngs": 3}, "model.rngs does not exist for .*known: dropout, input_shape, num_classes, width"),
  ("in_nnx:Net", {"width": -1}, "config.model.width is -1; give a whole number of at least 1"),
  ("in_linen:Absent", {}, "own_nets.in_linen has no 'Absent'; it has .*Wrong"),
  ("in_torch:Net", {}, "own_nets.in_torch cannot be imported .ModuleNotFoundError: No module named"),
  ("in_linen:Wrong", {}, r"config.model makes predictions .8, 11., but the data ask for .8, 10.; give it 10 out"),
  ("in_linen:Net", {"num_classes": 7}, r"config.model makes predictions .8, 7., .*num_classes is that where config"),
  ("in_linen:Rows", {}, r"config.model is Rows, which does not take a batch of shape .1, 8, 8, 1. .ValueError: too man"
   r"y values to unpack .expected 2. in line \d+ of .*in_linen.py.; mend it, or its fields"),
  ("in_nnx:Wide", {}, r"config.model is Wide, which does not take a batch of shape .1, 8, 8, 1. .TypeError: dot_gene"
   r"ral .*in line \d+ of .*in_nnx.py"),
  ("in_linen:Loud", {}, r"does not take a batch of .* .ValueError: (no )+... in line \d+ of .*in_linen.py.; mend"),
  ("in_linen:Several", {}, "config.model is Several, which returns a dict and not logits; return the logits alone"),
  ("in_linen:Nothing", {}, "config.model has no parameters"),
  ("in_linen:Unknown", {}, "config.model is Unknown, which makes no network that is known but a Unknown; name a linen"),
  ("in_linen:ready", {}, "config.model.name stands for a network that is made already, of Net; name its class"),
  ("in_nnx:seeded", {}, "config.model is seeded, which makes a network from random numbers .* an argument 'rngs'"),
])
def test_mistakes_are_one_sentence(name, changes, words, own):
  with pytest.raises(UserError, match=words) as error:
    read(tiny_config(**PLAIN | {"model": {"name": f"own_nets.{name}", **changes}}))
  assert "\n" not in str(error.value) and len(str(error.value)) < 600


PROBES = {
  "gradients": {"name": "gradient_norms", "every": 0},
  "kernel": {"name": "tangent_kernel", "limit": 12, "every": 0},
  "layers": {
    "name": "representation", "reference": "guide", "taps": "head", "reference_taps": "head", "every": 0, "limit": 16,
  },
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_probes_transforms_and_references_know_its_names(library, own):
  module_of(library)
  config = config_of(
    library, probes=PROBES, parameters={"average": {"name": "ema", "decay": 0.9}}, evaluation__parameters="average",
    references={"guide": {"model": {"name": f"own_nets.in_{library}:Net", "width": 3}}},
    losses={"ce": {"name": "cross_entropy", "weight": 1.0},
            "guide": {"name": "guidance", "weight": 1.0, "reference": "guide", "taps": "all", "guide_taps": "all"}},
  )
  found = metrics_of(read(config))
  layer = KERNELS[library].split("/")[0]
  assert {f"gradients/{layer}", "kernel/trace", "layers/mean"} <= found


@pytest.mark.parametrize("library, name", [*((library, "Net") for library in LIBRARIES), ("nnx", "Noisy")])
def test_noise_is_drawn_anew_and_only_in_training(library, name, own, key):
  module_of(library)
  model = models.fitted({"name": f"own_nets.in_{library}:{name}", "dropout": 0.5}, "config.model", K, (8, 8, 1))
  x = jax.random.normal(key, (B, 8, 8, 1))
  variables = model.init({"params": key, "dropout": key}, x)
  collections = [name for name in variables if name != "params"]
  train = jax.jit(lambda key: model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=collections))
  (first, changed), (same, _), (second, _) = train(key), train(key), train(jax.random.key(1))
  np.testing.assert_array_equal(first.logits, same.logits)
  assert not np.allclose(first.logits, second.logits)
  assert jax.tree.structure(changed) == jax.tree.structure({name: variables[name] for name in collections})
  evaluated = jax.jit(model.apply)(variables, x)
  assert jax.tree.structure(evaluated) == jax.tree.structure(first)
  np.testing.assert_array_equal(evaluated.logits, jax.jit(model.apply)(variables, x).logits)


@pytest.mark.parametrize("library", LIBRARIES[1:])
def test_a_function_may_make_it(library, own, key):
  module_of(library)
  model = models.fitted(f"own_nets.in_{library}:sequential", "config.model", K, (8, 8, 1))
  x = jax.random.normal(key, (B, 8, 8, 1))
  variables = model.init(key, x)
  logits, taps = model.apply(variables, x)
  kernel, bias = sorted(jax.tree.leaves(variables["params"]), key=lambda leaf: -leaf.ndim)
  product = x.reshape(B, -1) @ (kernel if kernel.shape == (D, K) else kernel.T)
  np.testing.assert_allclose(logits, product + bias[None], atol=1e-5)
  np.testing.assert_array_equal(list(taps.values())[-1], logits)


@pytest.mark.parametrize("library", LIBRARIES)
def test_two_of_them_are_a_pair(library, own):
  module_of(library)
  config = config_of(library, model={"name": "pair", "model": {"name": f"own_nets.in_{library}:Net", "width": 5}})
  model = (experiment := read(config)).parts().model
  variables = jax.eval_shape(experiment.init, hyper_parameters(0)).variables
  outputs = jax.eval_shape(model.apply, variables, experiment.spec.example())
  names = [name[4:] for name in outputs.taps]
  assert names == [f"{n}.{tap}" for n in ("first", "second") for tap in (*TAPS[library], "logits")]
  assert set(variables["params"]) == {"first", "second"}
  frozen = jax.eval_shape(lambda key: model.init(key, experiment.spec.example()), jax.random.key(0))  # as a reference
  assert jax.tree.structure(frozen) == jax.tree.structure(variables)
  with pytest.raises(UserError, match="config.model.model.width is 0; give"):
    read(put(config, {"model.model.width": 0}))


def test_what_is_inside_of_a_transformation_is_no_tap_and_classes_stay_as_they_were(own, key):
  original = nnx.Linear.__call__
  model = models.fitted("own_nets.in_nnx:Scaled", "config.model", K, (8, 8, 1))
  x = jax.random.normal(key, (B, 8, 8, 1))
  variables = model.init(key, x)
  outputs = model.apply(variables, x, rate=2.0)
  assert list(outputs.taps) == ["000_last"]
  assert list(inspect.signature(type(model).__call__).parameters) == ["self", "x", "train", "rate"]
  trained, _ = model.apply(variables, x, train=True, mutable=[], rate=2.0)
  bias = variables["params"]["last"]["bias"]
  np.testing.assert_allclose(trained.logits - bias[None], bias[None] - outputs.logits, atol=1e-5)
  with pytest.raises(UserError, match="does not take a batch of shape .8, 3."):
    model.apply(variables, jnp.zeros((B, 3)))
  assert nnx.Linear.__call__ is original


@pytest.mark.parametrize("library", LIBRARIES)
def test_numbers_of_networks_that_are_made_beforehand_vary_in_one_program(library, own):
  module_of(library)
  experiment = read(config_of(library, model={"name": f"own_nets.in_{library}:Scaled", "scale": 1.0}))
  varying = ("model.scale",) if library in ("linen", "haiku") else ()
  found = can_vary(experiment, [{"model.scale": 1.0, "optimizer.learning_rate": 0.1}])
  assert found == (*varying, "optimizer.learning_rate")


def test_a_module_that_says_so_is_a_model_as_it_is(own):
  model = models.fitted("own_nets.in_linen:Model", "config.model", K, (8, 8, 1))
  assert type(model).__name__ == "Model" and model == importlib.import_module("own_nets.in_linen").Model(K)
  mlp = models.fitted({"name": "mlp", "width": 3}, "config.model", K, (5,))
  assert mlp == models.build("mlp", num_classes=K, width=3)


def test_equinox_without_batch_norm_has_no_state(own, key):
  module_of("equinox")
  model = models.fitted({"name": "own_nets.in_equinox:Net", "norm": False}, "config.model", K, (8, 8, 1))
  variables, x = model.init(key, None), jnp.ones((B, 8, 8, 1))
  assert set(variables) == {"params"} and model.apply(variables, x).logits.shape == (B, K)
  assert model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=[])[1] == {}


@pytest.mark.parametrize("library", LIBRARIES)
def test_several_fields_are_read(library, own, key):
  module_of(library)
  shapes = {"image": (4, 4, 1), "size": (3,)}
  model = models.fitted(f"own_nets.in_{library}:Fields", "config.model", K, shapes)
  x = {name: jax.random.normal(key, (B, *shape)) for name, shape in shapes.items()}
  outputs = jax.eval_shape(lambda key, x: model.apply(model.init(key, x), x), key, x)
  assert outputs.logits.shape == (B, K) and [tap.shape for tap in outputs.taps.values()] == [(B, K)]


def test_fields_may_be_chosen_beforehand(own):
  made = lambda **fields: models.fitted({"name": "own_nets.in_linen:Small", **fields}, "config.model", K, (5,)).module
  assert (made().width, made(width=5).width, made().num_classes) == (3, 5, K)


def test_the_table_of_models_shows_it(own):
  shown = describe("own_nets.in_nnx:Net", (8, 8, 1), 10, {"width": 4})
  assert shown.outputs.logits.shape == (1, 10) and list(shown.outputs.taps)[-1] == "003_head"
  assert 64 * 4 + 4 * 10 <= shown.macs < 64 * 4 + 4 * 10 + 20  # of the call alone


@pytest.mark.parametrize("library", LIBRARIES[2:])  # the others run with the page
def test_the_examples_of_the_page(library, tmp_path, monkeypatch):
  pytest.importorskip(library)
  [text] = [block for block in blocks(ROOT / "docs/models.md", "python") if block.startswith(f"# my_{library}.py\n")]
  (tmp_path / f"page_{library}.py").write_text(text)
  monkeypatch.syspath_prepend(tmp_path)
  read(tiny_config(**PLAIN | {"model": {"name": f"page_{library}:Net", "width": 4}}))


@pytest.mark.parametrize("library", [
  pytest.param(name, marks=() if name == "nnx" else pytest.mark.long) for name in LIBRARIES
])
def test_the_contract_suite_takes_classes_and_configs_of_any_library(own, library):
  module = module_of(library)
  testing.check_model(module.Net, steps=1)
  testing.check_model({"name": f"own_nets.in_{library}:Net", "width": 4}, steps=0)
