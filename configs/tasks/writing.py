"""Generation: a decoder writes the product of two binary numbers, digit by digit behind its own digits.

  python -m experiments.train --config=configs/tasks/writing.py --workdir=runs/writing

In training each position reads the right digits before it; "writing" measures what the network writes by itself, and
"test" each digit behind the right ones. 3-bit numbers, new examples at every step, 3 seeds; 107 s on 2 CPU cores
beside other jobs.
"""

from configs import base


def get_config():
  config = base.get_config()
  config.steps = 1000
  config.batch_size = 64
  config.data.source = {
    "name": "multiplication", "min_length": 3, "max_length": 3, "num_examples": 2000, "test_examples": 200,
    "written": True,
  }
  config.data.augment = {"fresh": {"name": "regenerate"}}
  config.model = {"name": "decoder", "depth": 2, "width": 64, "heads": 4}
  config.optimizer = {"name": "adam", "learning_rate": 0.001}
  config.probes = {
    "test": {"name": "accuracy", "split": "test", "every": 200},
    "writing": {"name": "writing", "split": "test", "limit": 100, "every": 500},
  }
  config.ensemble.seeds = 3
  config.report.metrics = ("test/accuracy", "writing/accuracy", "writing/exact")
  return config.lock()
