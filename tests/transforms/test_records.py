"""Records of this room cannot be written to."""

from nurture import transforms
from tests.records import records_of, unfrozen


def test_every_record_is_frozen():
  assert {"CrossEntropy", "Guidance", "LabelSmoothing"} <= {kind.__name__ for kind in records_of(transforms)}
  assert unfrozen(transforms) == set()
