"""References: frozen networks, what is kept of them, and the trained network with averaged weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import training
from nurture.core import UserError, trees
from nurture.data import gather
from nurture.reporting import read_json
from nurture.training import member_variables, references
from nurture.training.config import put
from nurture.training.experiment import hyper_parameters
from nurture.training.programs import Programs
from nurture.training.sweep import can_vary
from nurture.transforms.losses import LOSSES
from tests.tiny import read, tiny_config

MLP = {"name": "mlp", "depth": 2, "width": 8, "activation": "relu"}
NORMED = MLP | {"norm": "batch", "dropout": 0.3}
GUIDANCE = {"name": "guidance", "reference": "guide", "weight": 1.0}
CE = {"name": "cross_entropy", "weight": 1.0}


def config(reference=None, losses=None, **changes):
  references = {} if reference is None else {"guide": {"model": MLP} | reference}
  return tiny_config(references=references, losses=losses or {"ce": CE, "guide": GUIDANCE}, probes={}, **changes)


def prepared(cfg):
  """Returns the programs of one member, its state and its hyper-parameters."""
  experiment, hp = read(cfg), hyper_parameters(0)
  return Programs(experiment, 1), experiment.init(hp), hp


def outputs(ready, state, rows, train):
  """Returns the guide's outputs on some rows of the training split."""
  parts = ready.experiment.parts()
  batch = gather(ready.fields, jnp.asarray(rows))
  batch = {**batch, "image": parts.preprocess.inputs(batch)}
  guide, key = parts.references["guide"], jax.random.key(0)
  return guide.outputs(parts, state, ready.arrays["guide"], batch, key, train=train)


def test_no_weight_on_guidance_changes_no_bit(tmp_path):
  training.run(config(losses={"ce": CE}), tmp_path / "plain")
  training.run(config({}, {"ce": CE, "guide": GUIDANCE | {"weight": 0.0}}), tmp_path / "guided")
  a, b = (member_variables(tmp_path / name, 0)["params"] for name in ("plain", "guided"))
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_guide_is_not_changed_by_training(tmp_path):
  guided = config({"seed": 3})
  before = trees.digest(read(guided).arrays["guide"].variables)
  training.run(guided, tmp_path / "run")
  assert read_json(tmp_path / "run/manifest.json")["checksums"]["config.references.guide"] == before
  assert trees.digest(read(guided).arrays["guide"].variables) == before


def test_an_untrained_guide_is_not_the_network_of_that_seed():
  """Or guidance by the same architecture would be no control."""
  model = tiny_config()["model"]
  ready, state, _ = prepared(config({"model": model, "seed": 0}))
  kernel = lambda variables: np.asarray(variables["params"]["dense_00"]["kernel"])
  assert not np.array_equal(kernel(ready.arrays["guide"].variables), kernel(state.variables))


def test_a_cache_gives_what_the_network_gives():
  online, state, hp = prepared(config({"cache": ""}))
  cached, _, _ = prepared(config({"cache": "pre"}))
  rows = [5, 60, 7, 8, 33, 2, 1, 0]
  a, b = (outputs(ready, state, rows, train=True) for ready in (online, cached))
  np.testing.assert_allclose(a.logits, b.logits, atol=1e-5)
  assert list(b.taps) == [name for name in sorted(a.taps) if name.endswith("dense")]
  step = lambda ready: ready.experiment.step(state, hp, jnp.asarray(rows), ready.fields, ready.arrays)
  (_, with_network), (_, with_cache) = step(online), step(cached)
  np.testing.assert_allclose(with_network["loss/guide"], with_cache["loss/guide"], rtol=1e-4)
  np.testing.assert_allclose(with_network["gradient_norm"], with_cache["gradient_norm"], rtol=1e-3)


def test_with_a_cache_the_step_holds_nothing_of_the_guide():
  cached, state, hp = prepared(config({"model": {"name": "cnn", "layers": (("conv", 4, 3), ("dense", 5))},
                                       "cache": "pre"}))
  online, _, _ = prepared(config({"model": {"name": "cnn", "layers": (("conv", 4, 3), ("dense", 5))}}))
  assert online.experiment.has_convolution and not cached.experiment.has_convolution


def test_a_cache_of_logits_serves_a_teacher():
  cached, state, _ = prepared(config({"cache": "logits"}, {"ce": CE}))
  assert cached.arrays["guide"].taps == ()
  rows = [4, 9]
  np.testing.assert_allclose(
    outputs(cached, state, rows, train=True).logits, outputs(cached, state, rows, train=False).logits, atol=1e-5
  )


def test_batch_statistics_of_an_untrained_guide():
  """Running ones are mean 0 and variance 1; those of the batch, and calibrated ones, normalize what comes in."""
  rows = np.arange(64)
  norms = {}
  for mode in ("running", "batch", "calibrated"):
    guide = {"model": NORMED | {"dropout": 0.0}, "batch_norm": mode}
    ready, state, _ = prepared(config(guide, {"ce": CE}, evaluation__batch_size=64))
    taps = outputs(ready, state, rows, train=True).taps
    norms[mode] = np.asarray(taps["001_norm"]).std(axis=0)
  np.testing.assert_allclose(norms["batch"], 1, atol=0.02)
  np.testing.assert_allclose(norms["calibrated"], norms["batch"], atol=1e-3)
  assert np.abs(norms["running"] - 1).max() > 0.2


