"""Defaults of numbers that a config leaves out: one that moves changes every such config without a word."""

import inspect

import pytest

from nurture.transforms import GRADIENTS, LOSSES, PARAMETERS, TARGETS

# Rows and arguments that are not named here have no defaults.
DEFAULTS = {
  "adaptive_grad_clip": {"eps": 1e-3},  # Brock et al. 2021
  "add_decayed_weights": {"mask": "all"},
  "annealed_noise": {"gamma": 0.55, "generator": "counter", "parameters": "all", "seed": 0},  # Neelakantan et al. 2015
  "cross_entropy": {"of": "logits"},
  "discriminator": {"learning_rate": 0.01, "momentum": 0.9, "hidden": (), "final_relu": False, "seed": 0},
  "elr": {"lam": 3.0, "beta": 0.7, "form": "clamped"},  # Liu et al. 2020, CIFAR-10
  "elr_plus": {"lam": 3.0, "beta": 0.7, "reference": "average", "multiply_labels": False, "ramp_steps": 0},
  "generalized_cross_entropy": {"q": 0.7},  # Zhang and Sabuncu 2018
  "guidance": {"measure": "linear_cka", "taps": "pre", "guide_taps": "pre", "layer_map": "uniform", "reduction": "sum"},
  "huber": {"delta": 1.0},
  "mse": {"on": "logits"},
  "normalize_by_update_norm": {"scale_factor": 1.0, "eps": 1e-6},  # optax's
  "sam": {"rho": 0.05, "adaptive": False},  # Foret et al. 2021
  "target_divergence": {"lam": 1.0, "beta": 0.7},
}
# Of two tables' rows that share a name.
BY_TABLE = {("losses", "distillation"): {"form": "kl"},
            ("targets", "distillation"): {"temperature": 1.0, "hard_weight": 0.0}}


@pytest.mark.parametrize("table, rows", [
  ("gradients", GRADIENTS), ("losses", LOSSES), ("parameters", PARAMETERS), ("targets", TARGETS),
])
def test_defaults_are_what_configs_rely_on(table, rows):
  for name, row in rows.items():
    given = {field: p.default for field, p in inspect.signature(row).parameters.items() if p.default is not p.empty}
    assert given == BY_TABLE.get((table, name), DEFAULTS.get(name, {})), name
