"""Each file of a run directory by the place of its mistake, and what the sentence says."""

import json

import pytest

from nurture import reporting
from nurture.core import UserError
from nurture.reporting.schema import COUNT, NUMBER, Each, Optional, mismatch
from tests.literal_run import CONFIG, member, write_run

ROWS = [{"step": step, "member": m, "loss": 0.5} for step in (0, 100) for m in range(4)]


@pytest.fixture
def directory(tmp_path):
  return write_run(tmp_path / "run", [
    member(seed, {"eta": eta}, died_at=5 if (eta, seed) == (0.1, 1) else None, loss=None if eta and seed else 0.5)
    for eta in (0.0, 0.1) for seed in range(2)
  ], ROWS)


def change(path, *place, to=None, drop=False):
  value = inner = json.loads(path.read_text())
  for name in place[:-1]:
    inner = inner[name]
  if drop:
    del inner[place[-1]]
  else:
    inner[place[-1]] = to
  path.write_text(json.dumps(value))


def test_a_whole_run_is_read_as_it_was_written(directory):
  results = reporting.read_results(directory)
  assert [g["label"] for g in results["groups"]] == ["eta=0.0", "eta=0.1"]
  assert results["groups"][1]["dead"] == [3] and results["groups"][1]["metrics"]["loss"]["dead"] == 1
  assert reporting.read_config(directory, unchanged=True) == CONFIG
  assert [m["seed"] for m in reporting.read_manifest(directory)["members"]] == [0, 1, 0, 1]
  assert len(reporting.read_rows(directory / "metrics.jsonl")) == 8


def test_a_member_that_died_before_the_first_step_is_dead(directory):
  change(directory / "results.json", "members", 3, "died_at", to=0)
  assert reporting.read_results(directory)["members"][3]["died_at"] == 0


ANEW = "; give the --workdir of a finished experiments.train; where it is one, run its command again, which writes it "
ANEW += "anew."


@pytest.mark.parametrize("place, how, found", [
  (("groups",), {"drop": True}, ": groups is missing"),
  (("groups",), {"to": {"ELR": 1}}, ': groups is an object of "ELR", but needs a list'),
  (("groups", 1, "metrics", "loss", "mean"), {"to": "low"},
   ': groups[1].metrics.loss.mean is "low", but needs a number or null'),
  (("members", 2, "values", "eta"), {"to": [0.1]},
   ": members[2].values.eta is a list of 1, but needs a number, text, true or false"),
  (("members", 0, "seed"), {"to": True}, ": members[0].seed is true, but needs a whole number of at least 0"),
  (("members", 0, "seed"), {"to": 2**63}, ": members[0].seed is 9223372036854775808, but needs"),
  (("members", 0, "died_at"), {"to": -1}, ": members[0].died_at is -1, but needs a whole number of at least 0 or null"),
  (("members", 0, "metrics", "test/loss"), {"to": {}},
   ': members[0].metrics["test/loss"] is an object of no fields, but needs a number, null, text or a list of these'),
  (("groups", 0, "label"), {"to": "x" * 100}, None),
  (("steps",), {"to": "1" * 100}, f': steps is "{"1" * 38}…, but needs'),
  (("members",), {"to": []}, " contradicts itself: members is empty"),
  (("members", 1, "member"), {"to": 2}, " contradicts itself: members[1].member is 2, but needs 1"),
  (("groups", 1, "label"), {"to": "eta=0.0"}, ' contradicts itself: two groups have the label "eta=0.0"'),
  (("groups", 0, "members"), {"to": [0]}, " contradicts itself: not every member stands in exactly one of the groups"),
  (("groups", 0, "members"), {"to": [0, 1, 1]}, " contradicts itself: not every member"),
  (("groups", 0, "values"), {"to": {}}, " contradicts itself: groups[0] has member 0, which stands elsewhere in"),
  (("members", 1, "seed"), {"to": 0}, " contradicts itself: groups[0] has two members of one seed, which are no repl"),
  (("groups", 1, "dead"), {"to": []}, " contradicts itself: groups[1].dead does not name the members that have a died"),
  (("members", 0, "died_at"), {"to": 5}, " contradicts itself: groups[0].dead does not name"),
  (("groups", 0, "metrics", "loss", "n"), {"to": 3}, " contradicts itself: groups[0].metrics.loss is no mean of its n"),
  (("groups", 0, "metrics", "loss", "n"), {"to": 0}, " contradicts itself: groups[0].metrics.loss is no mean of its n"),
  (("groups", 0, "metrics", "loss", "mean"), {"to": None}, " contradicts itself: groups[0].metrics.loss is no mean"),
])
def test_the_place_in_results(directory, place, how, found):
  path = directory / "results.json"
  change(path, *place, **how)
  if found is None:
    assert reporting.read_results(directory)["groups"][0]["label"] == "x" * 100
    return
  with pytest.raises(UserError) as error:
    reporting.read_results(directory)
  assert str(error.value).startswith(f"{path}{found}") and str(error.value).endswith(ANEW)


RESTORE = "; restore the file from a copy, or train again with another --workdir."


