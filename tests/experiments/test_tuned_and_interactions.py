"""Studies over the members of finished runs: the best level of each arm, and effects of a factorial design."""

import pathlib
import subprocess
import sys
import types

import numpy as np
import pytest

from experiments import interactions, tuned
from nurture import reporting
from nurture.core import UserError
from tests.literal_run import member, results_of, write_run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def study():
  """Arm b is best at lr 0.1 by validation, though not on the test set; a guide axis makes replicates."""
  validation = {("a", 0.1): 0.5, ("a", 1.0): 0.3, ("b", 0.1): 0.2, ("b", 1.0): 0.9, ("a", 10.0): 0.1, ("b", 10.0): 0.8}
  return [
    member(seed, {"arm": arm, "lr": lr, "guide": guide}, died_at=3 if lr == 10.0 and seed == 0 else None,
           **{"validation/loss": loss + 0.01 * seed, "test/accuracy": 1 - loss if arm == "a" else loss})
    for (arm, lr), loss in validation.items() for guide in (0, 1) for seed in (0, 1)
  ]


def test_the_level_is_chosen_on_the_validation_split(tmp_path):
  arms = reporting.read_arms([write_run(tmp_path / "run", study())], ["lr"], ["guide"])
  assert {label: len(members) for label, members in arms.items()} == {"a": 12, "b": 12}
  levels, edges, members = reporting.choose_levels(arms["a"], ["lr"], "validation/loss")
  assert (levels, edges, len(members)) == ({"lr": 1.0}, (), 4)  # at 10 it would be lower, but members died there
  assert reporting.choose_levels(arms["b"], ["lr"], "validation/loss")[:2] == ({"lr": 0.1}, ("lr",))
  assert reporting.choose_levels(arms["b"], ["lr"], "test/accuracy").levels == {"lr": 1.0}  # no loss: the largest


def test_replicates_that_share_seeds_are_not_independent():
  crossed = lambda value: [
    member(seed, {"guide": guide}, y=value(seed, guide)) for guide in range(3) for seed in range(5)
  ]
  draws = np.random.default_rng(0).standard_normal((3, 5))
  plain = lambda values: np.std(values, ddof=1) / np.sqrt(np.size(values))
  of = lambda members, pool: reporting.summarize_crossed(members, "y", pool)
  only_seeds = of(crossed(lambda seed, guide: draws[0, seed]), ["guide"])  # guides add nothing: five values, not 15
  np.testing.assert_allclose(only_seeds["sem"], plain(draws[0]), rtol=1e-6)
  only_guides = of(crossed(lambda seed, guide: draws[guide, 0]), ["guide"])
  np.testing.assert_allclose(only_guides["sem"], plain(draws[:, 0]), rtol=1e-6)
  assert only_guides["n"] == 15
  independent = of(crossed(lambda seed, guide: draws[guide, seed]), ["guide"])
  assert 0.4 * plain(draws) < independent["sem"] < 2.5 * plain(draws)
  assert of(crossed(lambda seed, guide: draws[guide, seed]), [])["n"] == 15
  alone = [member(seed, {}, y=draws[0, seed]) for seed in range(5)]
  np.testing.assert_allclose(of(alone, ["guide"])["sem"], plain(draws[0]))


@pytest.mark.parametrize("over, by, words", [
  ("rate", "validation/loss", "no axis 'rate' in its grid; .*known: arm, guide, lr"),
  ("lr", "validation/accuracy", "member 0 has no metric 'validation/accuracy'; did you mean"),
])
def test_mistakes_of_tuned_are_sentences(over, by, words, tmp_path):
  directory = write_run(tmp_path / "run", study())
  with pytest.raises(UserError, match=words):
    for members in reporting.read_arms([directory], [over], []).values():
      reporting.choose_levels(members, [over], by)
  with pytest.raises(UserError, match="not a finished run"):
    reporting.read_arms([tmp_path], [over], [])


