"""The plane of three classes: distances, orthogonality, and planes that are none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nurture.core import UserError
from nurture.similarity import projection

project = jax.jit(projection.project, static_argnums=2)


def distances(points):
  return [np.linalg.norm(points[a] - points[b]) for a, b in ((0, 1), (0, 2), (1, 2))]


def normal(seed, *shape):
  return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_templates_keep_their_distances_and_their_handedness():
  templates = normal(0, 6, 20)
  chosen = templates[[4, 1, 5]]
  corners = np.asarray(project(chosen, templates, (4, 1, 5)))
  np.testing.assert_allclose(distances(corners), distances(chosen), rtol=1e-5)
  np.testing.assert_allclose(corners.mean(axis=0), 0, atol=1e-5)
  assert corners[1, 0] > corners[0, 0] and abs(corners[1, 1] - corners[0, 1]) < 1e-5 and corners[2, 1] > corners[0, 1]


def test_projection_is_orthogonal_and_linear():
  templates, x = normal(0, 3, 20), normal(1, 5, 20)
  points = np.asarray(project(x, templates, (0, 1, 2)))
  rotation, _ = np.linalg.qr(normal(2, 20, 20))
  np.testing.assert_allclose(project(x @ rotation, templates @ rotation, (0, 1, 2)), points, atol=1e-4)
  # What is orthogonal to the plane changes nothing, and what lies in it moves by its length.
  sides = templates[1:] - templates[:1]
  away = x - x @ np.linalg.pinv(sides) @ sides
  np.testing.assert_allclose(project(x + 3 * away, templates, (0, 1, 2)), points, atol=1e-4)
  moved = project(x + sides[1:], templates, (0, 1, 2)) - points
  np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(sides[1]), rtol=1e-4)


@pytest.mark.parametrize("templates, missing", [
  ([[0.0, 0.1, 0.3], [0.1, 0.3, 0.7], [0.2, 0.5, 1.1]], [1]), (np.ones((3, 3)), [0, 1]),
])
def test_templates_on_a_line_or_on_a_point(templates, missing):
  points = np.asarray(project(normal(1, 4, 3), jnp.asarray(templates, jnp.float32), (0, 1, 2)))
  assert np.isfinite(points).all()
  np.testing.assert_array_equal(points[:, missing], 0)


def test_a_narrow_plane_is_one_and_has_no_unit():
  """Three templates a little off a line: (0, 0), (1, 0), (2, 1e-3), in a plane of any size."""
  plane, _ = np.linalg.qr(normal(3, 20, 2))
  corners = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 1e-3]], np.float32)
  expected = (corners - corners.mean(axis=0)) * np.sign(corners[1, 0])
  for scale in np.float32([1, 1e-25, 1e25]):
    templates = scale * (corners @ plane.T)
    points = np.asarray(project(templates, templates, (0, 1, 2))).astype(float) / scale
    np.testing.assert_allclose(points, expected, atol=1e-5)


@pytest.mark.parametrize("count, length", [(8, 0), (9, 1)])
def test_up_to_8_eps_of_the_templates_is_rounding(count, length):
  np.testing.assert_array_equal(projection._unit(jnp.float32([0, count * 2.0**-23 * 4]), 4.0), [0, length])


@pytest.mark.parametrize("classes", [(0, 1), (0, 1, 1), (0, 1, 2, 2), (0, 1, 3), (-1, 0, 1)])
def test_classes_must_be_three(classes):
  with pytest.raises(UserError, match="three different ones from 0 to 2"):
    projection.project(jnp.ones((4, 3)), jnp.eye(3), classes)
