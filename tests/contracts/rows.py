"""One or more minimal configs for every row of every table that the contracts are checked on."""

from nurture.core import Preset, build
from nurture.core.task import served_by
from nurture.data.tasks import TASKS
from nurture.models import MODELS
from nurture.probes import PROBES
from nurture.transforms import GRADIENTS, LOSSES, OPTIMIZERS, PARAMETERS, TARGETS
from nurture.transforms.optimizers import build_optimizer

TABLES = {
  "models": MODELS, "targets": TARGETS, "losses": LOSSES, "gradients": GRADIENTS, "parameters": PARAMETERS,
  "optimizers": OPTIMIZERS, "probes": PROBES,
}

# Networks at their published sizes: too large to compile in a test, so only their shapes are checked.
PUBLISHED = tuple(
  name for name, row in MODELS.items()
  if isinstance(row, Preset) and name not in ("gru", "lenet5", "lstm", "rnn", "vgg_small")
)

CONFIGS = {
  "models": {
    "mlp": [
      {"depth": 2, "width": 4},
      {"depth": 2, "width": 3, "norm": "batch", "dropout": 0.2, "activation": "tanh"},
      {"depth": 1, "width": 4, "norm": "layer", "bias_init": "torch_default"},
    ],
    "cnn": [{"layers": (("conv", 2, 3), ("max_pool", 2), ("dense", 4)), "norm": "batch", "dropout": 0.2}],
    "lenet5": [{}],
    "vgg_small": [{}],
    "vanillanet": [{"dims": (3, 4, 4), "strides": (2, 1), "stem_patch": 2, "act_num": 1, "dropout": 0.1}],
    "vanillanet_deployed": [{"dims": (3, 4, 4), "strides": (2, 1), "stem_patch": 2, "act_num": 1, "kernel_init": "he"}],
    "two_towers": [{
      "width": 3, "first": {"field": "image", "name": "mlp", "depth": 1, "width": 4, "norm": "batch"},
      "second": {"field": "tokens", "name": "gru", "width": 4, "vocabulary": 10, "pool": "last"},
    }],
    "pair": [{"model": {"name": "mlp", "depth": 1, "width": 4, "norm": "batch"}}],
    "simplenet": [
      {"layers": ((3, 3), "pool", (4, 1)), "dropout": 0.2},
      {"layers": ((3, 3), "pool", (4, 1)), "dropout": 0.2, "norms": "caffe", "dropout_placement": "caffe"},
    ],
    "resnet": [
      {"blocks": (1, 1), "width": 4},
      {"blocks": (1, 1), "width": 4, "bottleneck": True, "shortcut": False, "remat": True},
    ],
    "vit": [
      {"patch": 4, "width": 8, "depth": 2, "heads": 2},
      {"patch": 4, "width": 8, "depth": 2, "heads": 2, "attention": "sigmoid", "attention_bias": "learned",
       "qk_norm": True, "layer_scale": 0.1, "hybrid_norm": True, "scan": True, "pool": "cls", "positions": "learned"},
    ],
    "decoder": [
      {"width": 8, "depth": 2, "heads": 2, "max_length": 8, "attention": "sigmoid", "positions": "alibi"},
      {"width": 8, "depth": 2, "heads": 2, "max_length": 8, "positions": "rope", "remat": True, "dropout": 0.1},
    ],
    "rnn": [{"depth": 2, "width": 4, "dropout": 0.1}],
    "lstm": [{"depth": 1, "width": 4}, {"depth": 1, "width": 4, "pool": "last"}],
    "gru": [{"depth": 1, "width": 4}],
    **{name: [{}] for name in PUBLISHED},
  },
  "targets": {
    "label_smoothing": [{"alpha": 0.1, "convention": "uniform"}, {"alpha": 0.1, "convention": "other_classes"}],
    "distillation": [{"teachers": ("teacher",), "temperature": 2.0, "hard_weight": 0.3}],
  },
  "losses": {
    "contrastive": [{}],
    "cross_entropy": [{}],
    "discriminator": [{"teachers": ("teacher",), "form": "adversarial"}],
    "distillation": [
      {"teachers": ("teacher",), "teacher_temperature": 2.0, "student_temperature": 3.0, "scale": "t_squared"},
    ],
    "elr": [{}, {"form": "exact"}],
    "elr_plus": [{"reference": "teacher"}, {"reference": "teacher", "multiply_labels": True, "ramp_steps": 10}],
    "forgetting_events": [{}],
    "generalized_cross_entropy": [{}],
    "guidance": [{"reference": "teacher", "taps": "dense", "guide_taps": "dense"}],
    "huber": [{"delta": 0.5}],
    "mse": [{"on": "logits"}, {"on": "probabilities"}],
    "ranking": [{}],
    "target_divergence": [{}],
  },
  "gradients": {
    "adaptive_grad_clip": [{"clipping": 0.01}],
    "add_decayed_weights": [{"weight_decay": 0.1}, {"weight_decay": 0.1, "mask": "matrices"}],
    "annealed_noise": [{"eta": 0.1}, {"eta": 0.1, "generator": "threefry", "parameters": "matrices"}],
    "centralize": [{}],
    "clip": [{"max_delta": 0.5}],
    "clip_by_block_rms": [{"threshold": 0.5}],
    "clip_by_global_norm": [{"max_norm": 1.0}],
    "extragradient": [{"step_size": 0.1}],
    "normalize_by_update_norm": [{}],
    "sam": [{}, {"rho": 0.1, "adaptive": True}],
    "scale": [{"step_size": 0.5}],
  },
  "parameters": {"ema": [{"decay": 0.9}]},
  "optimizers": {name: [{"learning_rate": 0.1}] for name in (
    "adabelief", "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad",
    "fromage", "lamb", "lars", "lion", "nadam", "nadamw", "novograd", "radam", "rmsprop", "sgd", "sign_sgd", "yogi",
  )},
  "probes": {
    "accuracy": [{"split": "test"}],
    "agreement": [{"reference": "guide"}],
    "calibration": [{"split": "test"}],
    "deployed_accuracy": [{"split": "test"}],
    "elr_gradient": [{"term": "elr"}],
    "forgetting": [{"term": "events"}],
    "gradient_norms": [{"split": "train", "limit": 0}],
    "laziness": [{"limit": 0}],
    "memorization": [{"split": "train"}],
    "mutual_information": [{"split": "train", "shift": 0, "noise": 0.5}],
    "noise_scale": [{"limit": 0, "batch": 2}],
    "recall": [{"limit": 0, "k": (1, 3)}],
    "regression_error": [{"split": "test"}],
    "representation": [{"reference": "guide", "taps": "dense", "reference_taps": "dense"}],
    "sharpness": [{"limit": 0, "top": 2}, {"limit": 0, "matrix": "gauss_newton", "chunk": 3}],
    "spectral_density": [{"limit": 0, "steps": 4, "vectors": 2}],
    "stability": [{"split": "test"}],
    "tangent_kernel": [{"limit": 0, "top": 2}],
    "tap_norms": [{"kind": "dense", "limit": 0}],
    "term_gradients": [{"limit": 0}],
    "weight_statistics": [{}],
    "writing": [{"split": "test", "limit": 0}],
  },
}


def tasks_of(table, config):
  """Returns the names of the tasks that a row serves."""
  return served_by(TABLES[table][config["name"]]) or tuple(TASKS)


def configs(table):
  """Returns [{"name": row, ...}] of a table."""
  return [{"name": name, **fields} for name, rows in CONFIGS[table].items() for fields in rows]


def label(config):
  """Names a config, or a task, in the list of tests."""
  words = [config] if isinstance(config, str) else [value for value in config.values() if isinstance(value, str)]
  return "-".join(words)


def made(table, config):
  """Builds the object that a config describes."""
  if table == "optimizers":
    return build_optimizer(config)
  return build(TABLES[table], config, **({"num_classes": 10} if table == "models" else {}))
