"""Any field that a row has can be set and taken out from the command line, whether the config lists it or not."""

import pathlib
from collections.abc import Mapping
from typing import Literal

import pytest

from configs import base, quickstart
from nurture.core import UserError
from nurture.core.hints import Memory, NonNegative
from nurture.terminal import apply
from nurture.terminal.values import literal, parsed
from nurture.training import places
from nurture.training.config import differences, plain, to_json
from nurture.training.grid import members_of

FILE = pathlib.Path("configs/base.py")


def changed(*words, config=None):
  """Returns the config of a command line, as plain dicts."""
  config = config or base.get_config()
  rest = apply("config", ["program", f"--config={FILE}", *words], config, FILE, places.ROOT)
  assert rest[:2] == ["program", f"--config={FILE}"] and config.is_locked
  return plain(config)


@pytest.mark.parametrize(("words", "wanted"), [
  (["optimizer.nesterov=true"], {"optimizer.nesterov": True}),
  (["optimizer.momentum=None"], {"optimizer.momentum": None}),
  (["optimizer.decay=matrices"], {"optimizer.decay": "matrices"}),
  (["optimizer.name=adamw", "optimizer.weight_decay=1"], {"optimizer.name": "adamw", "optimizer.weight_decay": 1.0}),
  (["probes.sharp.name=sharpness", "probes.sharp.every=10", "probes.sharp.top=3"],
   {"probes.sharp": {"name": "sharpness", "every": 10, "top": 3}}),
  (["losses.elr.name=elr", "losses.elr.weight=1", "losses.elr.lam=2"],
   {"losses.elr": {"name": "elr", "weight": 1.0, "lam": 2.0}}),
  (["losses.ce.stop_step=5"], {"losses.ce.stop_step": 5}),
  (["losses.ce.weight.name=step_ramp", "losses.ce.weight.steps=5"],
   {"losses.ce.weight": {"name": "step_ramp", "steps": 5.0}}),
  (["losses.ce.weight={'name': 'step_ramp', 'steps': 5}"], {"losses.ce.weight": {"name": "step_ramp", "steps": 5}}),
  (["optimizer.learning_rate.name=cosine_decay_schedule", "optimizer.learning_rate.init_value=1"],
   {"optimizer.learning_rate": {"name": "cosine_decay_schedule", "init_value": 1.0}}),
  (["model.norm=batch", "model.dropout=0.5"], {"model.norm": "batch", "model.dropout": 0.5}),
  (['model={"name": "cnn", "layers": [["conv", 2, 3]], "bias": true}'],
   {"model": {"name": "cnn", "layers": (("conv", 2, 3),), "bias": True}}),
  (["data.source=mnist", "data.source.test_examples=9"], {"data.source": {"name": "mnist", "test_examples": 9}}),
  (["data.source.name=tfds:mnist", "data.source.resize=9"], {"data.source": {"name": "tfds:mnist", "resize": 9}}),
  (["data.normalize_labels=standardize"], {"data.normalize_labels": "standardize"}),
  (["data.augment.flip.name=flip", "data.augment.flip.start_step=3"],
   {"data.augment.flip": {"name": "flip", "start_step": 3}}),
  (["references.mean.parameters=ema"], {"references.mean": {"parameters": "ema"}}),
  (["references.guide.model.name=mlp", "references.guide.model.depth=1", "references.guide.seed=3"],
   {"references.guide": {"model": {"name": "mlp", "depth": 1}, "seed": 3}}),
  (["init.run=runs/a", "init.step=best", "init.reinitialize=head"],
   {"init": {"run": "runs/a", "step": "best", "reinitialize": ("head",)}}),
  (["checkpoint.best.metric=loss", "checkpoint.best.mode=min"], {"checkpoint.best": {"metric": "loss", "mode": "min"}}),
  (["stopping={'metric': 'loss', 'mode': 'min'}", "stopping.patience=3"],
   {"stopping": {"metric": "loss", "mode": "min", "patience": 3}}),
  (["scheduled.lam=0.5"], {"scheduled.lam": 0.5}),
  (["report.metrics=loss,test/accuracy"], {"report.metrics": ("loss", "test/accuracy")}),
  (["report.metrics=a", "report.metrics=b"], {"report.metrics": ("a", "b")}),
  (["report.metrics[1]=loss/ce"], {"report.metrics": ("test/accuracy", "loss/ce")}),
  (["seed=3"], {"seed": 3, "data.seed": 3}),
  (["losses.own.name=optax:adam", "losses.own.b1=0.5"], {"losses.own": {"name": "optax:adam", "b1": 0.5}}),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_any_field_of_a_row_can_be_set(words, wanted):
  config = changed(*(f"--config.{word}" for word in words))
  expected = plain(base.get_config())
  for path, value in wanted.items():
    *parents, last = path.split(".")
    inner = expected
    for name in parents:
      inner = inner[name]
    inner[last] = value
  assert not differences(to_json(expected), to_json(config))
  assert repr(config) == repr(expected)  # types and the order too


def test_an_element_keeps_its_type():
  with pytest.raises(UserError, match=r"--config.ensemble.grid.method.levels\[1\]\[0\]=much needs a number, because"):
    changed("--config.ensemble.grid.method.levels[1][0]=much", config=quickstart.get_config())


def test_a_new_part_stands_last():
  config = changed("--config.losses.a.name=elr", "--config.losses.a.weight=1.0")
  assert list(config["losses"]) == ["ce", "a"]


@pytest.mark.parametrize(("words", "gone"), [
  (["--remove=probes.test"], "probes.test"),
  (["--remove", "config.optimizer.momentum"], "optimizer.momentum"),
  (["--config.losses.elr.name=elr", "--config.losses.elr.lam=3", "--remove=losses.elr.lam"], "losses.elr.lam"),
  (["--config.model.norm=layer", "--remove=model", "--config.model={'name': 'vit'}"], "model.norm"),
])
def test_a_field_or_a_part_can_be_taken_out(words, gone):
  inner = changed(*words)
  *parents, last = gone.split(".")
  for name in parents:
    inner = inner[name]
  assert last not in inner


def test_what_was_taken_out_can_be_set_again():
  config = changed("--remove=losses.ce", "--config.losses.ce.name=mse", "--config.losses.ce.weight=1.0")
  assert config["losses"] == {"ce": {"name": "mse", "weight": 1.0}}


@pytest.mark.parametrize(("words", "points"), [
  (["lr.path=optimizer.learning_rate", "lr.levels=0.1,1"], [{"lr": 0.1}, {"lr": 1}]),
  (["act.path=model.activation", "act.levels=relu,tanh"], [{"act": "relu"}, {"act": "tanh"}]),
  (["size.path=('model.depth','model.width')", "size.levels=(1,8),(2,4)", "size.names=wide,deep"],
   [{"size": "wide"}, {"size": "deep"}]),
])
def test_an_axis_can_be_swept_from_the_command_line(words, points):
  config = changed(*(f"--config.ensemble.grid.{word}" for word in words))
  assert [dict(member.values) for member in members_of(config)] == points


def test_arms_can_be_swept_from_the_command_line():
  arms = "{'ce': {}, 'half': {'set': (('losses.ce.weight', 0.5),)}}"
  points = [(dict(m.values), dict(m.assignments)) for m in members_of(changed(f"--config.ensemble.grid.m.arms={arms}"))]
  assert points == [({"m": "ce"}, {}), ({"m": "half"}, {"losses.ce.weight": 0.5})]


def test_a_config_without_an_optional_section_can_get_it():
  config = base.get_config()
  with config.unlocked():
    del config["stopping"]
  assert changed("--config.stopping.patience=3", config=config)["stopping"] == {"patience": 3}


def test_an_axis_can_be_changed_in_one_place():
  config = changed("--config.ensemble.grid.method.names[1]=noisy", "--config.ensemble.grid.method.levels[1][0]=1",
                   config=quickstart.get_config())
  method = config["ensemble"]["grid"]["method"]
  assert method["names"][:2] == ("plain", "noisy") and method["levels"][1] == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(("words", "message"), [
  (["optimizer.momentun=0.9"], "--config.optimizer.momentun does not exist for 'sgd'; did you mean 'momentum'? (known: "
   "accumulator_dtype, decay, learning_rate, momentum, name, nesterov)."),
  (["optimizer.nesterov=5"], "--config.optimizer.nesterov=5 needs true or false."),
  (["optimizer.momentum=much"], "--config.optimizer.momentum=much needs a number or nothing."),
  (["probes.test.limits=5"], "does not exist for 'accuracy'; did you mean 'limit'?"),
  (["probes.sharp.top=3"], "known: test; of a new part, give --config.probes.sharp.name=ROW first."),
  (["probes.sharp.name=sharpnes", "probes.sharp.top=3"],
   "config.probes.sharp.name is 'sharpnes', which does not exist; did you mean 'sharpness'?"),
  (["probes.test=none"], "--config.probes.test=none needs a dict; write --remove=probes.test to take it out."),
  (["probes.sharp=3"], "--config.probes.sharp=3 needs a dict."),
  (["model.depth.x=3"], "config.model.depth is 2, which has no fields."),
  (["model.norm=bach"], "--config.model.norm=bach needs one of 'none', 'batch', 'layer'."),
  (["data.normalise=unit"], "did you mean 'normalize'?"),
  (["evaluation.batchsize=3"], "did you mean 'batch_size'?"),
  (["stopping.patients=3"], "did you mean 'patience'?"),
  (["ensemble.grid.m={'arms': {'A': {'set': {'losses.ce.weight': 1}}}}"], "does not accept dots"),
  (["los.x=3"], "--config.los.x does not exist in configs/base.py"),
  (["optimizer.learning_rate=fast"], "--config.optimizer.learning_rate=fast needs a number or a dict."),
  (["optimizer.learning_rate.decay_steps=3"], "config.optimizer.learning_rate is 0.05, which has no fields."),
  (["losses.own.name=nowhere:Loss", "losses.own.lam=2"], "nowhere cannot be imported"),
  (["model.depth]=3"], "--config.model.depth] does not exist for 'mlp'; did you mean 'depth'?"),
  (["report.metrics[0][1]=x"], "--config.report.metrics[0][1] does not exist, what stands there is 'test/accuracy'"),
  (["report.metrics[]=x"], "what stands there has 2 elements, from 0"),
  (["model={'name': 3}", "model.depth=3"], "config.model.name is 3, which does not exist"),
  (["model.=3"], "--config.model. does not exist for 'mlp'"),
  ([".x=3"], "--config..x does not exist"),
  (["ensemble.grid.lr.level=0.1"], "did you mean 'levels'?"),
])
def test_a_mistake_is_one_sentence_with_the_known_fields(words, message):
  with pytest.raises(UserError) as error:
    changed(*(f"--config.{word}" for word in words))
  assert message in str(error.value) and "\n" not in str(error.value) and str(error.value).endswith(".")


@pytest.mark.parametrize(("text", "hint", "value"), [
  ("3", int, 3), ("3", float, 3.0), ("1e-3", NonNegative, 1e-3), ("inf", float, float("inf")), ("true", bool, True),
  ("0", bool, False), ("3", str, "3"), ("None", str, "None"), ("None", Memory | None, None),
  ("0.5", Memory | None, 0.5),
  ("relu", str | float, "relu"), ("0.5", str | float, 0.5), ("hard", Literal["hard", "soft"], "hard"),
  ("3", int | Literal["all"], 3), ("all", int | Literal["all"], "all"), ("a,b", tuple, ("a", "b")),
  ("(1, (2, x))", tuple, (1, (2, "x"))), ("[1, 2]", tuple[int, ...], (1, 2)), ("a/b", tuple, ("a/b",)),
  ("dense", str | tuple[str, ...], "dense"), ("a,b", str | tuple[str, ...], ("a", "b")), ("()", tuple, ()),
  ("{'a': 1}", float | Mapping, {"a": 1}), ("{name: x, on: true}", Mapping, {"name": "x", "on": True}),
  ('{"a": null, "b": [false]}', Mapping, {"a": None, "b": [False]}),
])
def test_a_text_becomes_a_value_of_the_type_of_the_field(text, hint, value):
  found = parsed(text, hint)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("text", "hint"), [
  ("x", int), ("1.5", int), ("x", float), ("", float), ("2", bool), ("x", Literal["a"]), ("(1, x)", tuple[int, ...]),
  ("x", Mapping), ("{", Mapping), ("none", Memory | None), ("{'a': 1}", float), ("f()", Mapping),
])
def test_a_text_of_another_type_is_refused(text, hint):
  with pytest.raises(ValueError):
    parsed(text, hint)


def test_a_literal_runs_no_code():
  with pytest.raises(ValueError):
    literal("__import__('os').getcwd()")
