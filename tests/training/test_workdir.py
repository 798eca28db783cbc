"""Where a run may not write."""

import pytest

from lib import training
from lib.core import UserError
from tests.tiny import tiny_config


def test_a_directory_that_cannot_be_made_is_one_sentence(tmp_path):
  (tmp_path / "file").write_text("of someone else")
  with pytest.raises(UserError, match="Not a directory") as caught:
    training.run(tiny_config(), tmp_path / "file" / "run")
  assert "\n" not in str(caught.value) and "file/run" in str(caught.value)
  assert (tmp_path / "file").read_text() == "of someone else"
