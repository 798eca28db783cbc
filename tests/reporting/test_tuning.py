"""Arms of a study and their best levels, and the standard error over crossed replicates by hand."""

import math

import numpy as np
import pytest

from nurture import reporting
from nurture.core import UserError
from tests.literal_run import member, results_of, write_run


def crossed(table):
  """Members of a table [level of a guide, seed] of numbers."""
  return results_of([
    member(seed, {"guide": guide}, y=y) for guide, row in enumerate(table) for seed, y in enumerate(row)
  ])["members"]


@pytest.mark.parametrize("table, mean, variance", [
  # Two guides, three seeds. Means of seeds 2, 3, 7, of guides 3 and 5, of all 4.
  # b var(seeds) = 2 (4 + 1 + 9) / 2 = 14; a var(guides) = 3 (1 + 1) / 1 = 6.
  # Rest y - seed - guide + mean: row 0: 1 - 2 - 3 + 4 = 0, 3 - 3 - 3 + 4 = 1, 5 - 7 - 3 + 4 = -1; row 1 its negative.
  # MS_rest = (0 + 1 + 1) 2 / (2 1) = 2. Variance of the mean: (14 + 6 - 2) / 6 = 3.
  ([[1, 3, 5], [3, 3, 9]], 4.0, 3.0),
  # Seeds and guides alike have the mean 1: both mean squares are 0, and MS_rest = 4 (1/1) / (1 1) = 4 is the larger.
  ([[0, 2], [2, 0]], 1.0, 4 / 4),
  # One mean square only: guides 2 and 4 with two seeds each, 2 (1 + 1) / 1 = 4, and nothing of the seeds or the rest.
  ([[2, 2], [4, 4]], 3.0, 4 / 4),
  # The same table turned: seeds 2 and 4.
  ([[2, 4], [2, 4]], 3.0, 4 / 4),
])
def test_the_standard_error_of_a_worked_two_way_table(table, mean, variance):
  summary = reporting.summarize_crossed(crossed(table), "y", ["guide"])
  assert summary == {
    "mean": mean, "sem": pytest.approx(math.sqrt(variance), rel=1e-12), "n": np.size(table), "dead": 0,
  }


def test_a_constant_changes_the_mean_alone_and_members_that_agree_have_no_error():
  table = np.array([[1, 3, 5], [3, 3, 9]])
  summary = reporting.summarize_crossed(crossed((1e6 + table).tolist()), "y", ["guide"])
  assert summary["sem"] == pytest.approx(math.sqrt(3), rel=1e-12)
  assert reporting.summarize_crossed(crossed([[0.1, 0.1, 0.1]] * 2), "y", ["guide"])["sem"] == 0


def test_without_a_whole_table_it_is_the_plain_standard_error():
  table = [[1.0, 3.0, 5.0], [3.0, 3.0, 9.0]]
  plain = reporting.summarize([1, 3, 5, 3, 3, 9])
  assert reporting.summarize_crossed(crossed(table), "y", []) == plain  # nothing is pooled
  assert reporting.summarize_crossed(crossed(table), "y", ["other"]) == plain
  assert reporting.summarize_crossed(crossed(table[:1]), "y", ["guide"]) == reporting.summarize([1, 3, 5])  # one guide
  assert reporting.summarize_crossed(crossed([[1], [3]]), "y", ["guide"]) == reporting.summarize([1, 3])  # one seed
  assert reporting.summarize_crossed(crossed(table)[:-1], "y", ["guide"]) == reporting.summarize([1, 3, 5, 3, 3])
  dead = [*crossed(table)[:-1], crossed(table)[-1] | {"died_at": 3}]
  assert reporting.summarize_crossed(dead, "y", ["guide"]) == reporting.summarize([1, 3, 5, 3, 3, None])


def test_of_no_members_there_is_no_mean():
  assert reporting.summarize_crossed([], "y", ["guide"]) == {"mean": None, "sem": None, "n": 0, "dead": 0}


def test_two_pooled_axes_make_one_level_each_pair():
  members = results_of([
    member(seed, {"guide": guide, "order": order}, y=table[seed])
    for (guide, order), table in {(0, 0): [1, 3, 5], (1, 0): [3, 3, 9]}.items() for seed in range(3)
  ])["members"]
  assert reporting.summarize_crossed(members, "y", ["guide", "order"])["sem"] == pytest.approx(math.sqrt(3))


