"""Records of this room cannot be written to."""

from nurture import reporting
from tests.records import records_of, unfrozen


def test_every_record_is_frozen():
  assert {"Panel", "Intervals"} <= {kind.__name__ for kind in records_of(reporting)}
  assert unfrozen(reporting) == set()
