"""Numbers out of range in a whole config are found where it is prepared, by their paths; those of a sweep too."""

import pytest

from nurture.core import UserError
from nurture.training.config import check
from nurture.training.grid import members_of
from nurture.training.sweep import cohorts_of
from tests.tiny import read, tiny_config

NAN = float("nan")
RAMP = {"name": "linear_schedule", "init_value": 0.0, "end_value": 1.0, "transition_steps": 10}
RESNET = {"name": "resnet", "blocks": (1,), "width": 4}


def axis(path, *levels):
  return {"a": {"path": path, "levels": levels}}


@pytest.mark.parametrize("changes, message", [
  ({"losses__ce__weight": -1.0}, "config.losses.ce.weight is -1.0; give a number of at least 0"),
  ({"losses__ce__weight": NAN}, "config.losses.ce.weight is nan"),
  ({"losses__ce__weight": RAMP | {"end_value": -1.0}}, "config.losses.ce.weight.end_value is -1.0"),
  ({"losses__ce__weight": RAMP | {"transition_steps": 0}}, "config.losses.ce.weight.transition_steps is 0"),
  ({"model": RESNET, "scheduled": {"drop_path": 1.5}}, "config.scheduled.drop_path is 1.5; give a number from 0 to 1"),
  ({"model": RESNET, "scheduled": {"drop_path": RAMP | {"end_value": 2}}}, "config.scheduled.drop_path.end_value is 2"),
  ({"optimizer__learning_rate": -0.1}, "config.optimizer.learning_rate is -0.1; give a number of at least 0"),
  ({"optimizer__momentum": 5}, "config.optimizer.momentum is 5; give a number from 0 to below 1"),
  ({"parameters__average__decay": 1.5}, "config.parameters.average.decay is 1.5"),
  ({"data__augment": {"m": {"name": "mixup", "alpha": NAN, "symmetric": True}}}, "data.augment.m.alpha is nan"),
  ({"probes__test__every": 1.5}, "config.probes.test.every is 1.5"),
  ({"probes__test": {"name": "accuracy", "split": "test"}}, "config.probes.test.every is missing"),
  ({"batch_size": 0}, "config.batch_size is 0; give a whole number of at least 1"),
  ({"ensemble__seeds": 10**7}, "config.ensemble.seeds is 10000000; give a whole number from 1 to 1000000"),
  ({"checkpoint__every": -1}, "config.checkpoint.every is -1"),
], ids=lambda case: str(case)[:40])
def test_a_number_out_of_range_names_its_path(changes, message):
  with pytest.raises(UserError) as caught:
    read(tiny_config(**changes))
  assert message in str(caught.value) and str(caught.value).endswith(".")


@pytest.mark.parametrize("grid, message", [
  (axis("optimizer.learning_rate", 0.1, -0.1), "config.optimizer.learning_rate is -0.1"),
  (axis("losses.ce.weight", NAN, 1.0), "config.losses.ce.weight is nan"),
  (axis("targets.smoothing.alpha", 0.0, 1.5), "config.targets.smoothing.alpha is 1.5"),
  (axis("batch_size", 8, 0), "config.batch_size is 0"),
])
def test_every_level_of_a_sweep_is_held_to_the_range(grid, message):
  """Inside the program they are traced, and nothing could be said about them."""
  config = tiny_config(ensemble__grid=grid)
  check(config)
  with pytest.raises(UserError) as caught:
    cohorts_of(config, members_of(config), read)
  assert message in str(caught.value)