def factorial(response, seeds=3):
  levels = {"x": ("off", "on"), "y": (0.0, 2.5), "z": (0, 1)}
  return results_of([
    member(seed, {"x": levels["x"][x], "y": levels["y"][y], "z": levels["z"][z]}, metric=response(x, y, z, seed))
    for x in (0, 1) for y in (0, 1) for z in (0, 1) for seed in range(seeds)
  ])["members"]


def test_effects_of_a_known_response():
  """4 x + 6 y z + seed: x adds 4, y and z add 3 each on average, and each raises what the other does by 6 = 2 * 3."""
  axes, values = reporting.responses(factorial(lambda x, y, z, seed: 4 * x + 6 * y * z + 10 * seed), "metric")
  assert axes == ["x", "y", "z"] and values.shape == (2, 2, 2, 3)
  effects = reporting.effects(values)
  expected = {(0,): 4, (1,): 3, (2,): 3, (0, 1): 0, (0, 2): 0, (1, 2): 3, (0, 1, 2): 0}
  assert effects.keys() == expected.keys()
  for chosen, effect in effects.items():
    np.testing.assert_allclose(effect, expected[chosen], atol=1e-12)  # what seeds share does not count


def test_an_effect_has_a_value_for_each_seed():
  _, values = reporting.responses(factorial(lambda x, y, z, seed: x * (1 + seed)), "metric")
  np.testing.assert_allclose(reporting.effects(values)[0,], [1, 2, 3])


def test_effects_of_decimals_are_decimals():
  """Three seeds gain 0.03 of 0.5, 0.8 and 0.9, which are three different differences in float64."""
  axes, values = reporting.responses(factorial(lambda x, y, z, seed: (0.5, 0.8, 0.9)[seed] + 0.03 * x), "metric")
  effects = reporting.effects(values)
  np.testing.assert_array_equal(effects[0,], [0.03] * 3)
  assert all((effect == 0).all() for chosen, effect in effects.items() if chosen != (0,))


def test_seeds_with_a_dead_member_are_left_out():
  members = factorial(lambda x, y, z, seed: x * (1 + seed))
  members[4]["died_at"] = 7
  _, values = reporting.responses(members, "metric")
  assert values.shape == (2, 2, 2, 2)


@pytest.mark.parametrize("change, words", [
  (lambda members: [m for m in members if m["values"]["x"] == "on"], "the axis 'x' has 1 levels, on; give it two"),
  (lambda members: [m | {"values": {"x": m["values"]["x"]}} for m in members], "fewer than two axes"),
  (lambda members: [members[0] | {"values": {"x": "on"}}, *members[1:]], "has arms with axes of their own"),
  (lambda members: [m | {"metrics": {"loss": 1.0}} for m in members], "member 0 has no metric 'metric'; known: loss"),
  (lambda members: [m | {"died_at": 0} for m in members], "no seed has a number at .*, so there is no effect; lower"),
])
def test_mistakes_of_interactions_are_sentences(change, words):
  with pytest.raises(UserError, match=words):
    reporting.responses(change(factorial(lambda *_: 1.0)), "metric")


def test_intervals(tmp_path):
  panels = [reporting.Intervals("accuracy", "share", {"a": [0.1, 0.2, np.nan], "b": []}, zero=True),
            reporting.Intervals("loss", "nats", {"a": [1.0], "b": [2.0, 20.0]}, log_x=True)]
  path = reporting.intervals(tmp_path / "plots" / "intervals.png", panels)
  assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" and path.stat().st_size > 5000


def arm_with_an_axis():
  """Members of an arm with an axis of its own, whose best level hangs on the learning rate."""
  return [
    member(seed, {"arm": "c", "w": w, "lr": lr, "guide": guide},
           **{"validation/loss": abs(w * lr - 2) + 0.1 * lr, "test/accuracy": 0.6, "loss/own": 0.5})
    for w in (1, 2, 4) for lr in (0.1, 1.0, 10.0) for guide in (0, 1) for seed in (0, 1)
  ]


