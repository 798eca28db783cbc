"""Contracts of probes."""

import jax
import jax.numpy as jnp
import pytest

from nurture.testing import check_probe
from tests.contracts.rows import configs, label

# Unbiased sums of a batch need several examples, and their mean over batches depends on the cut.
WHOLE = ("representation",)


@pytest.mark.parametrize("config", configs("probes"), ids=label)
def test_probes(config):
  check_probe(config, whole=config["name"] in WHOLE)


class Twin:
  """The mean of the first logit, with one mistake of choice."""

  def __init__(self, mistake=""):
    self.mistake, self.calls = mistake, 0

  def prepare(self, spec, key):
    batches = spec.batches("train", 0)
    if self.mistake == "pieces differ":
      batches[-1] = jax.tree.map(lambda v: v[:1], batches[-1])
    return batches

  def __call__(self, net, variables, piece):
    logits = net.apply(variables, net.inputs(piece)).logits[:, 0]
    if self.mistake == "unknown reference":
      logits = net.references(piece)["coach"].logits
    weight = jnp.ones_like(logits) if self.mistake == "padding counts" else piece["weight"]
    if self.mistake == "mean of means":
      return {"sum": jnp.sum(logits * weight) / jnp.sum(weight), "count": jnp.float32(1)}
    self.calls += 1
    if self.mistake == "hidden state":
      weight = weight * self.calls
    return {"sum": jnp.sum(logits * weight), "count": jnp.sum(weight)}

  def finish(self, sums):
    value = sums["sum"] / (0 * sums["count"] if self.mistake == "divides by zero" else sums["count"])
    if self.mistake == "not a dict":
      return value
    if self.mistake == "leaves the device":
      return {"mean": jnp.float32(float(value))}
    return {"mean": jnp.full((3, 3), value) if self.mistake == "too large" else value}


def test_a_right_probe_passes():
  check_probe(Twin())


@pytest.mark.parametrize("mistake, words", {
  "padding counts": r"padded examples count \(mean is 74.*\); select with jnp.where",
  "mean of means": r"results depend on how the data are cut into pieces \(.*\); return sums",
  "pieces differ": "piece 3 has another form than the first",
  "hidden state": "the same arguments give another result when it is called again",
  "not a dict": "finish returns no dict with results",
  "too large": "the result 'mean' is no number and no short array",
  "leaves the device": "it needs the plain value of an array that is traced",
  "unknown reference": "it raises KeyError: 'coach'",
  "divides by zero": "a result is not finite",
}.items())
def test_a_wrong_probe_is_caught(mistake, words):
  with pytest.raises(AssertionError, match=words) as error:
    check_probe(Twin(mistake))
  assert str(error.value).startswith("Twin, classification") and "\n" not in str(error.value)