@pytest.mark.parametrize("text, found", [
  ("", " is empty"), (" \n", " is empty"), ("{", " is not JSON (Expecting property name"),
  ("[]", ": all of it is a list of 0, but needs an object {...}"),
  ("3", ": all of it is 3, but needs an object {...}"), ('{"b": 0, "a": 1, "a": 2}', ' has "a" twice in one object'),
  ('{"a": NaN}', " is not JSON (NaN is no number there; null stands for it)"),
  ('{"a": -1e999}', " has a number that is too large for a float"),
  ("[" * 100_000, " is nested more than 100 levels deep"),
  ("[" * 101 + "]" * 101, " is nested more than 100 levels deep"),
  ("9" * 5000, " is not JSON as it is written here (a number has thousands of digits)"),
  ('{"\\udc00": 1}', " has text with half a surrogate pair"), ('["\\ud800"]', " has text with half a surrogate pair"),
])
def test_json_that_is_none(directory, text, found):
  for name, read in (("config.json", reporting.read_config), ("manifest.json", reporting.read_manifest)):
    path = directory / name
    path.write_text(text)
    with pytest.raises(UserError) as error:
      read(directory)
    assert str(error.value).startswith(f"{path}{found}") and str(error.value).endswith(RESTORE)


def test_what_json_may_hold(directory):
  path = directory / "x.json"
  for text, value in (('{"ä": "\\ud83d\\ude00"}', {"ä": "😀"}), ("\ufeff3", 3), ("1e308", 1e308), ("null", None)):
    path.write_text(text)
    assert reporting.read_json(path) == value
  path.write_text("[" * 99 + "[0.5]" + "]" * 99)
  reporting.read_json(path)


def test_members_of_a_manifest_are_numbered(directory):
  change(directory / "manifest.json", "members", 2, "member", to=3)
  with pytest.raises(UserError, match=r"manifest\.json contradicts itself: members\[2\]\.member is 3, but needs 2; re"):
    reporting.read_manifest(directory)


def test_a_config_that_was_changed(directory):
  path = directory / "config.json"
  change(path, "steps", to=99)
  assert reporting.read_config(directory)["steps"] == 99
  with pytest.raises(UserError, match=r"config\.json is not the config that the run had by its manifest\.json; re"):
    reporting.read_config(directory, unchanged=True)
  reporting.start(directory, {"config_sha256": reporting.run_directory.digest(json.loads(path.read_text()))})
  assert reporting.read_config(directory, unchanged=True)["steps"] == 99  # a resume has noted it
  with pytest.raises(UserError, match=r"config\.json: model is missing; give another run\.$"):
    reporting.read_config(directory, {"model": {}}, fix="give another run")


@pytest.mark.parametrize("line, found", [
  ("3", "is no row of metrics (all of it is 3, but needs an object {...})"),
  ('{"step": 1, "cohort": 0}', "is no row of metrics (member is missing)"),
  ('{"step": 1.5, "cohort": 0, "member": 0}', "is no row of metrics (step is 1.5, but needs a whole number of"),
  ('{"step": 1, "cohort": 0, "member": 0, "test/loss": {}}', 'is no row of metrics (["test/loss"] is an object of no'),
  ('{"step": 1, "step": 2, "cohort": 0, "member": 0}', 'has "step" twice in one object'),
  ('{"step": 1, "cohort": 0, "member": 0, "loss": NaN}', "is not JSON (NaN is no number there"),
])
@pytest.mark.parametrize("last", [False, True])
def test_a_line_that_is_no_row(directory, line, found, last):
  path = directory / "metrics.jsonl"
  lines = path.read_text().splitlines()
  path.write_text("\n".join([*lines[:2], line, *([] if last else lines[3:])]))
  with pytest.raises(UserError) as error:
    reporting.read_rows(path)
  assert str(error.value).startswith(f"{path}, line 3 {found}") and str(error.value).endswith(RESTORE)


def test_what_a_kill_leaves_at_the_end_is_no_damage(directory):
  path = directory / "metrics.jsonl"
  whole = path.read_bytes()
  for cut in range(1, len(whole.splitlines()[-1]) + 1):
    path.write_bytes(whole[:-cut])
    assert len(reporting.read_rows(path)) == (8 if cut == 1 else 7)
  path.write_bytes(whole + b"\0" * 100)
  assert len(reporting.read_rows(path)) == 8


def test_a_history_that_is_none_stops_a_run_before_it_writes(directory):
  path = directory / "manifest.json"
  change(path, "history", to=[{"event": 3}])
  before = path.read_bytes()
  for write in (lambda: reporting.start(directory, {}), lambda: reporting.stop(directory, "finished", 1, 1.0)):
    with pytest.raises(UserError, match=r"manifest\.json: history\[0\]\.event is 3, but needs text; restore the file"):
      write()
  assert path.read_bytes() == before


@pytest.mark.parametrize("value, shape, found", [
  (0, COUNT, None), (2**63 - 1, COUNT, None), (1.0, COUNT, "x is 1.0, but needs a whole number of at least 0"),
  (0, NUMBER, None), (False, NUMBER, "x is false, but needs a number"), (10**400, NUMBER, "x is 1000"),
  (-1.7e308, NUMBER, None), ([1, 2], [NUMBER], None), ([1, "a"], [NUMBER], 'x[1] is "a", but needs a number'),
  ({}, {"a": NUMBER}, "x.a is missing"), ({}, {"a": Optional(NUMBER)}, None), ({"a": 1, "b": "c"}, {"a": NUMBER}, None),
  ({"a": "b"}, {"a": Optional(NUMBER)}, 'x.a is "b"'), ({"a": 1, "b c": None}, Each(NUMBER), 'x["b c"] is null'),
  ({"a": [1, None]}, Each([NUMBER]), "x.a[1] is null"), (3, Each(NUMBER), "x is 3, but needs an object {...}"),
  ("y" * 38, NUMBER, f'x is "{"y" * 38}", but needs'), ("y" * 39, NUMBER, f'x is "{"y" * 38}…, but needs'),
  ({"a": {}, "b": {}, "c": {}, "d": {}}, NUMBER, 'x is an object of "a", "b", "c", …, but'),
])
def test_shapes(value, shape, found):
  got = mismatch(value, shape, "x")
  assert got is None if found is None else got.startswith(found)
