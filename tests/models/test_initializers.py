"""Each initializer against the variance that its paper gives, on dense and on convolution kernels."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from nurture import models
from nurture.core import build
from nurture.models import INITIALIZERS

DENSE, CONV = (300, 200), (3, 3, 40, 150)  # fan-ins of 300 and 360, fan-outs of 200 and 1350


def draw(config, shape, seed=0, **supplied):
  return np.asarray(build(INITIALIZERS, config, **supplied)(jax.random.key(seed), shape, jnp.float32), np.float64)


def walk(width):
  return math.sqrt(2) * math.exp(1.2 / (width - 2.4)) / math.sqrt(width)


@pytest.mark.parametrize("config, dense, conv", [
  ("he", math.sqrt(2 / 300), math.sqrt(2 / 360)),
  ("he_fan_out", math.sqrt(2 / 200), math.sqrt(2 / 1350)),
  ("lecun", math.sqrt(1 / 300), math.sqrt(1 / 360)),
  ("xavier", math.sqrt(2 / 500), math.sqrt(2 / 1710)),
  ({"name": "xavier", "gain": 2.0}, math.sqrt(8 / 500), math.sqrt(8 / 1710)),
  ("caffe_xavier", math.sqrt(1 / 300), math.sqrt(1 / 360)),
  ("torch_default", math.sqrt(1 / 900), math.sqrt(1 / 1080)),
  ("timm", 0.02, 0.02),
  ("random_walk", walk(300), walk(360)),
  ({"name": "random_walk", "nonlinearity": "linear"}, math.exp(1 / 600) / 300**0.5, math.exp(1 / 720) / 360**0.5),
  ({"name": "normal", "std": 0.1}, 0.1, 0.1),
  ({"name": "normal", "std": 0.03, "gain": 1.0}, math.hypot(0.03, 300**-0.5), math.hypot(0.03, 360**-0.5)),
])
@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_mean_and_standard_deviation(config, dense, conv, layer):
  shape, std = (DENSE, dense) if layer == "dense" else (CONV, conv)
  values = draw(config, shape)
  assert abs(values.mean()) < 5 * std / math.sqrt(values.size)
  # The relative error of a variance is sqrt((kurtosis - 1) / n) <= sqrt(2 / n).
  assert abs(values.var() / std**2 - 1) < 5 * math.sqrt(2 / values.size)


@pytest.mark.parametrize("width, gain", [(3, 1.97370), (6, 1.97370), (50, 1.45036)])  # sqrt(2) exp(1/3), exp(1.2/47.6)
def test_random_walk_corrects_for_narrow_layers(width, gain):
  values = draw("random_walk", (width, 200_000 // width))
  assert abs(values.var() * width / gain**2 - 1) < 5 * math.sqrt(2 / values.size)


@pytest.mark.parametrize("name, law", [
  ("he", lambda s: stats.norm(scale=s)),
  ("random_walk", lambda s: stats.norm(scale=s)),
  ("xavier", lambda s: stats.uniform(-math.sqrt(3) * s, 2 * math.sqrt(3) * s)),
  ("torch_default", lambda s: stats.uniform(-math.sqrt(3) * s, 2 * math.sqrt(3) * s)),
])
def test_shape_of_the_distribution(name, law):
  std = {"he": 2 / 300, "xavier": 2 / 500, "torch_default": 1 / 900, "random_walk": walk(300) ** 2}[name] ** 0.5
  assert stats.kstest(draw(name, DENSE).ravel(), law(std).cdf).pvalue > 1e-4


def test_orthogonal_rows_have_the_norm_scale():
  tall = draw({"name": "orthogonal", "scale": 2.0}, (60, 20))
  np.testing.assert_allclose(tall.T @ tall, 4 * np.eye(20), atol=1e-5)


def test_constants():
  assert not draw("zeros", DENSE).any()
  assert (draw({"name": "constant", "value": 0.5}, DENSE) == 0.5).all()


def test_a_bias_gets_the_fan_in_of_its_layer(key):
  module = models.build("mlp", num_classes=5000, depth=0, bias_init="torch_default")
  bias = np.asarray(module.init(key, jnp.zeros((1, 16)))["params"]["head"]["bias"])
  assert 0.249 < np.abs(bias).max() <= 0.25
  assert stats.kstest(bias, stats.uniform(-0.25, 0.5).cdf).pvalue > 1e-4


def test_numbers_may_be_traced():
  def std(value):
    return jnp.std(build(INITIALIZERS, {"name": "normal", "std": 0.0, "gain": value})(jax.random.key(0), (100, 50)))

  values = jnp.array([0.0, 0.5, 2.0])
  np.testing.assert_allclose(jax.jit(jax.vmap(std))(values), [std(float(v)) for v in values], rtol=1e-5)
