"""Records of this room cannot be written to."""

from nurture import similarity
from tests.records import records_of, unfrozen


def test_every_record_is_frozen():
  assert {"Measure", "Gram"} <= {kind.__name__ for kind in records_of(similarity)}
  assert unfrozen(similarity) == set()
