"""Forms of the sigmoid: what they lose where weights are about 1 / n."""

import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from experiments.studies import sigmoid_forms
from nurture.attention import numerics

LOGITS = np.linspace(-25, 20, 20_001).astype(np.float32)
EXACT = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
REST = 1 / (1 + np.exp(LOGITS.astype(np.float64)))


def errors(form, functions):
  """Returns the relative errors of sigmoid and 1 - sigmoid over LOGITS."""
  weight, rest = numerics.FORMS[form](jnp.asarray(LOGITS * np.float32(numerics.LOG2_E)), functions)
  return [np.abs(np.asarray(x, np.float64) / y - 1) for x, y in ((weight, EXACT), (rest, REST))]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("form, bound", [("rsqrt", 1e-5), ("polynomial", 4e-4)])
def test_forms_by_exp2_are_as_exact_for_small_weights(form, bound, sign):
  functions = sigmoid_forms.hardware(lambda largest, shape: sign * sigmoid_forms.systematic(largest, shape))
  for error in errors(form, functions):
    assert error.max() <= bound


def test_the_form_by_tanh_is_not():
  weight, _ = errors("tanh", sigmoid_forms.hardware(sigmoid_forms.systematic))
  assert weight[LOGITS > 0].max() < numerics.TANH_ERROR
  assert np.all(weight[-np.log(4096) > LOGITS] > 0.5)
  # As predicted: the error of the instruction times n / 2.
  at = np.searchsorted(LOGITS, -np.log(1024))
  assert weight[at] == pytest.approx(numerics.TANH_ERROR * 1024 / 2, rel=0.01)


def test_forms_are_finite_at_any_logit():
  extreme = jnp.asarray([-1e4, -200.0, 0.0, 200.0, 1e4])
  for form in numerics.FORMS.values():
    weight, rest = form(extreme)
    np.testing.assert_allclose(weight, [0, 0, 0.5, 1, 1], atol=4e-4)
    np.testing.assert_allclose(rest, [1, 1, 0.5, 0, 0], atol=4e-4)


@pytest.mark.parametrize("degree", [2, 3, 4, 6])
def test_the_polynomial_is_the_best(degree):
  """Its error takes its largest size at degree + 2 places, with signs in turn."""
  e = np.linspace(0, 1, 4000)
  error = np.polyval(numerics.reciprocal(degree)[::-1], e) * (1 + e) - 1
  turns = [np.abs(part).max() for part in np.split(error, 1 + np.flatnonzero(np.diff(np.sign(error))))]
  assert len(turns) == degree + 2
  np.testing.assert_allclose(turns, 1 / np.cosh((degree + 1) * np.arccosh(3)), rtol=1e-4)


@pytest.mark.parametrize("length", [256, 4096, 16_384])
def test_what_is_chosen_is_exact_enough(length):
  """The output of sigmoid attention in bfloat16 with b = -log n, under the instructions' largest errors."""
  form = numerics.choose(-np.log(length))
  for kind in (sigmoid_forms.systematic, sigmoid_forms.random):
    assert sigmoid_forms.relative_error(form, length, kind) <= sigmoid_forms.GOAL
  assert sigmoid_forms.relative_error("tanh", length, sigmoid_forms.systematic) > 2 * sigmoid_forms.GOAL


def test_what_is_chosen():
  assert [numerics.choose(b) for b in (3.0, 0.0, -1.9, -2.1, -8.0, None)] == ["tanh"] * 3 + ["polynomial"] * 3
  for bias in (0.0, -1.0, -1.9):  # where tanh is chosen a weight of that size is exact enough
    weight, _ = errors("tanh", sigmoid_forms.hardware(sigmoid_forms.systematic))
    assert weight[np.searchsorted(LOGITS, bias)] <= numerics.TOLERANCE


def test_the_binary(tmp_path, capsys):
  with flagsaver.flagsaver():  # flags are those of the whole process: another binary must find its own
    sigmoid_forms.flags.FLAGS(["sigmoid_forms", f"--workdir={tmp_path}", "--lengths=64,256"])
    sigmoid_forms.main([])
  assert "tanh, systematic" in capsys.readouterr().out
  assert (tmp_path / "plots" / "sigmoid_forms.png").stat().st_size > 10_000
