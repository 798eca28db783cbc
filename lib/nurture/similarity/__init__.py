"""Similarity of two sets of features of the same samples: pure functions of x [n, d_x] and y [n, d_y].

They jit, vmap and differentiate; constant input gives no similarity and no gradient instead of NaN.
"""

from nurture.similarity.cca import cca, pwcca, svcca
from nurture.similarity.cka import cka_of_sums, hsic_sums, linear_cka, rbf_cka
from nurture.similarity.error_consistency import error_consistency, kappa
from nurture.similarity.gram import Gram, flatten, gram
from nurture.similarity.measures import MEASURES, Measure
from nurture.similarity.neighbors import knn_overlap
from nurture.similarity.procrustes import procrustes
from nurture.similarity.regression import linear_regression
from nurture.similarity.rsa import rsa

__all__ = [
  "MEASURES", "Gram", "Measure", "cca", "cka_of_sums", "error_consistency", "flatten", "gram", "hsic_sums",
  "kappa", "knn_overlap", "linear_cka", "linear_regression", "procrustes", "pwcca", "rbf_cka", "rsa", "svcca",
]
