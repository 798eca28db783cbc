"""Code of the user's own, in a folder outside of the repository: named by a config, swept, and kept in the manifest."""

import hashlib
import sys
import textwrap

import numpy as np
import pytest

from nurture import training
from nurture.core import UserError
from nurture.reporting import read_json
from tests.tiny import read, tiny_config

LOSSES = '''
import dataclasses

import jax
import jax.numpy as jnp

from nurture.core.hints import Positive, Share
from own_project import helpers


@dataclasses.dataclass(frozen=True)
class Gce:
  """Generalized cross-entropy (Zhang & Sabuncu 2018): (1 - p_y^q) / q."""

  q: Positive = 0.7
  tasks = ("classification",)

  def init(self, spec):
    return ()

  def apply(self, state, ctx):
    p = helpers.probability(ctx)
    return (1 - p**self.q) / self.q, state


@dataclasses.dataclass(frozen=True)
class Sce:
  """Symmetric cross-entropy (Wang et al. 2019): alpha CE + beta (-A) (1 - p_y)."""

  alpha: float = 0.1
  beta: float = 1.0

  def init(self, spec):
    return ()

  def apply(self, state, ctx):
    p = helpers.probability(ctx)
    return -self.alpha * jnp.log(p) + self.beta * 4 * (1 - p), state
'''
HELPERS = '''
import jax
import jax.numpy as jnp


def probability(ctx):
  return jnp.sum(jax.nn.softmax(ctx.outputs.logits) * ctx.targets, axis=-1)
'''
PARAMETERS = '''
import dataclasses

import jax
import jax.numpy as jnp

from nurture.core.hints import Count, Share


@dataclasses.dataclass(frozen=True)
class Swa:
  """The mean of the parameters from a step on (Izmailov et al. 2018)."""

  start: Count = 4

  def init(self, params):
    return {"mean": params, "count": jnp.int32(0)}

  def apply(self, state, params, step):
    counts = step >= self.start
    count = state["count"] + counts
    mean = jax.tree.map(
      lambda m, p: jnp.where(counts, m + (p - m) / jnp.maximum(count, 1), p), state["mean"], params)
    return params, {"mean": mean, "count": count}

  def evaluation(self, state, params):
    return state["mean"]


@dataclasses.dataclass(frozen=True)
class Lookahead:
  """Slow parameters that take a step towards the fast ones every k updates (Zhang et al. 2019)."""

  k: Count = 3
  rate: Share = 0.5

  def init(self, params):
    return params

  def apply(self, slow, params, step):
    now = (step + 1) % self.k == 0
    slow = jax.tree.map(lambda s, p: jnp.where(now, s + self.rate * (p - s), s), slow, params)
    return jax.tree.map(lambda s, p: jnp.where(now, s, p), slow, params), slow

  def evaluation(self, slow, params):
    return params


@dataclasses.dataclass(frozen=True)
class Prune:
  """Sets the smallest share of every kernel to 0 after each update."""

  share: Share = 0.5

  def init(self, params):
    return ()

  def apply(self, state, params, step):
    cut = lambda p: jnp.where(jnp.abs(p) < jnp.quantile(jnp.abs(p), self.share), 0.0, p) if p.ndim > 1 else p
    return jax.tree.map(cut, params), state

  def evaluation(self, state, params):
    return params
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
  """A folder of the user's own, from which names are imported."""
  folder = tmp_path / "elsewhere"
  (folder / "own_project").mkdir(parents=True)
  for name, text in {"__init__": "", "losses": LOSSES, "helpers": HELPERS, "parameters": PARAMETERS}.items():
    (folder / "own_project" / f"{name}.py").write_text(textwrap.dedent(text))
  monkeypatch.syspath_prepend(folder)
  yield folder
  for name in [name for name in sys.modules if name.partition(".")[0] in ("own_project", "broken")]:
    del sys.modules[name]


def loss(name, **fields):
  return {"term": {"name": f"own_project.losses:{name}", "weight": 1.0, **fields}}


def test_losses_and_parameter_transforms_of_ones_own_are_swept_in_one_program(own, tmp_path):
  config = tiny_config(
    losses=loss("Gce", q=0.7), parameters={
      "mean": {"name": "own_project.parameters:Swa"}, "slow": {"name": "own_project.parameters:Lookahead", "rate": 0.5},
      "prune": {"name": "own_project.parameters:Prune", "share": 0.5},
    },
    ensemble__seeds=2, evaluation__parameters="mean",
    ensemble__grid={
      "q": {"path": "losses.term.q", "levels": (0.3, 0.9)},
      "share": {"path": "parameters.prune.share", "levels": (0.2, 0.8)},
      "rate": {"path": "parameters.slow.rate", "levels": (0.5, 1.0)},
    },
  )
  results = training.run(config, tmp_path / "run")
  assert len(results["members"]) == 16 and {m["cohort"] for m in results["members"]} == {0}
  assert len({m["params_sha256"] for m in results["members"]}) == 16  # every number does something
  manifest = read_json(tmp_path / "run" / "manifest.json")
  text = (own / "own_project" / "losses.py").read_text()
  assert set(manifest["extensions"]) == {
    "own_project", "own_project.losses", "own_project.helpers", "own_project.parameters",
  }
  assert manifest["extensions"]["own_project.losses"] == {
    "sha256": hashlib.sha256(text.encode()).hexdigest(), "text": text,
  }


def test_a_loss_of_ones_own_is_its_equation(own):
  experiment = read(tiny_config(losses=loss("Sce", alpha=0.5, beta=2.0), targets={}))
  parts = experiment.parts()
  from own_project.losses import Sce  # noqa: PLC0415

  assert type(parts.losses["term"].term) is Sce and parts.losses["term"].term == Sce(0.5, 2.0)


@pytest.mark.parametrize("changes, words", [
  ({"losses": loss("Gcee")},
   "config.losses.term.name is 'own_project.losses:Gcee', but own_project.losses has no 'Gcee'; it has Gce, .*Sce"),
  ({"losses": loss("Gce", q=-1.0)}, "config.losses.term.q is -1.0; give a number above 0"),
  ({"losses": loss("Gce", r=1.0)}, "config.losses.term.r does not exist for 'own_project.losses:Gce'; .*known: q"),
  ({"losses": {"term": {"name": "own_project.loses:Gce", "weight": 1.0}}},
   "own_project.loses cannot be imported .ModuleNotFoundError: No module named 'own_project.loses'.; mend it, or st"),
  ({"losses": {"term": {"name": "broken:Gce", "weight": 1.0}}},
   "broken cannot be imported .ZeroDivisionError: division by zero in line 2 of .*broken.py.; mend it"),
  ({"losses": {"term": {"name": "own_project.losses:helpers", "weight": 1.0}}}, "which is module and not a class"),
  ({"losses": loss("Gce"), "data__source": {"name": "digits", "label": "ink"}, "data__label_noise": {}, "targets": {},
    "probes": {}}, "'own_project.losses:Gce', which serves classification, but digits asks for regression"),
])
def test_mistakes_are_one_sentence_with_the_error_of_the_code(own, changes, words, tmp_path):
  (own / "broken.py").write_text("x = 1\ny = x / 0\n")
  with pytest.raises(UserError, match=words) as error:
    training.run(tiny_config(**changes), tmp_path / "run")
  assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_pruned_weights_are_zero(own, tmp_path):
  prune = {"prune": {"name": "own_project.parameters:Prune", "share": 0.75}}
  training.run(tiny_config(parameters=prune), tmp_path / "run")
  params = training.member_variables(tmp_path / "run", 0)["params"]
  kernels = [leaf for layer in params.values() for name, leaf in layer.items() if name == "kernel"]
  assert all(np.mean(np.asarray(kernel) == 0) == pytest.approx(0.75, abs=0.02) for kernel in kernels)
