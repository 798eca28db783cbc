"""A stand-in for the package wandb and its server, for tests of what is sent there."""

import pathlib
import types


class Cloud:
  """The package, as `module()`, and the server.

  `history` is what pages would show: {run: [(step, values), ...]}; of offline runs, what each folder would send.
  `failures` may hold an error, which every call then raises. `inits` are (arguments, run) of all runs that were opened.
  """

  def __init__(self, mode="online"):
    self.history, self.inits, self.settings, self.failures = {}, [], types.SimpleNamespace(mode=mode, project=None), []

  def module(self):
    return types.SimpleNamespace(
      init=self.init, setup=lambda: types.SimpleNamespace(settings=self.settings), Settings=lambda **fields: fields,
    )

  def init(self, **arguments):
    if self.failures:
      raise self.failures[0]
    offline, run_id = self.settings.mode == "offline", arguments["id"]
    place = run_id
    if offline:  # what is synced then: a folder a start
      folder = pathlib.Path(arguments["dir"]) / "wandb" / f"offline-run-20260101_{len(self.inits):06d}-{run_id}"
      folder.mkdir()
      place = folder.name
    resumed = arguments["resume"] == "allow" and run_id in self.history
    run = Run(self, self.history.setdefault(place, []), resumed)
    self.inits.append((arguments, run))
    return run

  def steps(self):
    return {place: [step for step, _ in rows] for place, rows in self.history.items()}


class Run:

  def __init__(self, cloud, rows, resumed):
    self.cloud, self.rows, self.resumed, self.code, self.disabled = cloud, rows, resumed, None, False
    self.url = "https://example.org/run"
    self.starting_step = rows[-1][0] + 1 if resumed and rows else 0

  def log(self, values, step, commit):
    if self.cloud.failures:
      raise self.cloud.failures[0]
    assert commit and self.code is None and (not self.rows or step > self.rows[-1][0])
    self.rows.append((step, values))

  def finish(self, exit_code):
    self.code = exit_code
