"""Counts that are exact, and transition matrices that are those of the papers."""

import numpy as np
import pytest

from nurture.core import UserError, build
from nurture.data import LABEL_NOISE
from nurture.data.label_noise import MAPPINGS

_K = 10
_LABELS = np.random.default_rng(1).permutation(np.repeat(np.arange(_K, dtype=np.int32), 2000))


def _noise(config, labels=_LABELS, num_classes=_K, seed=0):
  return build(LABEL_NOISE, config)(labels, num_classes, np.random.default_rng(seed))


def _transition(noisy, labels=_LABELS, num_classes=_K):
  counts = np.zeros((num_classes, num_classes))
  np.add.at(counts, (labels, noisy), 1)
  return counts / counts.sum(1, keepdims=True)


ROWS = [
  {"name": "symmetric", "rate": 0.4, "include_true": True},
  {"name": "symmetric", "rate": 0.4, "include_true": False},
  {"name": "asymmetric", "rate": 0.3, "mapping": "cifar10"},
  {"name": "asymmetric", "rate": 0.3, "mapping": "cifar10", "sequential": True},
  {"name": "per_class", "rates": tuple(i / 10 for i in range(10))},
]


@pytest.mark.parametrize("config", ROWS)
def test_same_seed_same_noise(config):
  before = _LABELS.copy()
  one, two, other = (_noise(config, seed=s) for s in (3, 3, 4))
  np.testing.assert_array_equal(one, two)
  assert np.any(one != other) and one.dtype == np.int32
  np.testing.assert_array_equal(_LABELS, before)  # the input is left alone
  np.testing.assert_allclose(_transition(one).sum(1), 1.0)


@pytest.mark.parametrize("config", [
  {"name": "symmetric", "rate": 0.0, "include_true": True},
  {"name": "symmetric", "rate": 0.0, "include_true": False},
  {"name": "asymmetric", "rate": 0.0, "mapping": "cifar10"},
  {"name": "per_class", "rates": (0.0,) * 10},
])
def test_rate_zero_changes_nothing(config):
  np.testing.assert_array_equal(_noise(config), _LABELS)


_COUNTS = [(0.4, 20_000, 8000), (0.33, 7, 3), (0.07, 100, 7), (1.0, 9, 9), (1e-6, 9, 1)]


@pytest.mark.parametrize("rate, n, count", _COUNTS)
def test_symmetric_without_the_true_class_is_wrong_exactly_ceil_rate_n_times(rate, n, count):
  labels = _LABELS[:n]
  noisy = _noise({"name": "symmetric", "rate": rate, "include_true": False}, labels)
  assert np.sum(noisy != labels) == count


def test_symmetric_without_the_true_class_is_uniform_over_the_others():
  t = _transition(_noise({"name": "symmetric", "rate": 0.4, "include_true": False}))
  # Standard deviation of an entry: sqrt(0.4/9 / 2000) = 0.0047.
  np.testing.assert_allclose(t, np.full((_K, _K), 0.4 / 9) + (0.6 - 0.4 / 9) * np.eye(_K), atol=5 * 0.011)
  off = t[~np.eye(_K, dtype=bool)]
  assert np.abs(off - 0.4 / 9).max() < 5 * 0.0047


def test_symmetric_with_the_true_class_is_wrong_rate_times_one_minus_one_over_k():
  rate, n = 0.8, len(_LABELS)
  config = {"name": "symmetric", "rate": rate, "include_true": True}
  wrong = [np.sum(_noise(config, seed=s) != _LABELS) for s in range(20)]
  # Wrong ~ Binomial(ceil(rate n), 1 - 1/K).
  mean, deviation = rate * n * 0.9, np.sqrt(rate * n * 0.9 * 0.1)
  assert abs(np.mean(wrong) - mean) < 4 * deviation / np.sqrt(20)
  assert 0.5 * deviation < np.std(wrong) < 1.6 * deviation
  assert set(_noise({**config, "rate": 1.0}, np.zeros(2000, np.int32))) == set(range(10))


def test_asymmetric_transition_matrix_of_cifar10():
  t = _transition(_noise({"name": "asymmetric", "rate": 0.3, "mapping": "cifar10"}))
  expected = np.eye(_K)
  for source, target in {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}.items():
    expected[source, source], expected[source, target] = 0.7, 0.3
  np.testing.assert_allclose(t, expected, atol=1e-12)


def test_sequential_asymmetric_noise_moves_what_it_has_moved_before():
  """In expectation a cat stays a dog with (1 - r) r; how many come back is drawn, hypergeometric."""
  rate, size = 0.4, 2000
  config = {"name": "asymmetric", "rate": rate, "mapping": "cifar10", "sequential": True}
  draws = [_transition(_noise(config, seed=s)) for s in range(20)]
  t = np.mean(draws, axis=0)
  expected = np.eye(_K)
  for source, target, share in ((9, 1, rate), (2, 0, rate), (4, 7, rate), (3, 5, rate * (1 - rate)), (5, 3, rate)):
    expected[source, source], expected[source, target] = 1 - share, share
  for row in (9, 2, 4):  # never met twice: exact
    np.testing.assert_allclose([draw[row] for draw in draws], np.tile(expected[row], (20, 1)), atol=1e-12)
  # ceil(0.4 * 2800) of 2800 dogs turn, of which 800 were cats: standard deviation 11.7 of them, 0.0013 over 20 draws.
  deviation = np.sqrt(0.4 * 0.6 * 800 * 2000 / 2799) / size / np.sqrt(20)
  np.testing.assert_allclose(t, expected, atol=5 * deviation)
  assert abs(1 - np.diag(t).mean() - 0.184) < 5 * deviation
  for draw in draws:  # what leaves the dogs is exact: ceil(0.4 * 2800) of them
    assert round(draw[3, 3] * size + draw[5, 3] * size) == 1200 + 1120


