"""One or more minimal configs for every row of every table that the contracts are checked on."""

from lib.core import build
from lib.models import MODELS
from lib.probes import PROBES
from lib.transforms import GRADIENTS, LOSSES, OPTIMIZERS, PARAMETERS, TARGETS
from lib.transforms.optimizers import build_optimizer

TABLES = {
  "models": MODELS, "targets": TARGETS, "losses": LOSSES, "gradients": GRADIENTS, "parameters": PARAMETERS,
  "optimizers": OPTIMIZERS, "probes": PROBES,
}

CONFIGS = {
  "models": {
    "mlp": [
      {"depth": 2, "width": 4},
      {"depth": 2, "width": 3, "norm": "batch", "dropout": 0.2, "activation": "tanh"},
      {"depth": 1, "width": 4, "norm": "layer", "bias_init": "torch_default"},
    ],
    "cnn": [{"layers": (("conv", 2, 3), ("max_pool", 2), ("dense", 4)), "norm": "batch", "dropout": 0.2}],
    "lenet5": [{}],
    "vgg11": [{}],
    "vgg16": [{}],
    "vgg_small": [{}],
  },
  "targets": {
    "label_smoothing": [{"alpha": 0.1, "convention": "uniform"}, {"alpha": 0.1, "convention": "other_classes"}],
    "mixup": [{}],
  },
  "losses": {
    "cross_entropy": [{}],
    "mse": [{"on": "logits"}, {"on": "probabilities"}],
  },
  "gradients": {
    "adaptive_grad_clip": [{"clipping": 0.01}],
    "add_decayed_weights": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "mask": "matrices"}],
    "annealed_noise": [{"eta": 0.1}, {"eta": 0.1, "generator": "threefry", "parameters": "matrices"}],
    "centralize": [{}],
    "clip": [{"max_delta": 0.5}],
    "clip_by_block_rms": [{"threshold": 0.5}],
    "clip_by_global_norm": [{"max_norm": 1.0}],
    "normalize_by_update_norm": [{}],
    "scale": [{"step_size": 0.5}],
  },
  "parameters": {"ema": [{"decay": 0.9}]},
  "optimizers": {name: [{"learning_rate": 0.1}] for name in (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
    "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "sgd", "sign_sgd", "yogi",
  )},
  "probes": {
    "accuracy": [{"split": "test"}],
    "deployed_accuracy": [{"split": "test"}],
    "gradient_norms": [{"split": "train", "limit": 0}],
    "memorization": [{"split": "train"}],
    "weight_statistics": [{}],
  },
}
# Too large to compile in a test: their contracts are checked on shapes alone.
SHAPES_ONLY = ("vgg11", "vgg16")


def configs(table):
  """Returns [{"name": row, ...}] of a table."""
  return [{"name": name, **fields} for name, rows in CONFIGS[table].items() for fields in rows]


def label(config):
  """Names a config in the list of tests."""
  return "-".join(str(value) for value in config.values() if isinstance(value, str))


def made(table, config):
  """Builds the object that a config describes."""
  if table == "optimizers":
    return build_optimizer(config)
  return build(TABLES[table], config, **({"num_classes": 10} if table == "models" else {}))
