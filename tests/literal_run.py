"""A run directory out of literals, for tests of whatever reads one: nothing is trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from nurture import reporting

CONFIG = {
  "seed": 0,
  "steps": 100,
  "data": {
    "normalize": "standardize", "normalize_labels": "none", "source": {"name": "digits"}, "seed": 0, "validation": 0,
  },
  "gradients": {"noise": {"name": "annealed_noise", "eta": 0.01, "gamma": 0.55}},
  "optimizer": {"name": "sgd", "learning_rate": 0.1},
  "probes": {"test": {"name": "accuracy", "split": "test", "every": 6}},
  "ensemble": {"grid": {}},
  "report": {"metrics": ["test/accuracy", "loss"]},
}


def member(seed: int, values: Mapping[str, Any], died_at: int | None = None, **metrics: Any) -> dict[str, Any]:
  """Returns what results.json says of a member, without its number."""
  return {"seed": seed, "values": dict(values), "died_at": died_at, "metrics": metrics}


def results_of(members: Sequence[Mapping[str, Any]], steps: int = 100) -> dict[str, Any]:
  """Returns results.json of members in their order; those at one point of the grid are a group."""
  members = [{"member": i, "cohort": 0, "params_sha256": f"{i:064x}"} | m for i, m in enumerate(members)]
  groups: dict[str, list[dict[str, Any]]] = {}
  for m in members:
    groups.setdefault(json.dumps(m["values"]), []).append(m)
  return {
    "name": "run", "steps": steps, "params_sha256": "0" * 64, "members": members,
    "groups": [{
      "label": ", ".join(f"{axis}={level}" for axis, level in group[0]["values"].items()) or "all",
      "values": group[0]["values"],
      "members": [m["member"] for m in group],
      "dead": [m["member"] for m in group if m["died_at"] is not None],
      "metrics": {
        name: reporting.summarize(reporting.metric_of(m, name) for m in group)
        for name, value in group[0]["metrics"].items() if not isinstance(value, list)
      },
    } for group in groups.values()],
  }


def write_run(
  directory, members: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]] = (),
  config: Mapping[str, Any] = CONFIG,
):
  """Writes all files of a finished run but its checkpoints; returns the directory."""
  results = results_of(members, config["steps"])
  reporting.write_json(directory / "config.json", config)
  reporting.start(directory, {
    "config_sha256": hashlib.sha256(json.dumps(config).encode()).hexdigest(),
    "checksums": {"digits": "0" * 64},
    "members": [{k: m[k] for k in ("member", "cohort", "seed", "values")} for m in results["members"]],
  })
  with reporting.MetricsWriter(directory / "metrics.jsonl") as writer:
    writer.write({"step": row["step"], "cohort": 0, **row} for row in rows)
  reporting.write_json(directory / "results.json", results)
  reporting.stop(directory, "finished", config["steps"], 1.0)
  return directory