def test_the_two_readings_differ_only_where_a_class_is_met_twice():
  config = {"name": "asymmetric", "rate": 0.4, "mapping": "cifar10"}
  stated = _noise(config | {"sequential": False})
  np.testing.assert_array_equal(_noise(config), stated)
  assert np.sum(_transition(stated).diagonal() == 0.6) == 5
  once = {"name": "asymmetric", "rate": 0.4, "mapping": {"3": 5, "2": 0}}
  np.testing.assert_array_equal(_noise(once | {"sequential": True}), _noise(once))
  chain = {"name": "asymmetric", "rate": 1.0, "mapping": {"0": 1, "1": 2, "2": 0}, "sequential": True}
  np.testing.assert_array_equal(_noise(chain, np.arange(3, dtype=np.int32), 3), [0, 0, 0])
  np.testing.assert_array_equal(_noise(chain | {"sequential": False}, np.arange(3, dtype=np.int32), 3), [1, 2, 0])


def test_asymmetric_rounds_up_in_each_class():
  labels = np.array([0, 0, 0, 1, 1, 2], np.int32)
  noisy = _noise({"name": "asymmetric", "rate": 0.5, "mapping": {"0": 2, "2": 1}}, labels, 3)
  assert sorted(noisy[:3]) == [0, 2, 2] and list(noisy[3:]) == [1, 1, 1]


@pytest.mark.parametrize("bad, words", [
  ("cifar11", "known: cifar10"),
  ({"10": 1}, "has the class 10, but the data has the classes 0 to 9"),
  ({"1": -1}, "has the class -1"),
  ({"cat": 5}, "give class numbers"),
  ({"1": 2, "01": 3}, "each once"),
  ({"1": True}, "give class numbers"),
  ({"1": 2.5}, "give class numbers"),
])
def test_a_bad_mapping_is_one_sentence(bad, words):
  with pytest.raises(UserError, match=words):
    _noise({"name": "asymmetric", "rate": 0.3, "mapping": bad})


def test_cifar100_maps_are_cycles_of_five():
  for name in ("cifar100_alphabetical", "cifar100_superclass"):
    step = np.array([MAPPINGS[name][str(i)] for i in range(100)])
    walk = np.arange(100)
    for _ in range(4):
      walk = step[walk]
      assert np.all(walk != np.arange(100))
    np.testing.assert_array_equal(step[walk], np.arange(100))
  alphabetical = MAPPINGS["cifar100_alphabetical"]
  assert [alphabetical[str(i)] for i in (0, 3, 4, 95, 99)] == [1, 4, 0, 96, 95]


def test_cifar100_superclasses_are_those_of_the_published_list():
  groups = """beaver dolphin otter seal whale; aquarium_fish flatfish ray shark trout;
    orchid poppy rose sunflower tulip; bottle bowl can cup plate; apple mushroom orange pear sweet_pepper;
    clock keyboard lamp telephone television;
    bed chair couch table wardrobe; bee beetle butterfly caterpillar cockroach; bear leopard lion tiger wolf;
    bridge castle house road skyscraper; cloud forest mountain plain sea; camel cattle chimpanzee elephant kangaroo;
    fox porcupine possum raccoon skunk; crab lobster snail spider worm; baby boy girl man woman;
    crocodile dinosaur lizard snake turtle; hamster mouse rabbit shrew squirrel;
    maple_tree oak_tree palm_tree pine_tree willow_tree; bicycle bus motorcycle pickup_truck train;
    lawn_mower rocket streetcar tank tractor"""
  groups = [group.split() for group in groups.split(";")]
  names = sorted(name for group in groups for name in group)
  for group in groups:
    for name, following in zip(sorted(group), sorted(group)[1:] + sorted(group)[:1]):
      assert names[MAPPINGS["cifar100_superclass"][str(names.index(name))]] == following


def test_per_class_counts_are_exact():
  rates = tuple(i / 10 for i in range(10))
  t = _transition(_noise({"name": "per_class", "rates": rates}))
  np.testing.assert_allclose(1 - np.diag(t), rates, atol=1e-12)


@pytest.mark.parametrize("config, words", [
  ({"name": "symmetric", "rate": 1.2, "include_true": True}, "from 0 to 1"),
  ({"name": "symmetric", "rate": 0.2}, "include_true is missing"),
  ({"name": "per_class", "rates": (0.1, 0.2)}, "2 rates, but the data has 10 classes"),
  ({"name": "per_class", "rates": (-0.1,) * 10}, "from 0 to 1"),
  ({"name": "symmetric", "rate": float("nan"), "include_true": True}, "rate is nan; give a number from 0 to 1"),
  ({"name": "asymmetric", "rate": 0.2, "mapping": "cifar10", "sequential": 1}, "sequential is 1 .*true or false"),
])
def test_bad_rates_are_one_sentence(config, words):
  with pytest.raises(UserError, match=words):
    _noise(config)
