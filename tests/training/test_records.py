"""Records of this room cannot be written to."""

from nurture import training
from tests.records import records_of, unfrozen


def test_every_record_is_frozen_but_the_loop():
  assert {"State", "Parts", "Experiment", "Reference", "Arrays", "Loop"} <= {k.__name__ for k in records_of(training)}
  assert unfrozen(training) == {"Loop"}
