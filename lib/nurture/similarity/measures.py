"""The table of measures, and the properties of each."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

from jaxtyping import Array, Float

from nurture.similarity.cca import cca, pwcca, svcca
from nurture.similarity.cka import linear_cka, rbf_cka
from nurture.similarity.gram import Gram
from nurture.similarity.neighbors import knn_overlap
from nurture.similarity.procrustes import procrustes
from nurture.similarity.regression import linear_regression
from nurture.similarity.rsa import rsa


@dataclasses.dataclass(frozen=True)
class Measure:
  """A measure of how alike two sets of features are, with its properties.

  Attributes:
    function: (x [n, d_x], y [n, d_y]) -> [] float.
    range: the smallest and the largest value.
    invariances: maps of x alone, or of y alone, that change nothing: "orthogonal" (x Q), "permutation" (of features),
      "isotropic_scaling" (a x), "translation" (x + 1 b^T), "column_scaling" (x D, D diagonal and positive),
      "invertible_linear" (x A, where n > d). Scalings by 1e-10 to 1e10 change nothing in float32 either; what rounds
      in x Q, in x + 1 b^T and in x A is lost before the measure sees it.
    is_similarity: larger is more alike; otherwise it is a distance, 0 where they are alike.
    is_metric: symmetric, 0 between x and x, and obeys the triangle inequality.
    symmetric: of (x, y) and (y, x).
    accepts_gram: a `Gram` may stand for x, for y or for both.
    differentiable: almost everywhere, with a gradient that says something, and one that is finite everywhere.
  """

  function: Callable[..., Array]
  range: tuple[float, float]
  invariances: frozenset[str]
  is_similarity: bool = True
  is_metric: bool = False
  symmetric: bool = True
  accepts_gram: bool = False
  differentiable: bool = True

  def __call__(self, x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram) -> Float[Array, ""]:
    """Returns the measure."""
    return self.function(x, y)

  def dissimilarity(self, x: Float[Array, "n d_x"] | Gram, y: Float[Array, "n d_y"] | Gram) -> Float[Array, ""]:
    """Returns a loss that falls as x and y get more alike: 1 - s of a similarity s, a distance as it is."""
    value = self.function(x, y)
    return 1 - value if self.is_similarity else value


_RIGID = frozenset({"orthogonal", "permutation", "isotropic_scaling", "translation"})

MEASURES = {
  "linear_cka": Measure(linear_cka, (0, 1), _RIGID, accepts_gram=True),
  "linear_cka_debiased": Measure(functools.partial(linear_cka, debiased=True), (-1, 1), _RIGID, accepts_gram=True),
  "rbf_cka": Measure(rbf_cka, (0, 1), _RIGID, accepts_gram=True),
  "rbf_cka_debiased": Measure(functools.partial(rbf_cka, debiased=True), (-1, 1), _RIGID, accepts_gram=True),
  "rsa": Measure(rsa, (-1, 1), _RIGID - {"translation"}),
  "rsa_centred": Measure(functools.partial(rsa, centred=True), (-1, 1), _RIGID, accepts_gram=True),
  "procrustes": Measure(
    procrustes, (0, math.sqrt(2)), _RIGID, is_similarity=False, is_metric=True, accepts_gram=True
  ),
  "cca": Measure(cca, (0, 1), _RIGID | {"column_scaling", "invertible_linear"}),
  "svcca": Measure(svcca, (0, 1), _RIGID),
  "pwcca": Measure(pwcca, (0, 1), _RIGID - {"orthogonal"}, symmetric=False),
  "linear_regression": Measure(linear_regression, (0, 1), _RIGID, symmetric=False),
  "knn_overlap": Measure(knn_overlap, (0, 1), _RIGID, accepts_gram=True, differentiable=False),
}
