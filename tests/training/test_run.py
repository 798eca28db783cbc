"""Whole runs of a tiny ensemble: what a run promises about members, resuming, dying, and its directory."""

import dataclasses
import importlib.util
import json
import pathlib
import shutil
import sys
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture import data, models, training
from nurture.core import UserError, rng
from nurture.reporting import Progress, read_json, read_rows
from nurture.training import member_variables, programs
from nurture.training.config import plain
from nurture.training.profiling import Profiler
from nurture.transforms.losses import LOSSES
from tests.tiny import tiny_config
from tests.wandb_cloud import Cloud

ETA = {"path": "gradients.noise.eta", "levels": (0.0, 0.01)}
# Intervals that share no divisor: dispatches of several lengths.
ENSEMBLE = {"ensemble__seeds": 2, "ensemble__grid": {"eta": ETA}, "ensemble__chunk": 2, "probes__test__every": 4}


def train(workdir, sinks=(), **changes):
  return training.run(tiny_config(**changes), workdir, **dict.fromkeys(sinks, True))


def shas(results):
  return [member["params_sha256"] for member in results["members"]]


def params(workdir, member=0):
  return member_variables(pathlib.Path(workdir), member)["params"]


def assert_close(a, b, tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
  return workdir, train(workdir, **ENSEMBLE)


def test_directory_holds_what_it_should(undisturbed):
  workdir, results = undisturbed
  assert {p.name for p in workdir.iterdir()} >= {
    "config.json", "manifest.json", "metrics.jsonl", "results.json", "checkpoints",
  }
  assert [g["label"] for g in results["groups"]] == ["eta=0.0", "eta=0.01"]
  assert [g["members"] for g in results["groups"]] == [[0, 1], [2, 3]]
  assert [m["seed"] for m in results["members"]] == [0, 1, 0, 1]
  assert [m["cohort"] for m in results["members"]] == [0, 0, 1, 1]
  assert len(set(shas(results))) == 4
  assert read_json(workdir / "results.json") == json.loads(json.dumps(results))
  manifest = read_json(workdir / "manifest.json")
  assert [entry["event"] for entry in manifest["history"]] == ["start", "stop"]
  assert manifest["history"][-1]["reason"] == "finished"
  assert manifest["members"][3] == {"member": 3, "cohort": 1, "seed": 1, "values": {"eta": 0.01}}


def test_rows_have_no_gap_and_no_duplicate(undisturbed):
  rows = read_rows(undisturbed[0] / "metrics.jsonl")
  for member in range(4):
    mine = [row for row in rows if row["member"] == member]
    assert [row["step"] for row in mine] == [0, 3, 4, 6, 8, 9, 12]
    with_metric = lambda name, mine=mine: [row["step"] for row in mine if name in row]
    assert with_metric("loss") == [3, 6, 9, 12]
    assert with_metric("test/accuracy") == [0, 4, 8, 12]
    assert with_metric("memory/wrong_memorized") == [0, 6, 12]
    assert len([name for name in mine[-1] if name.startswith("weights/")]) > 0
    assert not any(name.startswith("weights/") for row in mine[:-1] for name in row)


@pytest.mark.parametrize("dispatches_before", [0, 1, 4, 5, 9])
def test_a_run_cut_off_at_any_dispatch_ends_with_the_same_bytes(undisturbed, tmp_path, monkeypatch, dispatches_before):
  class CutOffError(BaseException):
    pass

  count, before = [0], Profiler.before

  def stop(self):
    if count[0] == dispatches_before:
      raise CutOffError
    count[0] += 1
    before(self)

  cloud, sinks = Cloud(), ["wandb", *(["tensorboard"] if importlib.util.find_spec("tensorboard") else [])]
  monkeypatch.setitem(sys.modules, "wandb", cloud.module())
  with monkeypatch.context() as patch:
    patch.setattr(Profiler, "before", stop)  # it comes ahead of each dispatch
    with pytest.raises(CutOffError):
      train(tmp_path / "run", sinks, **ENSEMBLE)
  train(tmp_path / "run", sinks, **ENSEMBLE)
  for name in ("metrics.jsonl", "results.json"):
    assert (tmp_path / "run" / name).read_bytes() == (undisturbed[0] / name).read_bytes()
  assert list(cloud.steps().values()) == [[0, 3, 4, 6, 8, 9, 12]] * 4  # and no page shows a step twice
  configs = [arguments["config"] for arguments, _ in cloud.inits]
  assert [configs[-1][name] for name in ("seed", "values")] == [1, {"eta": 0.01}]
  assert configs[-1]["gradients"]["noise"]["eta"] == 0.01
  folders = sorted(path.name for path in (tmp_path / "run" / "tensorboard").glob("eta=*/seed *"))
  assert folders == ["seed 0", "seed 0", "seed 1", "seed 1"] * ("tensorboard" in sinks)


def test_a_damaged_newest_checkpoint_costs_time_and_nothing_else(undisturbed, tmp_path, monkeypatch, capfd):
  before, count = Profiler.before, [0]

  def kill(self):
    count[0] += 1
    if count[0] == 5:
      raise KeyboardInterrupt
    before(self)

  with monkeypatch.context() as patch:
    patch.setattr(Profiler, "before", kill)
    with pytest.raises(KeyboardInterrupt):
      train(tmp_path / "run", **ENSEMBLE)
  newest = max((tmp_path / "run" / "checkpoints" / "cohort_000").glob("step_*"))
  for path in (newest / "arrays").rglob("*"):
    if path.is_file():
      path.write_bytes(b"damaged")
  seen, whole = [], 2 * tiny_config()["steps"]
  monkeypatch.setattr(Progress, "update", lambda self, step, loss, metrics: seen.append((step, self._bar.total)))
  train(tmp_path / "run", **ENSEMBLE)
  assert seen == sorted(seen) and seen[-1] == (whole, whole)  # the bar goes through both cohorts
  assert "is damaged" in capfd.readouterr().err
  for name in ("metrics.jsonl", "results.json"):
    assert (tmp_path / "run" / name).read_bytes() == (undisturbed[0] / name).read_bytes()


def test_running_a_finished_run_again_trains_nothing(undisturbed, monkeypatch):
  workdir, results = undisturbed
  before = (workdir / "metrics.jsonl").read_bytes()
  monkeypatch.setattr(Profiler, "before", lambda self: pytest.fail("it trained"))
  assert train(workdir, **ENSEMBLE)["params_sha256"] == results["params_sha256"]
  assert (workdir / "metrics.jsonl").read_bytes() == before


def test_another_config_is_refused_and_nothing_is_touched(undisturbed):
  workdir, _ = undisturbed
  before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != "lock"}
  with pytest.raises(UserError, match=r"belongs to another config: steps: 12 -> 15; give another --workdir"):
    train(workdir, steps=15, **ENSEMBLE)
  assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != "lock"} == before


