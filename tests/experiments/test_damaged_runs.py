"""A run directory damaged at every place in every way: each reader answers with one sentence, or as before."""

import functools
import json
import re

import numpy as np
import pytest

from experiments import report
from experiments.studies import distillation_table, gradient_noise, gradient_noise_table, projection
from nurture import reporting
from nurture.core import UserError
from nurture.training.config import to_json
from tests.literal_run import member, write_run
from tests.tiny import tiny_config

GRID = {
  "eta": {"path": "gradients.noise.eta", "levels": (0.0, 0.01)},
  "lr": {"path": "optimizer.learning_rate", "levels": (0.1, 0.2)},
}
CONFIG = to_json(tiny_config(ensemble__grid=GRID))
DEAD = 1
METRIC, STD = "test/accuracy", "weights/dense_00/kernel/std"

# What is put in the place of a value, as text of JSON; "twice" doubles the first name of an object.
TOKENS = (
  "null", "true", '"text"', "-1", "1.5", "7", "1e999", "NaN", "9" * 400, "9" * 5000, '"\\ud800"', "[]", "{}", "[[0]]",
  '{"a": 0}', "[" * 150 + "]" * 150,
)
KINDS = (*TOKENS, "missing", "twice")
BYTES = {
  "empty": lambda data: b"",
  "blank": lambda data: b"\n\n",
  "cut": lambda data: data[: len(data) // 2],
  "zeros": lambda data: b"\0" * len(data),
  "latin": lambda data: data.replace(b'"', b"\xe9", 1),
  "utf-16": lambda data: data.decode().encode("utf-16-le")[1:],
  "nested": lambda data: b"[" * 100_000,
  "two": lambda data: data + data,
  "other": lambda data: b"3",
}


@functools.cache
def members():
  return [
    member(0, {"eta": eta, "lr": lr}, died_at=3 if 2 * i + j == DEAD else None,
           **{METRIC: None if 2 * i + j == DEAD else 0.1 * (i + 2 * j), "loss": 1.0, "per_class": [0.5, None]})
    for i, eta in enumerate((0.0, 0.01)) for j, lr in enumerate((0.1, 0.2))
  ]


def write(directory):
  rows = [
    {"step": step, "member": m, "loss": 1 / (1 + step), METRIC: None if m == DEAD else 0.1 * m, STD: 0.01 * step}
    for step in (0, 6, 12) for m in range(4)
  ]
  return write_run(directory, members(), rows, CONFIG)


def reported(directory):
  run = report.read_run(directory, "run")
  metrics, _ = report.choose_metrics([run], [])
  return report.table_of([run], metrics), repr([report.panel_of([run], metric) for metric in metrics]), run.note


def tuned(directory):
  arms = reporting.read_arms([directory], ["lr"], [])
  chosen = {label: reporting.choose_levels(inside, ["lr"], METRIC) for label, inside in arms.items()}
  return [
    (level, edge, [m["member"] for m in best], reporting.summarize_crossed(best, METRIC, ["lr"]))
    for level, edge, best in chosen.values()
  ]


def interactions(directory):
  inside = [m | {"died_at": None} for m in reporting.read_results(directory)["members"]]  # it needs one whole seed
  axes, values = reporting.responses(inside, "loss")
  return axes, repr(reporting.effects(values))


def walk(directory):
  walks, rows = gradient_noise.read(directory)
  return repr([
    (each, reporting.series(rows, STD, each.members), gradient_noise.ratios_before_escape(
      rows, each.members, STD, lambda steps, each=each: np.maximum(each.law(steps), 1e-9)
    )) for each in walks
  ])


def unfinished(directory):
  (directory / "results.json").unlink(missing_ok=True)
  return reported(directory)


def described(directory):
  return projection.read(directory, 0)


def manifest(directory):
  return reporting.read_manifest(directory)["checksums"]


READERS = {
  "results.json": (reported, tuned, interactions, walk, described),
  "manifest.json": (unfinished, manifest, described),
  "config.json": (unfinished, walk, described),
  "metrics.jsonl": (reported, unfinished, walk),
}


def places(value, path=()):
  """Yields the path of every value; of lists, of the first two elements."""
  yield path
  if isinstance(value, dict):
    for name, inner in value.items():
      yield from places(inner, (*path, name))
  if isinstance(value, list):
    for i, inner in enumerate(value[:2]):
      yield from places(inner, (*path, i))


def damaged(value, path, kind):
  """Returns the text of a value with the one at a path damaged; None where that kind of damage cannot be."""
  if not path:
    if kind == "twice":
      return json.dumps({"<again>": 0} | value).replace("<again>", next(iter(value))) if value and isinstance(
        value, dict) else None
    return None if kind == "missing" else kind
  copy = dict(value) if isinstance(value, dict) else list(value)
  if kind == "missing" and len(path) == 1:
    del copy[path[0]]
    return json.dumps(copy)
  inner = damaged(value[path[0]], path[1:], kind)
  if inner is None:
    return None
  copy[path[0]] = "<here>"
  return json.dumps(copy).replace('"<here>"', inner)


def outcome(reader, directory):
  """Returns (result, None) or (None, sentence); everything but a UserError is raised."""
  try:
    return repr(reader(directory)), None
  except UserError as error:
    assert str(error).endswith(".") and "\n" not in str(error)
    assert re.search(r"run/\w+\.jsonl?|member \d|the grid", str(error)), error
    return None, str(error)


def is_legitimate(file, path, kind):
  """Whether the new value may stand there as well: another number, level or metric is another run."""
  names = [part for part in path if isinstance(part, str)]
  if file == "metrics.jsonl":
    return names[-1:] in (["step"], ["member"], [STD], [METRIC], ["loss"]) or not names
  if path[-1:] == ("seed",) or path[-1:] == ("cohort",) or path == ("checksums",):
    return kind in ("7", "{}")
  if "checksums" in names:
    return kind in ('"text"', "missing")
  if file == "config.json":
    return path[-1] in ("steps", "eta", "gamma", "learning_rate") or names[:2] == ["report", "metrics"]
  return bool(names) and (names[0] == "steps" or "metrics" in names or "values" in names or names[-1] == "label")


def damages(value, one_of):
  """Yields (path, kind, text) of one in `one_of` damages: all places, all kinds, and their pairs in turn."""
  for i, path in enumerate(places(value)):
    for j, kind in enumerate(KINDS):
      if (i + j) % one_of == 0 and (text := damaged(value, path, kind)) is not None:
        yield path, kind, text


@pytest.mark.parametrize("file", READERS)
def test_one_value_of_a_file(tmp_path, file):
  directory = write(tmp_path / "run")
  original = (directory / file).read_text()
  finished = (directory / "results.json").read_bytes()
  rows = file.endswith("l")
  value = json.loads(original.splitlines()[5] if rows else original)
  for reader in READERS[file]:
    (directory / "results.json").write_bytes(finished)
    before, error = outcome(reader, directory)
    assert error is None
    sentences = 0
    for path, kind, text in damages(value, 3 if rows else 7):
      (directory / "results.json").write_bytes(finished)
      if rows:
        lines = original.splitlines()
        text = "\n".join([*lines[:5], text, *lines[6:], ""])
      (directory / file).write_text(text)
      after, error = outcome(reader, directory)
      sentences += error is not None
      assert error or after == before or is_legitimate(file, path, kind), (reader, path, kind, after)
    assert sentences > 5
    (directory / file).write_text(original)


@pytest.mark.parametrize("file", READERS)
def test_the_bytes_of_a_file(tmp_path, file):
  directory = write(tmp_path / "run")
  original, finished = (directory / file).read_bytes(), (directory / "results.json").read_bytes()
  for reader in READERS[file]:
    for kind, change in BYTES.items():
      (directory / "results.json").write_bytes(finished)
      (directory / file).write_bytes(change(original))
      _, error = outcome(reader, directory)
      if file != "metrics.jsonl" or kind in ("latin", "other"):  # rows may be fewer, and a last half line is no damage
        assert error, kind
    (directory / file).write_bytes(original)


def small(directory, values):
  return write_run(directory, [member(seed, values, **{METRIC: 0.5, "v": 0.25}) for seed in range(2)])


@pytest.mark.parametrize("values, reader", [
  ({"row": "6 zero", "eta": 0.01, "lr": 0.1},
   lambda directory: gradient_noise_table.cells_of(reporting.read_results(directory)["members"], "run")),
  ({"teacher": "plain, teacher 0", "T": 1.0, "lr": 0.1},
   lambda directory: distillation_table.students_of(reporting.read_results(directory)["members"], ["v", METRIC])),
], ids=["gradient_noise_table", "distillation_table"])
def test_tables_of_one_study(tmp_path, values, reader):
  directory = small(tmp_path / "run", values)
  value = json.loads((directory / "results.json").read_text())
  before, _ = outcome(reader, directory)
  for path, kind, text in damages(value, 3):
    (directory / "results.json").write_text(text)
    after, error = outcome(reader, directory)
    assert error or after == before or is_legitimate("results.json", path, kind), (path, kind)
