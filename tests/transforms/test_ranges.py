"""Numbers that no method can mean: every row refuses them in one sentence, whoever wrote the row."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nurture.core import UserError, build, fields_of, hints
from nurture.core.schedules import SCHEDULES, as_schedule
from nurture.transforms import GRADIENTS, LOSSES, OPTIMIZERS, PARAMETERS, TARGETS
from nurture.transforms.optimizers import build_optimizer
from tests.contracts.rows import CONFIGS

NAN, INF = float("nan"), float("inf")
TABLES = {"targets": TARGETS, "losses": LOSSES, "gradients": GRADIENTS, "parameters": PARAMETERS}

# table, row, field: numbers out of range on either side, as far as there is one.
ABSURD = [
  ("targets", "label_smoothing", "alpha", (-0.1, 1.1)),
  ("targets", "distillation", "temperature", (0, -1, INF)),
  ("targets", "distillation", "hard_weight", (-0.1, 2)),
  ("losses", "distillation", "teacher_temperature", (0.0, -1, INF, 1e-60)),
  ("losses", "distillation", "student_temperature", (0, -1, INF)),
  ("losses", "discriminator", "learning_rate", (-0.1, INF)),
  ("losses", "discriminator", "momentum", (-0.1, 1, 5)),
  ("losses", "discriminator", "seed", (-1, 2**32)),
  ("losses", "generalized_cross_entropy", "q", (0.0, -0.1, 1.1, 1e-60)),
  *[("losses", name, "lam", (-1, INF)) for name in ("elr", "elr_plus", "target_divergence")],
  *[("losses", name, "beta", (-0.1, 1.1)) for name in ("elr", "elr_plus", "target_divergence")],
  ("gradients", "adaptive_grad_clip", "clipping", (-0.01,)),
  ("gradients", "adaptive_grad_clip", "eps", (-1e-3, INF)),
  ("gradients", "add_decayed_weights", "weight_decay", (-1, INF)),
  ("gradients", "annealed_noise", "eta", (-1, INF)),
  ("gradients", "annealed_noise", "gamma", (-1, INF)),
  ("gradients", "clip", "max_delta", (-1, -INF)),
  ("gradients", "clip_by_block_rms", "threshold", (-1, -INF)),
  ("gradients", "clip_by_global_norm", "max_norm", (-1, -INF)),
  ("gradients", "normalize_by_update_norm", "eps", (-1, INF)),
  ("gradients", "normalize_by_update_norm", "scale_factor", (-1, INF)),
  ("gradients", "scale", "step_size", (-1, INF)),
  ("parameters", "ema", "decay", (-0.1, 1.5)),
]


@pytest.mark.parametrize("table, name, field, values", ABSURD, ids=lambda case: str(case)[:20])
def test_rows_refuse_what_is_out_of_range(table, name, field, values):
  for value in values if field == "seed" else (*values, NAN):
    with pytest.raises(UserError, match=rf"^config\.x\.{field} is {value}; give a [^.]*\.$"):
      build(TABLES[table], {"name": name, **CONFIGS[table][name][0], field: value}, path="config.x")


# What optax calls by one name means one thing in all of its optimizers.
OF_OPTIMIZERS = {
  **dict.fromkeys(("b1", "b2", "b3", "decay", "rho", "momentum"), (-0.1, 1, 1.5, 5)),
  **dict.fromkeys(("learning_rate", "weight_decay", "weight_decay_rate", "eps_root", "trust_coefficient"), (-1, INF)),
  **dict.fromkeys(("initial_accumulator_value", "initial_scale", "min_norm", "min_dim_size_to_factor"), (-1,)),
  "clipping_threshold": (0, -1, INF),
  "decay_offset": (1,),
  "decay_rate": (-0.1, 1.1),
  "eps": (-1e-8, INF),
  "threshold": (3,),
}


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers_refuse_what_is_out_of_range(name):
  numbers = [field for field, p in fields_of(OPTIMIZERS[name]).items() if not isinstance(p.default, bool)
             and "mask" not in field and "dtype" not in field]
  for field in numbers:
    values = (*OF_OPTIMIZERS[field], *((0,) if field == "eps" and name not in ("adagrad", "lars") else ()))
    for value in values if field in ("decay_offset", "min_dim_size_to_factor") else (*values, NAN):
      with pytest.raises(UserError, match=rf"^config\.optimizer\.{field} is {value}; give a [^.]*\.$"):
        build_optimizer({"name": name, "learning_rate": 0.1, field: value}, path="config.optimizer")
    for value in ("fast", True, {"name": "x"}):
      with pytest.raises(UserError):
        build_optimizer({"name": name, "learning_rate": 0.1, field: value}, path="config.optimizer")


@pytest.mark.parametrize("name", ["adam", "adadelta", "lamb", "rmsprop", "adagrad", "lars"])
def test_where_eps_must_not_be_0_optax_divides_by_it(name):
  """The reason for the two ranges of eps: a parameter without gradient, such as one behind a dead unit."""
  params = {"w": jnp.ones(3)}
  optimizer = getattr(optax, name)(0.1, eps=0.0)
  update, _ = optimizer.update({"w": jnp.zeros(3)}, optimizer.init(params), params)
  refused = 0.0 not in hints.of(OPTIMIZERS[name])["eps"].__metadata__[0]
  assert refused == (not np.isfinite(update["w"]).all())


SOUND = {
  "cosine_decay_schedule": {"init_value": 1.0, "decay_steps": 10},
  "cosine_restarts": {"peak_value": 1.0, "period": 10},
  "constant_schedule": {"value": 1.0},
  "epoch_ramp": {"epochs": 2, "steps_per_epoch": 5},
  "exponential_decay": {"init_value": 1.0, "transition_steps": 10, "decay_rate": 0.5},
  "exponential_ramp": {"steps": 10},
  "linear_schedule": {"init_value": 1.0, "end_value": 0.0, "transition_steps": 10},
  "piecewise_constant_schedule": {"init_value": 1.0, "boundaries": (5,), "scales": (0.1,)},
  "polynomial_schedule": {"init_value": 1.0, "end_value": 0.0, "power": 2, "transition_steps": 10},
  "step_ramp": {"steps": 10},
  "warmup_cosine_decay_schedule": {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "decay_steps": 10},
  "warmup_exponential_decay_schedule": {
    "init_value": 0.0, "peak_value": 1.0, "warmup_steps": 2, "transition_steps": 10, "decay_rate": 0.5},
}
OF_SCHEDULES = {
  "alpha": (-0.1, 1.1),
  **dict.fromkeys(("decay_steps", "transition_steps", "period"), (0, -1, 2**31)),
  **dict.fromkeys(("decay_rate", "epochs", "steps_per_epoch", "steps"), (0, -1, INF)),
  **dict.fromkeys(("exponent", "power", "rate"), (-1, INF)),
  **dict.fromkeys(("transition_begin", "warmup_steps"), (-1,)),
  **dict.fromkeys(("init_value", "end_value", "peak_value", "value"), (-1, INF)),  # those of a learning rate
}


@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_schedules_refuse_what_is_out_of_range(name):
  built = as_schedule({"name": name, **SOUND[name]}, path="w", hint=hints.Share)
  assert all(math.isfinite(built(step)) for step in (0, 5, 10, 100))
  for field in fields_of(SCHEDULES[name]):
    for value in OF_SCHEDULES.get(field, ()):
      with pytest.raises(UserError, match=rf"^w\.{field} is {value}; give a [^.]*\.$"):
        as_schedule({"name": name, **SOUND[name], field: value}, path="w", hint=hints.NonNegative)
    if field in OF_SCHEDULES and inspect.Parameter.empty is not hints.of(SCHEDULES[name])[field]:
      for value in ("fast", True, (1, 2)):
        with pytest.raises(UserError):
          as_schedule({"name": name, **SOUND[name], field: value}, path="w")


@pytest.mark.parametrize("boundaries, scales, message", [
  ((-5,), (0.1,), r"w.boundaries\[0\] is -5"), ((5,), (-1,), r"w.scales\[0\] is -1"),
  ((5, 5), (1, 2), "each step once"),
])
def test_boundaries_and_scales(boundaries, scales, message):
  config = {"name": "piecewise_constant_schedule", "init_value": 1.0, "boundaries": boundaries, "scales": scales}
  with pytest.raises(UserError, match=message):
    as_schedule(config, path="w")


def test_a_number_is_held_to_the_range_of_what_it_moves():
  for value in (-0.1, 1.5, NAN):
    with pytest.raises(UserError, match=f"w is {value}; give a number from 0 to 1"):
      as_schedule(value, path="w", hint=hints.Share)


ZERO, TINY = {"b": jnp.zeros(2), "w": jnp.zeros((2, 2))}, {"b": jnp.array([1e-30, 0.0]), "w": jnp.ones((2, 2)) * 1e-30}
SOME = {"b": jnp.array([0.0, 3.0]), "w": jnp.array([[4.0, 0.0], [0.0, -12.0]])}


@pytest.mark.parametrize("config", [
  {"name": "clip", "max_delta": 0.0}, {"name": "clip_by_global_norm", "max_norm": 0.0},
  {"name": "clip_by_block_rms", "threshold": 0.0}, {"name": "adaptive_grad_clip", "clipping": 0.0},
  {"name": "adaptive_grad_clip", "clipping": 0.0, "eps": 0.0},
  {"name": "normalize_by_update_norm", "scale_factor": 0.0}, {"name": "normalize_by_update_norm", "eps": 0.0},
  {"name": "normalize_by_update_norm", "scale_factor": 0.0, "eps": 0.0}, {"name": "scale", "step_size": 0.0},
], ids=lambda config: "-".join(map(str, config.values())))
def test_gradients_at_their_limits_stay_numbers(config):
  """A limit of 0 lets nothing through, and a gradient of 0 is 0 at every limit; as plain numbers and as swept ones."""
  numbers = {field: value for field, value in config.items() if field != "name"}

  def update(gradient, **numbers):
    link = build(GRADIENTS, {"name": config["name"], **numbers})
    return link.update(gradient, link.init(SOME), SOME, key=jax.random.key(0), step=jnp.int32(0))[0]

  swept = jax.jit(jax.vmap(lambda gradient, numbers: update(gradient, **numbers), in_axes=(None, 0)))
  for gradient in (ZERO, TINY, SOME):
    for result in (update(gradient, **numbers), swept(gradient, {k: jnp.array([v]) for k, v in numbers.items()})):
      for leaf in jax.tree.leaves(result):
        assert np.isfinite(leaf).all()
        if gradient is ZERO or 0.0 in [value for field, value in numbers.items() if field != "eps"]:
          np.testing.assert_allclose(leaf, 0.0, atol=1e-29)
