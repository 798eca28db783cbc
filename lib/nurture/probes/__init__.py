"""Probes: measurements while a network trains, outside the step and without moving anything.

A probe is a sum over pieces of fixed data:

      prepare(spec, key) -> [piece, ...]               once; all pieces have one structure and shape
      __call__(net, variables, piece) -> sums          pure; compiled once and mapped over the members
      finish(sums) -> {name: number or short array}    pure; of the sums over all pieces

Sums make averages exact over a set of any size, and pieces let one run that fits no single batch. Most probes are a
`SplitProbe`, whose pieces are the batches of a split, or a `SampleProbe`, whose one piece is a sample of it; they add
the measurement.
"""

from nurture.probes.accuracy import Accuracy
from nurture.probes.agreement import Agreement
from nurture.probes.calibration import Calibration
from nurture.probes.deployed_accuracy import DeployedAccuracy
from nurture.probes.elr_gradient import ElrGradient
from nurture.probes.forgetting import Forgetting
from nurture.probes.gradient_norms import GradientNorms
from nurture.probes.laziness import Laziness
from nurture.probes.memorization import Memorization
from nurture.probes.mutual_information import MutualInformation
from nurture.probes.noise_scale import NoiseScale
from nurture.probes.recall import Recall
from nurture.probes.regression_error import RegressionError
from nurture.probes.representation import Representation
from nurture.probes.sample import SampleProbe
from nurture.probes.sharpness import Sharpness
from nurture.probes.spec import Probe, ProbeSpec, SplitProbe, counted
from nurture.probes.spectral_density import SpectralDensity
from nurture.probes.stability import Stability
from nurture.probes.tangent_kernel import TangentKernel
from nurture.probes.tap_norms import TapNorms
from nurture.probes.term_gradients import TermGradients
from nurture.probes.weight_statistics import WeightStatistics
from nurture.probes.writing import Writing

PROBES = {
  "accuracy": Accuracy,
  "agreement": Agreement,
  "calibration": Calibration,
  "deployed_accuracy": DeployedAccuracy,
  "elr_gradient": ElrGradient,
  "forgetting": Forgetting,
  "gradient_norms": GradientNorms,
  "laziness": Laziness,
  "memorization": Memorization,
  "mutual_information": MutualInformation,
  "noise_scale": NoiseScale,
  "recall": Recall,
  "regression_error": RegressionError,
  "representation": Representation,
  "sharpness": Sharpness,
  "spectral_density": SpectralDensity,
  "stability": Stability,
  "tangent_kernel": TangentKernel,
  "tap_norms": TapNorms,
  "term_gradients": TermGradients,
  "weight_statistics": WeightStatistics,
  "writing": Writing,
}

__all__ = ["PROBES", "Probe", "ProbeSpec", "SampleProbe", "SplitProbe", "counted"]