def test_a_mean_teacher_is_the_network_with_averaged_weights(monkeypatch):
  seen = []

  @dataclasses.dataclass(frozen=True)
  class Watch:
    def init(self, spec):
      return ()

    def apply(self, state, ctx):
      seen.append((jax.lax.stop_gradient(ctx.outputs.logits), ctx.references["average"].logits))
      return jnp.mean(jnp.square(ctx.outputs.logits - ctx.references["average"].logits), axis=-1), state

  monkeypatch.setitem(LOSSES, "watch", Watch)
  cfg = tiny_config(
    references={"average": {"model": {}, "parameters": "average"}}, probes={},
    losses={"ce": CE, "watch": {"name": "watch", "weight": 0.1}},
  )
  ready, state, hp = prepared(cfg)
  batch = gather(ready.fields, jnp.arange(8))
  for _ in range(3):
    del seen[:]
    before, (state, _) = state, ready.experiment.step(state, hp, jnp.arange(8), ready.fields, ready.arrays)
    average = before.parameter_states["average"]["average"]
    parts = ready.experiment.parts()
    expected = parts.model.apply({"params": average}, parts.preprocess.inputs(batch))
    np.testing.assert_allclose(seen[0][1], expected.logits, rtol=1e-5, atol=1e-6)
  assert np.abs(seen[0][0] - expected.logits).max() > 1e-3  # which the network itself is not


def test_an_unmixed_view():
  mixup = {"name": "mixup", "alpha": 1.0, "symmetric": True}
  cfg = config({"view": "unmixed"}, {"ce": CE}, data__augment={"mix": mixup})
  ready, state, _ = prepared(cfg)
  parts = ready.experiment.parts()
  batch = gather(ready.fields, jnp.arange(8))
  plain = {**batch, "image": parts.preprocess.inputs(batch)}
  mixed = parts.preprocess.train_batch(jax.random.key(1), batch)
  guide, loaded, key = parts.references["guide"], ready.arrays["guide"], jax.random.key(0)
  read = lambda batch: guide.outputs(parts, state, loaded, batch, key, train=True).logits
  assert np.abs(mixed["image"] - plain["image"]).max() > 0.1
  np.testing.assert_array_equal(read(mixed), read(plain))


@pytest.mark.parametrize("reference, changes, words", [
  ({"cache": "pre"}, {"data__augment": {"noise": {"name": "noise_input"}}}, "inputs that never change.*has noise"),
  ({"cache": "conv"}, {}, "no taps of kind 'conv'"),
  ({"cache": "pre", "batch_norm": "batch"}, {}, "cache knows no batches"),
  ({"view": "unmixed"}, {}, "'unmixed', but config.data.augment has no mixup"),
  ({"seed": 2**40}, {}, "seed is 1099511627776"),
  ({"batch_norm": "calibrated"}, {}, "'calibrated', but the network has no batch statistics"),
  ({"batch_norm": "none"}, {}, "batch_norm is 'none'.*one of 'running', 'batch', 'calibrated'"),
  ({"model": {}, "parameters": "ema"}, {}, "'ema', which config.parameters does not have .known: average"),
  *[({"model": {}, "parameters": "average"} | more, {}, "leave its model {}")
    for more in ({"model": MLP}, {"run": "run"}, {"cache": "pre"}, {"batch_norm": "calibrated"})],
  ({"runs": ""}, {}, "guide.runs does not exist.*did you mean 'run'"),
  ({"run": "nowhere"}, {}, "nowhere is not a finished run"),
  ({"model": {"name": "vit", "patch": 3}}, {}, "^config.references.guide.model.patch is 3"),
  ({"model": {"name": "pair", "model": {"name": "vit", "patch": 3}}}, {},
   "^config.references.guide.model.model.patch is 3"),
  ({"model": MLP | {"width": -1}}, {}, "^config.references.guide.model.width is -1"),
])
def test_mistakes_are_sentences(reference, changes, words, tmp_path):
  with pytest.raises(UserError, match=words):
    training.run(config(reference, **changes), tmp_path / "run")


def test_a_run_of_another_shape_or_of_other_classes_is_refused(tmp_path):
  training.run(config(losses={"ce": CE}, steps=1, checkpoint__every=1), tmp_path / "teacher")
  model = {"name": "mlp", "depth": 1, "width": 8, "activation": "relu"}
  guide = {"model": model, "run": str(tmp_path / "teacher")}
  read(config(guide))
  for change, words in (
    ({"width": 9}, r"\['params'\].* is \(8,\) there and \(9,\) here"),
    ({"num_classes": 7}, "there and .*its num_classes"),
    ({"depth": 2}, "missing there"),
  ):
    with pytest.raises(UserError, match=words):
      read(config(guide | {"model": model | change}))


