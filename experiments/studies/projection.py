"""Inputs of the last layer, seen in the plane of three classes, of several trained networks side by side.

  python -m experiments.studies.projection DIR... [--member=0 ...] [--classes=0,1,2] [--split=test] [--out=FILE]

Each DIR is the --workdir of a finished run. For every member asked for, activations of examples of the three classes
are projected onto the plane through the classes' templates, the rows of the last layer's weights (Müller et al. 2019,
arXiv:1906.02629, section 2: label smoothing pulls each class into a tight cluster). Prints how tight: the root mean
square distance of an example to the mean of its class, over the mean distance between the class means, in the plane.
Arguments that a schedule moves in training have their defaults.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from nurture import data, models, reporting, terminal
from nurture.core import Outputs, UserError
from nurture.reporting.style import add_axes, add_legend, figure_of, name_axes, palette, save
from nurture.similarity.projection import project
from nurture.training import member_variables
from nurture.training.config import Config, check, from_json, put
from nurture.training.grid import Member, members_of

_MEMBER = flags.DEFINE_multi_integer("member", [0], "Member of every run; may be given several times.")
_CLASSES = flags.DEFINE_list("classes", ["0", "1", "2"], "Three class numbers.", **terminal.SHARED)
_SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
_LIMIT = flags.DEFINE_integer("limit", 300, "Examples of each class, at most.", lower_bound=2, **terminal.SHARED)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Directory of data sets that are not embedded.", **terminal.SHARED)
_OUT = flags.DEFINE_string("out", "runs/projection.png", "Picture to write.", **terminal.SHARED)


@dataclasses.dataclass(frozen=True)
class View:
  """One network's projected activations.

  Attributes:
    title: run, member and group.
    points: [n, 2].
    labels: [n], position of the class among the three.
    corners: [3, 2], the templates.
    names: of the three classes.
  """

  title: str
  points: np.ndarray
  labels: np.ndarray
  corners: np.ndarray
  names: tuple[str, ...]

  @property
  def spread(self) -> float:
    """Root mean square distance to the mean of the own class over the mean distance between class means."""
    means = np.stack([self.points[self.labels == c].mean(axis=0) for c in range(3)])
    within = np.sqrt(np.mean(np.sum((self.points - means[self.labels]) ** 2, axis=-1)))
    between = np.mean([np.linalg.norm(means[a] - means[b]) for a, b in ((0, 1), (0, 2), (1, 2))])
    return float(within / between) if between else float("inf")


def last_layer(params: Any, outputs: Outputs) -> tuple[jax.Array, jax.Array]:
  """Finds the tap and the dense layer that make the logits, whatever the network calls them.

  It is the last tap, flat or averaged over the pixels, and the kernel [d, K] (or a 1x1 convolution's) whose product,
  with the bias, is the logits.

  Returns:
    (activations [n, d], templates [K, d]), float32.

  Raises:
    UserError: if no tap and layer do that.
  """
  logits = outputs.logits.astype(jnp.float32)
  n, num_classes = logits.shape
  for name in sorted(outputs.taps, reverse=True):
    tap = outputs.taps[name].astype(jnp.float32)
    for x in [tap.reshape(n, -1), *([tap.mean(axis=(1, 2))] if tap.ndim == 4 else [])]:
      for kernel, bias in _dense_layers(params, x.shape[1], num_classes):
        difference = jnp.abs(jnp.matmul(x, kernel, precision="highest") + bias - logits).max()
        if difference <= 0.02 * jnp.abs(logits).max():  # bfloat16 has 8 bits
          return x, kernel.T
  raise UserError("no tap and dense layer of the network make its logits; choose a network with a linear last layer.")


def read(directory: pathlib.Path, member: int) -> tuple[Config, Member]:
  """Returns the config of a member of a finished run, its own values put in, and where it stands in the grid.

  Raises:
    UserError: if the run is not finished or has no such member, a file is damaged, or the config is not this version's.
  """
  count = len(reporting.read_results(directory)["members"])
  config = from_json(reporting.read_config(directory, unchanged=True))
  check(config)
  members = members_of(config)
  if len(members) != count:
    raise UserError(f"{directory} has {count} members by its results.json and {len(members)} by its config.json; "
                    "restore both from a copy.")
  if not 0 <= member < count:
    raise UserError(f"{directory} has {count} members, numbered from 0; --member={member} does not exist.")
  return put(config, members[member].assignments), members[member]


def view_of(
  directory: pathlib.Path, member: int, classes: Sequence[int], split: str = "test", limit: int = 300,
  data_dir: str = "data",
) -> View:
  """Loads a member of a finished run and projects its activations.

  Args:
    directory: of the run.
    member: of the run.
    classes: three class numbers.
    split: "train", "validation" or "test".
    limit: examples of each class, at most.
    data_dir: where data sets that are not embedded lie.

  Raises:
    UserError: if the run is not finished, has no such member, or its data have no such classes.
  """
  config, described = read(directory, member)
  variables = member_variables(directory, member)
  section = config["data"] | {"augment": {}}
  dataset = data.load(section, data_dir)
  examples = dataset.split(split)
  if dataset.task.name != "classification":
    raise UserError(f"{directory} was trained on {dataset.name}, which asks for {dataset.task.name}; choose a run of a "
                    "classification.")
  rows = [np.flatnonzero(np.asarray(examples.label) == c)[:limit] for c in classes]
  for c, found in zip(classes, rows):
    if not len(found):
      raise UserError(f"--classes has {c}, of which the split {split!r} of {dataset.name} has no example; "
                      f"choose from 0 to {dataset.task.num_outputs - 1}.")
  examples = examples.take(np.concatenate(rows))
  [batch] = data.padded_batches(examples, len(examples))
  module = models.build({"num_classes": dataset.task.num_outputs} | config["model"])
  inputs = data.preprocess(section, dataset).inputs(jax.tree.map(jnp.asarray, batch))
  outputs = jax.jit(module.apply)(variables, inputs)
  activations, templates = last_layer(variables["params"], outputs)
  names = dataset.task.outputs
  return View(
    title=f"{directory.name}, member {member}" + (f"\n{described.label}" if described.values else ""),
    points=np.asarray(project(activations, templates, classes)),
    labels=np.repeat(np.arange(3), [len(found) for found in rows]),
    corners=np.asarray(project(templates[jnp.asarray(classes)], templates, classes)),
    names=tuple(names[c] for c in classes),
  )


def draw(views: Sequence[View], path: pathlib.Path) -> None:
  """Draws the views as one PNG, three in a row: a dot an example, a cross where a template points."""
  columns = min(3, len(views))
  rows = -(-len(views) // columns)
  styles, handles = palette([name for view in views for name in view.names]), {}
  figure = figure_of(3.2 * columns + 0.2, 3.1 * rows)
  for i, view in enumerate(views):
    axes = add_axes(figure, rows, columns, i + 1)
    reach = np.abs(view.points).max()
    for c, name in enumerate(view.names):
      color = styles[name].color
      handles[name] = axes.scatter(*view.points[view.labels == c].T, s=5, color=color, alpha=0.5, linewidths=0)
      # Templates are far shorter than activations: shown by their direction, at the edge of the points.
      tip = view.corners[c] / max(np.linalg.norm(view.corners[c]), 1e-30) * reach
      axes.plot(*tip, marker="x", color=color, markersize=8, markeredgewidth=2)
    name_axes(axes, view.title, "")
    axes.set_aspect("equal", adjustable="datalim")
  note = "dots: examples, in the plane of the three templates; crosses: where the templates point"
  add_legend(figure, handles, note, markerscale=3)
  save(figure, path)


def main(argv: Sequence[str]) -> None:
  directories = [pathlib.Path(argument) for argument in argv[1:]]
  if not directories:
    raise UserError("no run is given; write python -m experiments.studies.projection DIR, a finished run's --workdir.")
  if len(_CLASSES.value) != 3 or not all(c.strip().isdecimal() for c in _CLASSES.value):
    raise UserError(f"--classes={','.join(_CLASSES.value)} is not three class numbers; write --classes=0,1,2.")
  classes = [int(c) for c in _CLASSES.value]
  views = [
    view_of(directory, member, classes, _SPLIT.value, _LIMIT.value, _DATA_DIR.value)
    for directory in directories for member in _MEMBER.value
  ]
  rows = [[view.title.replace("\n", ": "), len(view.points), f"{view.spread:.3f}"] for view in views]
  print(reporting.markdown_table(["network", "examples", "spread within / between classes"], rows))
  path = pathlib.Path(_OUT.value)
  draw(views, path)
  print(f"\n{path}")


def _dense_layers(params: Any, features: int, num_classes: int) -> list[tuple[jax.Array, jax.Array]]:
  """Returns (kernel [features, K], bias [1, K]) of every dense layer and 1x1 convolution of these sizes."""
  found = []
  if isinstance(params, Mapping):
    kernel = params.get("kernel")
    if hasattr(kernel, "shape") and kernel.shape[-2:] == (features, num_classes) and set(kernel.shape[:-2]) <= {1}:
      bias = jnp.asarray(params.get("bias", np.zeros(num_classes)), jnp.float32)
      found.append((jnp.asarray(kernel, jnp.float32).reshape(features, num_classes), bias[None]))
    for inner in params.values():
      found += _dense_layers(inner, features, num_classes)
  return found


if __name__ == "__main__":
  terminal.run(main, takes_arguments=True)