def test_a_directory_that_is_no_run_or_in_use_is_refused(tmp_path, undisturbed):
  (tmp_path / "thesis").mkdir()
  (tmp_path / "thesis" / "chapter.tex").write_text("important")
  with pytest.raises(UserError, match="exists and is not a run directory"):
    train(tmp_path / "thesis")
  import fcntl  # noqa: PLC0415

  with open(undisturbed[0] / "lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(UserError, match="another process is training in"):
      train(undisturbed[0], **ENSEMBLE)


def test_changed_data_are_refused(undisturbed):
  manifest = undisturbed[0] / "manifest.json"
  original = manifest.read_text()
  manifest.write_text(json.dumps({**json.loads(original), "checksums": {"other-file": "0"}}))
  try:
    with pytest.raises(UserError, match="has changed since the run"):
      train(undisturbed[0], **ENSEMBLE)
  finally:
    manifest.write_text(original)


def test_a_member_equals_the_same_run_alone(undisturbed, tmp_path):
  """To rounding with vmap, bit for bit with lax.map."""
  alone = train(tmp_path / "alone", seed=1, data__seed=0)  # member 3: seed 1, eta 0.01
  assert_close(params(undisturbed[0], 3), params(tmp_path / "alone"), 1e-5)
  assert alone["members"][0]["params_sha256"] != shas(undisturbed[1])[2]
  mapped = train(tmp_path / "mapped", **ENSEMBLE, ensemble__map="map")
  assert shas(mapped)[3] == alone["members"][0]["params_sha256"]


def test_one_diverging_member_changes_no_other_and_is_marked(tmp_path):
  axis = lambda second: {"lr": {"path": "optimizer.learning_rate", "levels": (0.1, second)}}
  both = train(tmp_path / "both", ensemble__grid=axis(0.2))
  one = train(tmp_path / "one", ensemble__grid=axis(1e30))
  assert shas(one)[0] == shas(both)[0]
  assert one["members"][0]["died_at"] is None
  assert 0 <= one["members"][1]["died_at"] < 12
  assert one["groups"][1]["dead"] == [1]
  assert {(metric["n"], metric["dead"]) for metric in one["groups"][1]["metrics"].values()} == {(0, 1)}
  assert one["groups"][1]["metrics"]["test/accuracy"]["n"] == 0
  last = [row for row in read_rows(tmp_path / "one" / "metrics.jsonl") if row["member"] == 1][-1]
  assert last["loss"] is None


def test_a_dead_cohort_does_not_stop_the_others(tmp_path):
  grid = {"lr": {"path": "optimizer.learning_rate", "levels": (1e30, 0.1)}}
  results = train(tmp_path / "run", ensemble__grid=grid, ensemble__chunk=1)
  assert [m["cohort"] for m in results["members"]] == [0, 1]
  assert [m["died_at"] is None for m in results["members"]] == [False, True]
  assert [m["metrics"]["test/accuracy"] is None for m in results["members"]] == [True, False]


def test_a_run_that_is_not_finite_stops_and_names_step_and_tensor(tmp_path):
  with pytest.raises(training.Diverged, match=r"is not finite at step \d+; .*lower the learning rate"):
    train(tmp_path / "run", optimizer__learning_rate=1e30)
  assert read_json(tmp_path / "run" / "manifest.json")["history"][-1]["reason"] == "not finite"
  assert not (tmp_path / "run" / "results.json").exists()


def test_a_late_blow_up_keeps_the_last_good_checkpoint(tmp_path):
  rate = {"name": "piecewise_constant_schedule", "init_value": 0.01, "boundaries": (7,), "scales": (1e38,)}
  with pytest.raises(training.Diverged, match=r"at step [78]; the checkpoint of step 6 is kept"):
    train(tmp_path / "run", optimizer__learning_rate=rate)


def test_limits_equal_the_plain_run_bit_for_bit(tmp_path):
  plain = shas(train(tmp_path / "plain", targets={}, parameters={}, gradients={}))
  smoothing = {"targets__smoothing__alpha": 0.0, "parameters": {}, "gradients": {}}
  noise = {"name": "annealed_noise", "eta": 0.0, "gamma": 0.55}
  assert shas(train(tmp_path / "smoothing", **smoothing)) == plain
  assert shas(train(tmp_path / "noise", targets={}, parameters={}, gradients={"noise": noise})) == plain
  assert shas(train(tmp_path / "ema", targets={}, gradients={})) == plain
  smoothing["targets__smoothing__alpha"] = 0.1
  assert shas(train(tmp_path / "different", **smoothing)) != plain


def test_what_watches_does_not_move(tmp_path, undisturbed):
  """Probes and what evaluation looks at change no parameter."""
  alone = shas(train(tmp_path / "a"))
  assert shas(train(tmp_path / "b", probes={})) == alone
  assert shas(train(tmp_path / "c", evaluation__parameters="average")) == alone


def test_steps_per_dispatch_and_devices_change_rounding_only(tmp_path, monkeypatch):
  train(tmp_path / "a", ensemble__seeds=2)
  train(tmp_path / "b", ensemble__seeds=2, steps_per_dispatch=1)
  assert_close(params(tmp_path / "a", 1), params(tmp_path / "b", 1), 1e-5)
  assert programs.sharding_devices(2, jax.device_count()) == 2
  monkeypatch.setattr(programs, "sharding_devices", lambda members, devices: 1)
  train(tmp_path / "c", ensemble__seeds=2)
  assert_close(params(tmp_path / "a", 1), params(tmp_path / "c", 1), 1e-5)


def test_values_that_cannot_be_traced_get_programs_of_their_own(tmp_path):
  grid = {"dropout": {"path": "model.dropout", "levels": (0.0, 0.5)}, "eta": ETA}
  results = train(tmp_path / "run", ensemble__grid=grid)
  assert [m["cohort"] for m in results["members"]] == [0, 0, 1, 1]
  assert len(set(shas(results))) == 4


@pytest.mark.parametrize(("path", "levels"), [
  ("batch_size", (8, 16)), ("data.label_noise.rate", (0.0, 0.5)), ("data.subset", (64, 32)), ("data.seed", (0, 1)),
])
def test_a_level_that_the_program_does_not_read_gets_its_own_data(tmp_path, path, levels):
  """A batch size or a noise rate traces well as an unknown number, because nothing in the step looks at it."""
  swept = train(tmp_path / "swept", ensemble__grid={"x": {"path": path, "levels": levels}}, probes={})
  alone = train(tmp_path / "alone", **{path.replace(".", "__"): levels[1]}, probes={})
  assert [m["cohort"] for m in swept["members"]] == [0, 1]
  assert shas(swept)[1] == shas(alone)[0] != shas(swept)[0]


def test_levels_out_of_range_are_refused_although_a_trace_cannot_see_them(tmp_path):
  for path, levels in (("gradients.noise.eta", (0.0, -0.01)), ("targets.smoothing.alpha", (0.1, 2.0))):
    with pytest.raises(UserError, match=r"(eta|alpha) is (-0.01|2.0)"):
      train(tmp_path / "run", ensemble__grid={"x": {"path": path, "levels": levels}})


def test_resuming_in_another_order_or_with_another_teacher_is_refused(tmp_path, undisturbed):
  parts = tiny_config()["gradients"]
  swapped = {"noise": parts["noise"], "clip": parts["clip"]}
  with pytest.raises(UserError, match="gradients: order clip, noise -> noise, clip"):
    train(undisturbed[0], **ENSEMBLE, gradients=swapped)
  teacher = {"model": tiny_config()["model"], "run": str(tmp_path / "teacher"), "member": 0, "seed": 0}
  train(tmp_path / "teacher", steps=3)
  train(tmp_path / "student", references={"teacher": teacher})
  shutil.rmtree(tmp_path / "teacher")
  train(tmp_path / "teacher", steps=3, optimizer__learning_rate=0.2)
  with pytest.raises(UserError, match="config.references.teacher has changed since the run"):
    train(tmp_path / "student", references={"teacher": teacher})


def test_a_dead_member_writes_no_numbers_from_then_on(tmp_path):
  """The weight of the loss is infinite at one step: the weights stand still, finite, and must not look alive."""
  spike = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries": (5, 6), "scales": (3e38, 1e-38)}
  losses = {"ce": {"name": "cross_entropy", "weight": spike}}
  results = train(tmp_path / "run", losses=losses, ensemble__seeds=2)
  assert [m["died_at"] for m in results["members"]] == [5, 5]
  rows = [row for row in read_rows(tmp_path / "run" / "metrics.jsonl") if "test/accuracy" in row]
  assert [row["test/accuracy"] is None for row in rows] == [row["step"] > 5 for row in rows]


@dataclasses.dataclass(frozen=True)
class _MatchReference:
  """The squared distance to the logits of a reference, for the tests: a term that reads it."""

  def init(self, spec):
    return {}

  def apply(self, state, ctx):
    return jnp.mean(jnp.square(ctx.outputs.logits - ctx.references["guide"].logits), axis=-1), state


def test_a_term_reads_the_member_of_the_run_that_its_reference_names(tmp_path, monkeypatch):
  monkeypatch.setitem(LOSSES, "match", _MatchReference)
  train(tmp_path / "guide", steps=3, ensemble__seeds=2)
  first_loss = {}
  for member in (0, 1):
    guide = {"model": tiny_config()["model"], "run": str(tmp_path / "guide"), "member": member, "seed": 0}
    losses = {"match": {"name": "match", "weight": 1.0}}
    results = train(tmp_path / f"student{member}", references={"guide": guide}, losses=losses, seed=9, data__seed=0,
                    gradients={}, targets={}, steps=1, log_every=1, batch_size=64, data__label_noise={}, probes={})
    first_loss[member] = results["members"][0]["metrics"]["loss"]
    # The same number by hand: one full batch, so the order does not matter.
    config = plain(tiny_config(data__label_noise={}, seed=9, data__seed=0))
    images = jnp.asarray(data.load(config["data"], ".").train.inputs["image"] / np.float32(255))
    model = models.build(config["model"], num_classes=10)
    start = model.init(rng.stream(jax.random.key(9), "init"), images[:1])
    guide_logits = model.apply(member_variables(tmp_path / "guide", member), images).logits
    by_hand = jnp.mean(jnp.square(model.apply(start, images).logits - guide_logits))
    assert first_loss[member] == pytest.approx(float(by_hand), rel=1e-4)
  assert first_loss[0] != first_loss[1]


def test_averaged_parameters_are_what_evaluation_uses(tmp_path):
  raw = train(tmp_path / "raw")
  averaged = train(tmp_path / "averaged", evaluation__parameters="average")
  assert raw["members"][0]["metrics"]["loss"] == averaged["members"][0]["metrics"]["loss"]
  assert raw["members"][0]["metrics"]["test/loss"] != averaged["members"][0]["metrics"]["test/loss"]


def test_a_reference_is_read_from_a_run_and_never_moves(tmp_path):
  train(tmp_path / "guide", steps=3)
  model = tiny_config()["model"]
  guide = {"model": model, "run": str(tmp_path / "guide"), "member": 0, "seed": 0}
  before = params(tmp_path / "guide")
  with_guide = train(tmp_path / "run", references={"guide": guide})
  assert shas(with_guide) == shas(train(tmp_path / "without"))  # nothing reads it yet
  jax.tree.map(np.testing.assert_array_equal, before, params(tmp_path / "guide"))
  for changed, message in (
    ({**guide, "member": 1}, "member 1 does not exist"),
    ({**guide, "run": str(tmp_path / "none")}, "is not a finished run"),
    ({**guide, "model": {**model, "width": 9}}, "whose network is not the one of"),
    ({**guide, "wrkdir": ""}, "wrkdir does not exist"),
  ):
    with pytest.raises(UserError, match=message):
      train(tmp_path / "bad", references={"guide": changed})


@pytest.mark.parametrize(("changes", "message"), [
  ({"batch_size": 65}, r"config\.batch_size is 65, but the training split of digits has 64 examples"),
  ({"probes__test__split": "tset"}, r"'tset' of digits does not exist"),
  ({"probes__test__split": "validation"}, r"is empty"),
  ({"probes": {"test": {"name": "accuracy", "split": "test", "limit": -1, "every": 4}}}, r"test\.limit is -1"),
  ({"scheduled": {"slope": 1.0}}, r"config\.scheduled\.slope is no argument of the model 'mlp'"),
  ({"optimizer__momentum": "x"}, r"config\.optimizer\.momentum is 'x'"),
  ({"probes__test__every": -1}, r"config\.probes\.test\.every is -1"),
  ({"losses__ce__weight": "big"}, r"config\.losses\.ce\.weight is 'big'"),
  ({"losses__ce__name": "crossentropy"}, r"config\.losses\.ce\.name is 'crossentropy'.*did you mean 'cross_entropy'"),
  ({"model__name": "mpl"}, r"config\.model\.name is 'mpl'.*'mlp'"),
  ({"optimizer__name": "sdg"}, r"did you mean 'sgd'"),
])
def test_mistakes_are_found_before_training(tmp_path, changes, message):
  with pytest.raises(UserError, match=message) as caught:
    train(tmp_path / "run", **changes)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seeds", [1, 2])
def test_few_frames_lie_between_the_command_and_a_loss_term(tmp_path, monkeypatch, seeds):
  """Whoever reads a traceback, or steps through with a debugger, walks this way; docs/architecture.md names them."""
  seen = {}

  @dataclasses.dataclass(frozen=True)
  class Watch:
    def init(self, spec):
      return ()

    def apply(self, state, ctx):
      frames = [frame.name for frame in traceback.extract_stack() if "nurture" in pathlib.Path(frame.filename).parts]
      if "run" in frames and "_steps" in frames:
        seen["frames"] = frames[frames.index("run") :] + ["apply"]
      return jnp.mean(jnp.square(ctx.outputs.logits), axis=-1), state

  monkeypatch.setitem(LOSSES, "watch", Watch)
  losses = {"watch": {"name": "watch", "weight": 1.0}}
  training.run(tiny_config(losses=losses, probes={}, steps=2, ensemble__seeds=seeds), tmp_path / "run")
  assert len(seen["frames"]) <= 12, seen["frames"]


def test_chunks_share_programs_and_what_lies_on_the_devices_goes_before_the_next(tmp_path, monkeypatch):
  made, events = [], []
  init, release = programs.Programs.__init__, programs.Programs.release

  def noted_init(self, *args):
    events.append("made")
    init(self, *args)
    made.append(self)

  def noted_release(self):
    assert "fields" in self.__dict__
    release(self)
    assert not {"fields", "arrays", "probes"} & set(self.__dict__)
    events.append("released")

  monkeypatch.setattr(programs.Programs, "__init__", noted_init)
  monkeypatch.setattr(programs.Programs, "release", noted_release)
  grid = {"net": {"path": "model.depth", "levels": (1, 2)}}
  config = tiny_config(steps=2, ensemble__grid=grid, ensemble__seeds=3, ensemble__chunk=1, probes={})
  assert len({m["cohort"] for m in training.run(config, tmp_path / "run")["members"]}) == 6
  assert events == ["made", "released", "made"] and [p.experiment.config["model"]["depth"] for p in made] == [1, 2]
