"""Vision transformers with softmax and with sigmoid attention on CIFAR-10: 64 tokens, seven arms.

  python -m experiments.train --config=configs/architectures/vit_cifar10.py --data_dir=DATA --workdir=runs/vit_cifar10

Takes 17 min on 2 CPU cores beside other jobs, all arms together; test accuracy from 0.358 (sigmoid with b = 0) to
0.477 (softmax with LayerScale and QK-norm), 0.446 for sigmoid with b = -log n. DATA holds cifar-10-batches-bin/*.bin.
One learning rate for all arms, so the numbers say that each arm learns, not which is best. On a GPU, three seeds of a
larger one for 200 epochs (not measured):

  --config.model.width=192 --config.model.depth=9 --config.model.heads=3 --config.model.dtype=bfloat16 \
  --config.steps=78000 --config.ensemble.seeds=3 --config.data.test_subset=0
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 780  # 2 epochs
  config.batch_size = 128
  config.data.source = {"name": "cifar10"}
  config.data.test_subset = 5000
  config.data.augment = {
    "crop": {"name": "pad_crop", "pad": 4},  # pixels
    "flip": {"name": "flip"},
  }
  config.model = {
    "name": "vit", "patch": 4, "width": 64, "depth": 4, "heads": 4, "positions": "sincos2d", "pool": "gap",
    "attention": "softmax",
    "attention_bias": "-log_n",  # of sigmoid attention; a number, "-log_n" or "learned"
    "qk_norm": False,
    "layer_scale": 0.0,  # initial value; 0 is none
    "hybrid_norm": False, "dropout": 0.0, "dtype": "float32",
  }
  # Rate of dropping a branch of the last block for an example; less before it. A schedule may stand here.
  config.scheduled = {"drop_path": 0.0}
  config.gradients = {"clip": {"name": "clip_by_global_norm", "max_norm": 1.0}}
  config.optimizer = {
    "name": "adamw", "b1": 0.9, "b2": 0.99, "weight_decay": 0.05, "decay": "matrices",
    "learning_rate": {
      "name": "warmup_cosine_decay_schedule",
      "init_value": 0.0, "peak_value": 2e-3, "warmup_steps": 100,
      "decay_steps": config.get_ref("steps"), "end_value": 0.0,
    },
  }
  config.probes = {"test": {"name": "accuracy", "split": "test", "every": 390}}
  config.evaluation.batch_size = 500
  config.ensemble.grid = {
    "arm": {
      "path": ("model.attention", "model.attention_bias", "model.layer_scale", "model.qk_norm"),
      "levels": (
        ("softmax", 0.0, 0.0, False), ("softmax", 0.0, 0.1, True), ("sigmoid", "-log_n", 0.0, False),
        ("sigmoid", 0.0, 0.0, False), ("sigmoid", "-log_n", 0.1, False), ("sigmoid", "-log_n", 0.0, True),
        ("sigmoid", 0.0, 0.1, True),
      ),
      "names": (
        "softmax", "softmax, LayerScale, QK-norm", "sigmoid", "sigmoid, b = 0", "sigmoid, LayerScale",
        "sigmoid, QK-norm", "sigmoid, b = 0, LayerScale, QK-norm",
      ),
    },
  }
  config.log_every = 30
  config.checkpoint.every = 390
  return config.lock()