def test_a_run_on_other_data_is_refused(tmp_path):
  """On another scale, or with training examples that validate here."""
  plain = dict(losses={"ce": CE}, steps=1, checkpoint__every=1, data__validation=20)
  training.run(config(**plain), tmp_path / "teacher")
  guide = {"model": tiny_config()["model"], "run": str(tmp_path / "teacher")}
  read(config(guide, data__validation=20))
  for changes, words in (
    ({"data__normalize": "standardize"}, "config.data.normalize='unit', and this config has 'standardize'"),
    ({"data__seed": 1}, "config.data.seed=0, so it has seen validation examples"),
    ({"data__validation": 10}, "config.data.validation=20, so"),
  ):
    with pytest.raises(UserError, match=words):
      read(config(guide, **{"data__validation": 20} | changes))


def test_a_member_that_died_teaches_nothing(tmp_path):
  grid = {"lr": {"path": "optimizer.learning_rate", "levels": (0.1, 1e30)}}
  training.run(config(losses={"ce": CE}, ensemble__grid=grid), tmp_path / "teacher")
  guide = {"model": tiny_config()["model"], "run": str(tmp_path / "teacher")}
  read(config(guide))
  with pytest.raises(UserError, match="member 1 of .* diverged at step"):
    read(config(guide | {"member": 1}))


def test_a_mean_teacher_has_the_scheduled_arguments_of_the_step():
  model = {"name": "vanillanet", "dims": (3, 4), "strides": (2,), "stem_patch": 2, "act_num": 1}
  schedule = {"name": "linear_schedule", "init_value": 0.0, "end_value": 1.0, "transition_steps": 10}
  cfg = tiny_config(
    model=model, scheduled={"lam": schedule}, probes={}, losses={"ce": CE},
    references={"average": {"model": {}, "parameters": "average"}},
  )
  ready, state, _ = prepared(cfg)
  parts = ready.experiment.parts()
  batch = gather(ready.fields, jnp.arange(4))
  batch = {**batch, "image": parts.preprocess.inputs(batch)}

  def logits(step):
    later = dataclasses.replace(state, step=jnp.int32(step))
    return parts.references["average"].outputs(
      parts, later, ready.arrays["average"], batch, jax.random.key(0), train=True
    ).logits

  assert np.abs(logits(0) - logits(10)).max() > 0.1 * np.abs(logits(0)).max() > 0


def test_a_mistake_of_a_probe_is_found_before_training(tmp_path):
  probes = {"late": {"name": "agreement", "reference": "gide", "every": 0}}
  with pytest.raises(UserError, match="did you mean 'guide'"):
    training.run(put(config({}), {"probes": probes}), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_a_reference_that_nobody_reads_costs_nothing():
  cnn = {"name": "cnn", "layers": (("conv", 4, 3), ("dense", 5))}
  ready, _, _ = prepared(config({"model": cnn}, {"ce": CE}))
  assert not ready.experiment.has_convolution


def test_guide_seeds_make_groups_and_share_what_they_can(tmp_path):
  grid = {
    "guide": {"path": "references.guide.seed", "levels": (0, 1)},
    "alpha": {"path": "losses.guide.weight", "levels": (0.0, 1.0)},
  }
  cfg = put(config({"seed": 0, "cache": "pre"}), {"ensemble.grid": grid})
  members = training.run(cfg, tmp_path / "run")["members"]
  digest = {(m["values"]["guide"], m["values"]["alpha"]): m["params_sha256"] for m in members}
  assert digest[0, 0.0] == digest[1, 0.0] and digest[0, 1.0] != digest[1, 1.0]
  assert {m["values"]["guide"]: m["cohort"] for m in members} == {0: 0, 1: 1}


def test_outputs_are_computed_only_if_somebody_trains(monkeypatch):
  """Finding out which members make a program prepares every one of them: what is slow and large must wait."""
  calls, fill = [], references.fill
  monkeypatch.setattr(references, "fill", lambda *args: calls.append(args) or fill(*args))
  experiment = read(config({"cache": "pre"}))
  assert can_vary(experiment, [{"optimizer.learning_rate": 0.1}]) and not calls
  ready = Programs(experiment, 1)
  shapes = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)
  assert shapes(ready.arrays) == shapes(dict(experiment.arrays))
  assert len(calls) == 1 and ready.arrays is ready.arrays


def test_a_finished_run_computes_nothing_again(tmp_path, monkeypatch):
  cfg = config({"cache": "pre"})
  first = training.run(cfg, tmp_path, data_dir="data")
  monkeypatch.setattr(references, "fill", lambda *args: pytest.fail("computed what a reference keeps"))
  assert training.run(cfg, tmp_path, data_dir="data")["members"] == first["members"]


def test_many_passes_keep_what_one_does(monkeypatch):
  one = read(config({"cache": "pre"})).filled_arrays()["guide"]
  monkeypatch.setattr(references, "_AT_ONCE", 1)
  many = read(config({"cache": "pre"})).filled_arrays()["guide"]
  assert len(one.taps) > 1
  jax.tree.map(np.testing.assert_array_equal, one, many)
