"""Probes: what is measured while a network trains, outside the step and without moving anything.

A probe is a sum over pieces of fixed data:

      prepare(spec, key) -> [piece, ...]               once; all pieces have one structure and shape
      __call__(net, variables, piece) -> sums          pure; compiled once and mapped over the members
      finish(sums) -> {name: number or short array}    pure; of the sums over all pieces

Sums make averages exact over a set of any size, and pieces let one run that fits no single batch.
"""

from lib.probes.accuracy import Accuracy
from lib.probes.agreement import Agreement
from lib.probes.calibration import Calibration
from lib.probes.deployed_accuracy import DeployedAccuracy
from lib.probes.elr_gradient import ElrGradient
from lib.probes.forgetting import Forgetting
from lib.probes.gradient_norms import GradientNorms
from lib.probes.laziness import Laziness
from lib.probes.memorization import Memorization
from lib.probes.mutual_information import MutualInformation
from lib.probes.noise_scale import NoiseScale
from lib.probes.representation import Representation
from lib.probes.sharpness import Sharpness
from lib.probes.spec import Probe, ProbeSpec
from lib.probes.spectral_density import SpectralDensity
from lib.probes.stability import Stability
from lib.probes.tangent_kernel import TangentKernel
from lib.probes.tap_norms import TapNorms
from lib.probes.term_gradients import TermGradients
from lib.probes.weight_statistics import WeightStatistics

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
  "representation": Representation,
  "sharpness": Sharpness,
  "spectral_density": SpectralDensity,
  "stability": Stability,
  "tangent_kernel": TangentKernel,
  "tap_norms": TapNorms,
  "term_gradients": TermGradients,
  "weight_statistics": WeightStatistics,
}

__all__ = ["PROBES", "Probe", "ProbeSpec"]
