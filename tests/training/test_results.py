"""Results out of the last rows of metrics.jsonl and the final parameters."""

import hashlib

import numpy as np
import pytest

from nurture import reporting
from nurture.core import UserError
from nurture.training.grid import Member
from nurture.training.run import Final, _results
from nurture.training.sweep import Cohort

MEMBERS = [Member(i, 7 + i, {"lr": lr}, {}) for i, lr in enumerate((0.1, 0.1, 0.5))]
COHORTS = [Cohort(0, {}, tuple(MEMBERS[:2]), ()), Cohort(1, {}, tuple(MEMBERS[2:]), ())]


def joined(workdir, rows):
  with reporting.MetricsWriter(workdir / "metrics.jsonl") as writer:
    writer.write({"step": step, "cohort": int(member > 1), "member": member, "loss": loss, "per_class": [loss]}
                 for step, member, loss in rows)
  finals = [
    Final(["a", "b"], np.array([-1, 0]), np.array([10, 10]), None), Final(["c"], np.array([-1]), np.array([10]), None),
  ]
  return _results({"steps": 10}, "test", COHORTS, finals, workdir)


def test_members_have_their_last_row_and_groups_what_lives(tmp_path):
  results = joined(tmp_path, [(5, 0, 9.0), (5, 1, 9.0), (10, 0, 1.0), (10, 1, None), (5, 2, 9.0), (10, 2, 4.0)])
  assert results["members"] == [
    {"member": i, "cohort": cohort, "seed": 7 + i, "values": {"lr": lr}, "died_at": died, "params_sha256": sha,
     "metrics": {"loss": loss, "per_class": [loss]}}
    for i, cohort, lr, died, sha, loss in [
      (0, 0, 0.1, None, "a", 1.0), (1, 0, 0.1, 0, "b", None), (2, 1, 0.5, None, "c", 4.0)  # the second at step 0
    ]
  ]
  assert results["groups"] == [
    {"label": f"lr={lr}", "values": {"lr": lr}, "members": members, "dead": dead, "metrics": {
      "loss": {"mean": mean, "sem": None, "n": 1, "dead": len(dead)}}}
    for lr, members, dead, mean in [(0.1, [0, 1], [1], 1.0), (0.5, [2], [], 4.0)]
  ]
  assert (results["name"], results["steps"]) == ("test", 10)
  assert results["params_sha256"] == hashlib.sha256(b"abc").hexdigest()


def test_rows_that_vanish_while_a_run_trains_are_missed(tmp_path):
  """Whoever removes metrics.jsonl during the run takes the rows of the cohorts before; the run makes a new file."""
  with pytest.raises(UserError, match=r"metrics\.jsonl has no final row of member 0; restore the file from a copy, or"):
    joined(tmp_path, [(5, 0, 1.0), (10, 2, 4.0)])