def test_a_picture_over_one_axis_has_the_others_at_their_best(monkeypatch):
  monkeypatch.setattr(tuned, "_OVER", types.SimpleNamespace(value=["lr", "w"]))
  monkeypatch.setattr(tuned, "_BY", types.SimpleNamespace(value="validation/loss"))
  for axis, best in (("lr", {(0.1, 4), (1.0, 2), (10.0, 1)}), ("w", {(1.0, 1), (1.0, 2), (0.1, 4)})):
    there = tuned.along(axis, results_of(arm_with_an_axis())["members"])
    assert {(m["values"]["lr"], m["values"]["w"]) for m in there} == best and len(there) == 12


def run(*arguments):
  """Runs a binary in a process of its own: several of them have flags of one name."""
  return subprocess.run([sys.executable, "-m", *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)


def test_the_binaries(tmp_path):
  dead = [
    member(seed, {"arm": "d", "lr": 0.1, "guide": 0}, 3, **{"validation/loss": None, "test/accuracy": None})
    for seed in (0, 1)
  ]
  directory = write_run(tmp_path / "run", [*study(), *arm_with_an_axis(), *dead])
  done = run("experiments.tuned", directory, "--over=lr", "--over=w", "--pool=guide", "--metric=test/accuracy",
             "--metric=loss/own", "--solved=0.5")
  assert done.returncode == 0, done.stderr
  rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line.startswith("|")]
  assert rows[0] == ["arm", "n", "lr", "w", "validation/loss", "test/accuracy", "loss/own", "at least 0.5"]
  assert [row[:4] for row in rows[2:]] == [["a", "4", "1.0", "–"], ["b", "4", "0.1, edge", "–"], ["c", "4", "1.0", "2"],
                                           ["d", "2 (2 dead)", "0.1", "–"]]
  assert [row[6] for row in rows[2:]] == ["–", "–", "0.5 ± 0", "–"]
  assert {path.name for path in (directory / "plots").iterdir()} == {"tuned.png", "over_lr.png", "over_w.png"}
  assert (directory / "plots" / "over_lr.png").stat().st_size > 10_000
  assert "arm" in (directory / "tuned.md").read_text()
  directory = write_run(tmp_path / "factorial", factorial(lambda x, y, z, seed: x + y * z + 0.1 * seed * x))
  done = run("experiments.interactions", directory, "--metric=metric")
  assert done.returncode == 0, done.stderr
  assert done.stdout.index("| x ") < done.stdout.index("| y × z ") < done.stdout.index("| x × y × z ")
  assert {path.name for path in (directory / "plots").iterdir()} == {"effects.png", "pairs_metric.png"}
  assert run("experiments.interactions", tmp_path).stderr.startswith("error: ")


def test_lines_of_a_pair_of_axes_have_their_axis_colour_and_ticks_at_its_levels():
  levels, styles = {"noise": [0.0, 0.1], "elr": ["off", "on"]}, reporting.palette(["noise", "elr"])
  panel, = interactions.pairs(levels, np.zeros((2, 2, 3)), "test/accuracy")
  assert (panel.title, panel.ylabel, panel.xlabel) == ("noise × elr", "test accuracy", "noise")
  assert (panel.levels, panel.names, list(panel.series)) == ((0, 1), ["0", "0.1"], ["elr: off", "elr: on"])
  shaded = interactions.by_level(levels, styles)
  assert shaded["elr: on"] == styles["elr"]
  assert shaded["elr: off"].color != styles["elr"].color and shaded["elr: off"].dashes != styles["elr"].dashes


def test_interactions_that_are_refused_leave_no_picture(tmp_path, monkeypatch):
  rng = np.random.default_rng(0)
  write_run(tmp_path / "run", factorial(lambda *_: rng.random()))
  before = sorted(tmp_path.rglob("*"))
  monkeypatch.setattr(interactions, "_METRIC", types.SimpleNamespace(value=["metric", "nothing"]))
  monkeypatch.setattr(interactions, "_OUT", types.SimpleNamespace(value=None))
  with pytest.raises(UserError, match="no metric 'nothing'"):
    interactions.main(["", str(tmp_path / "run")])
  assert sorted(tmp_path.rglob("*")) == before