def levels(numbers, dead=()):
  """Members at the levels of lr with these losses of two seeds; "share" is their negative."""
  return results_of([
    member(seed, {"lr": lr}, 7 if (lr, seed) in dead else None, **{"a/loss": y, "a/share": None if y is None else -y})
    for lr, values in numbers.items() for seed, y in enumerate(values)
  ])["members"]


@pytest.mark.parametrize("numbers, dead, best, edge", [
  ({0.1: (3, 3), 0.2: (1, 1), 0.4: (2, 2)}, (), 0.2, False),
  ({0.1: (1, 1), 0.2: (3, 3), 0.4: (2, 2)}, (), 0.1, True),
  ({0.1: (3, 3), 0.2: (2, 2), 0.4: (1, 1)}, (), 0.4, True),
  ({0.4: (3, 3), 0.1: (1, 1), 0.2: (2, 2)}, (), 0.1, True),  # the range is of numbers, not of the order written
  ({0.1: (3, 3), 0.4: (1, 1), 0.8: (2, 2), 0.2: (4, 4)}, (), 0.4, False),
  ({0.1: (3, 3), 0.2: (1, 1), 0.4: (2, 2)}, {(0.2, 0)}, 0.4, True),  # the best lost a member
  ({0.1: (3, 3), 0.2: (2, 2)}, {(0.1, 0), (0.2, 0), (0.2, 1)}, 0.1, True),  # fewest dead, if some are everywhere
  ({0.1: (9, 1), 0.2: (3, 3)}, {(0.1, 0), (0.2, 0)}, 0.1, True),  # the dead do not count in the mean
  ({0.1: (None, None), 0.2: (3, 3), 0.4: (4, 4)}, (), 0.2, False),  # no number is worse than any
  ({0.1: (3, 3), 0.2: (1, 5), 0.4: (2, 4)}, (), 0.1, True),  # the first of equals
  ({0.1: (1, 1)}, (), 0.1, False),  # a range of one has no edge
  ({"a": (2, 2), "b": (1, 1), "c": (3, 3)}, (), "b", False),
  ({"c": (2, 2), "b": (3, 3), "a": (1, 1)}, (), "a", True),
])
@pytest.mark.parametrize("by", ["a/loss", "a/share"])
def test_the_best_level(numbers, dead, best, edge, by):
  chosen, edges, members = reporting.choose_levels(levels(numbers, dead), ["lr"], by)
  assert (chosen, edges) == ({"lr": best}, ("lr",) if edge else ())
  assert [m["values"]["lr"] for m in members] == [best] * 2


def of_arms():
  """Members of arms: one without an axis, one over lam, one over q, each at three learning rates and two seeds."""
  own = {"plain": [{}], "ELR": [{"lam": lam} for lam in (1, 3, 7)], "GCE": [{"q": q} for q in (0.5, 0.7)]}
  score = lambda point: -(point["lr"] - 0.2) ** 2 - (point.get("lam", 3) - 3) ** 2
  return [
    member(seed, point, **{"a/share": score(point) + 0.01 * seed, "a/other": point.get("q", 0)})
    for arm, points in own.items() for axes in points for lr in (0.1, 0.2, 0.4)
    for point in [{"arm": arm, **axes, "lr": lr}] for seed in range(2)
  ]


def test_every_arm_is_chosen_over_the_axes_that_it_has(tmp_path):
  over = ["lr", "lam", "q"]
  arms = reporting.read_arms([write_run(tmp_path / "run", of_arms())], over, [])
  chosen = {label: reporting.choose_levels(members, over, "a/share") for label, members in arms.items()}
  assert {label: (choice.levels, choice.edges) for label, choice in chosen.items()} == {
    "plain": ({"lr": 0.2}, ()), "ELR": ({"lr": 0.2, "lam": 3}, ()),
    "GCE": ({"lr": 0.2, "q": 0.5}, ()),  # all of q is the same, so its first level is no edge
  }
  for choice in chosen.values():
    assert [m["seed"] for m in choice.members] == [0, 1]
    assert all(m["values"].items() >= choice.levels.items() for m in choice.members)
  at_end = reporting.choose_levels(arms["GCE"], over, "a/other")  # q does something, lr does not
  assert (at_end.levels, at_end.edges) == ({"lr": 0.1, "q": 0.7}, ("q",))


