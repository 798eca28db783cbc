"""The files of a run directory, as everything that reads them gets them: with the fields and types that a run writes.

What is missing, is not JSON, or has another shape is one sentence that names the file, the place in it and the fix.
Fields that are not listed here may be there; nothing relies on them.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nurture.core import UserError
from nurture.reporting import schema
from nurture.reporting.files import Path, exists, read_lines
from nurture.reporting.json_files import Malformed, parse, read_json
from nurture.reporting.schema import Each, Optional, Shape, joined, mismatch, shown

HISTORY = {"history": Optional([{"event": schema.TEXT, "time": schema.TEXT, "changed": Optional(Each(schema.ANY))}])}
_PLACED = {"member": schema.COUNT, "cohort": schema.COUNT, "seed": schema.COUNT, "values": Each(schema.LEVEL)}
_MANIFEST = {"checksums": Each(schema.TEXT), "members": [_PLACED], **HISTORY}
_RESULTS = {
  "steps": schema.COUNT,
  "groups": [{
    "label": schema.TEXT, "values": Each(schema.LEVEL), "members": [schema.COUNT], "dead": [schema.COUNT],
    "metrics": Each({"mean": schema.NUMBER_OR_NULL, "sem": schema.NUMBER_OR_NULL, "n": schema.COUNT}),
  }],
  "members": [_PLACED | {
    "died_at": schema.COUNT_OR_NULL, "params_sha256": schema.TEXT, "metrics": Each(schema.MEASURED),
  }],
}
_ROW = {"step": schema.COUNT, "cohort": schema.COUNT, "member": schema.COUNT}

RESTORE = "restore the file from a copy, or train again with another --workdir"
_WRITE_ANEW = (
  "give the --workdir of a finished experiments.train; where it is one, run its command again, which writes it anew"
)


def read_results(directory: Path) -> dict[str, Any]:
  """Returns results.json: "groups", one a point of the grid, and "members", of which the i-th has the number i.

  Raises:
    UserError: for a run that is not finished, and a file that is damaged.
  """
  path = pathlib.Path(directory) / "results.json"
  if not exists(path):
    raise UserError(f"{directory} is not a finished run (it has no results.json); train it to its end first.")
  results = read_json(path, _RESULTS, _WRITE_ANEW)
  if found := _misnumbered(results["members"]) or _misgrouped(results["groups"], results["members"]):
    raise UserError(f"{path} contradicts itself: {found}; {_WRITE_ANEW}.")
  return results


def read_manifest(directory: Path) -> dict[str, Any]:
  """Returns manifest.json with "checksums" and "members", of which the i-th has the number i.

  Raises:
    UserError: if there is none, or it is damaged.
  """
  path = pathlib.Path(directory) / "manifest.json"
  manifest = read_json(path, _MANIFEST, RESTORE)
  if found := _misnumbered(manifest["members"]):
    raise UserError(f"{path} contradicts itself: {found}; {RESTORE}.")
  return manifest


def read_config(
  directory: Path, shape: Shape = None, *, unchanged: bool = False, fix: str = RESTORE
) -> dict[str, Any]:
  """Returns config.json, as nested dicts and lists.

  Args:
    directory: of the run.
    shape: what the caller reads of it (see `nurture.reporting.schema`).
    unchanged: whether it must also be the one that the manifest has the sha256 of, as for building a network from it.
    fix: what to do if it has another shape, the end of the message.

  Raises:
    UserError: if there is none, it is damaged, or it was changed.
  """
  path = pathlib.Path(directory) / "config.json"
  config = read_json(path, shape or {}, fix)
  if unchanged:
    manifest = read_json(path.with_name("manifest.json"), {"config_sha256": schema.TEXT, **HISTORY}, RESTORE)
    changes = [entry.get("changed", {}) for entry in manifest.get("history", [])]
    if digest(config) not in [each.get("config_sha256") for each in (manifest, *changes)]:
      raise UserError(f"{path} is not the config that the run had by its manifest.json; restore it from a copy, or run "
                      "the run's training command again.")
  return config


def digest(config: Any) -> str:
  """Returns the sha256 of a config as JSON has it, which the manifest keeps."""
  return hashlib.sha256(json.dumps(config).encode()).hexdigest()


def read_rows(path: Path) -> list[dict[str, Any]]:
  """Returns all rows of a metrics file, without a last line that was only half written.

  Raises:
    UserError: if there is no such file, or a line before the last one is damaged, or a line is no row.
  """
  return list(stream_rows(path))


def stream_rows(path: Path) -> Iterator[dict[str, Any]]:
  """Yields what `read_rows` returns, for files of which only some numbers are kept; raises as it does."""
  for number, line in enumerate(read_lines(path), start=1):
    if line == b"\n":
      continue
    try:
      row = parse(line.removesuffix(b"\n"))
      if found := mismatch(row, _ROW) or mismatch(row, Each(schema.MEASURED)):
        raise Malformed(f"is no row of metrics ({found})")
    except Malformed as error:
      if not line.endswith(b"\n") and not _is_json(line):  # without an end: the process was killed while writing
        break
      raise UserError(f"{path}, line {number} {error}; {RESTORE}.") from None
    yield row


def _is_json(line: bytes) -> bool:
  try:
    json.loads(line)
  except (ValueError, RecursionError):
    return False
  return True


def _misnumbered(members: Sequence[Mapping[str, Any]]) -> str | None:
  if not members:
    return "members is empty"
  wrong = next((i for i, member in enumerate(members) if member["member"] != i), None)
  return None if wrong is None else f"members[{wrong}].member is {members[wrong]['member']}, but needs {wrong}"


def _misgrouped(groups: Sequence[Mapping[str, Any]], members: Sequence[Mapping[str, Any]]) -> str | None:
  """Every member stands in one group, with members at the same point of the grid and of other seeds."""
  labels = [group["label"] for group in groups]
  if twice := next((label for label in labels if labels.count(label) > 1), None):
    return f"two groups have the label {shown(twice)}"
  if sorted(number for group in groups for number in group["members"]) != list(range(len(members))):
    return "not every member stands in exactly one of the groups"
  for i, group in enumerate(groups):
    inside = [members[number] for number in group["members"]]
    if other := next((member for member in inside if member["values"] != group["values"]), None):
      return f"groups[{i}] has member {other['member']}, which stands elsewhere in the grid"
    if len({member["seed"] for member in inside}) < len(inside):
      return f"groups[{i}] has two members of one seed, which are no replicates"
    if group["dead"] != [m["member"] for m in inside if m["died_at"] is not None]:
      return f"groups[{i}].dead does not name the members that have a died_at"
    for name, summary in group["metrics"].items():
      if summary["n"] > len(inside) or (summary["mean"] is None) != (summary["n"] == 0):
        return f"groups[{i}].{joined('metrics', name)} is no mean of its n"
  return None