def test_runs_of_several_arms_are_joined(tmp_path):
  members = of_arms()
  of = lambda *names: [m for m in members if m["values"]["arm"] in names]
  elr, gce = write_run(tmp_path / "elr", of("plain", "ELR")), write_run(tmp_path / "gce", of("GCE"))
  assert list(reporting.read_arms([elr, gce], ["lam", "q"], ["lr"])) == ["plain", "ELR", "GCE"]
  with pytest.raises(UserError, match="gce has no axis 'lam' in its grid; .*known: arm, lr, q"):
    reporting.read_arms([elr, gce], ["lam"], [])
  with pytest.raises(UserError, match="no run has an axis 'la' in its grid; did you mean 'lam'"):
    reporting.read_arms([elr], ["lr", "la"], [])
  with pytest.raises(UserError, match="both have seed 0 of 'plain' at lr=0.1; give each run once"):
    reporting.read_arms([elr, elr], ["lr", "lam"], [])
  with pytest.raises(UserError, match="both have seed 0 of 'plain, lr=0.1'; give each run once"):
    reporting.read_arms([elr, elr], ["lam"], [])


def test_arms_are_the_points_of_the_other_axes(tmp_path):
  grid = [(arm, lr, guide) for arm in ("a", 2) for lr in (0.1, 0.2) for guide in (0, 1)]
  members = [
    member(seed, {"arm": arm, "lr": lr, "guide": guide}, y=1.0) for arm, lr, guide in grid for seed in range(2)
  ]
  one, two = write_run(tmp_path / "one", members), write_run(tmp_path / "two", [m | {"seed": 5} for m in members[::2]])
  arms = reporting.read_arms([one], ["lr"], ["guide"])
  assert {label: [m["member"] for m in inside] for label, inside in arms.items()} == {
    "a": list(range(8)), "arm=2": list(range(8, 16)),
  }
  assert list(reporting.read_arms([one], ["arm"], ["guide"])) == ["lr=0.1", "lr=0.2"]
  assert list(reporting.read_arms([one], ["guide"], ["arm", "lr"])) == ["all"]
  joined = reporting.read_arms([one, two], ["lr"], ["guide"])  # other seeds of the same arms
  assert {label: len(inside) for label, inside in joined.items()} == {"a": 12, "arm=2": 12}
  with pytest.raises(UserError, match=r"one and \S*one both have seed 0 of 'a' at lr=0\.1; give each run once"):
    reporting.read_arms([one, one], ["lr"], ["guide"])
  with pytest.raises(UserError, match=r"no run has an axis 'gide' to pool in its grid; did you mean 'guide'"):
    reporting.read_arms([one], ["lr"], ["gide"])
  with pytest.raises(UserError, match=r"one has no axis 'rate' in its grid; .*known: arm, guide, lr"):
    reporting.read_arms([one], ["rate"], [])
  with pytest.raises(UserError, match=r"is not a finished run \(it has no results\.json\)"):
    reporting.read_arms([tmp_path], ["lr"], [])


def test_arms_that_are_written_the_same_are_not_joined(tmp_path):
  points = [("p, q", 0.1, "r"), ("p", 0.1, "q, r")]
  run = write_run(tmp_path / "run", [member(0, {"a": a, "lr": lr, "b": b}, y=1.0) for a, lr, b in points])
  with pytest.raises(UserError, match=r"run has two arms that are called 'p, q, r'; train with other names"):
    reporting.read_arms([run], ["lr"], [])


@pytest.mark.parametrize("value, died_at, expected", [(0.5, None, 0.5), (2, None, 2), (0.5, 3, None), (None, 3, None)])
def test_a_metric_of_a_member(value, died_at, expected):
  [one] = results_of([member(0, {}, died_at=died_at, y=value)])["members"]
  assert reporting.metric_of(one, "y") == expected


def test_a_metric_that_is_not_finite_or_no_number():
  of = lambda value: reporting.metric_of({"member": 4, "died_at": None, "metrics": {"y": value}}, "y")
  assert math.isnan(of(None))
  for value, shown in ((True, "true"), ("high", '"high"'), ([1.0, 2.0], "a list of 2")):
    with pytest.raises(UserError, match=f"'y' of member 4 is {shown} and no number; give another metric"):
      of(value)
  with pytest.raises(UserError, match="member 4 has no metric 'x'; known: y"):
    reporting.metric_of({"member": 4, "died_at": None, "metrics": {"y": 1}}, "x")
