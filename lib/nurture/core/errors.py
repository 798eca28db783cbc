"""The one exception for mistakes that a user can make and fix."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator


class UserError(Exception):
  """Bad input. The message is one sentence that says what is wrong and names the fix.

  The binaries print it without a traceback and exit with a non-zero code; everything else that is
  raised is a defect of the program and keeps its traceback.
  """


@contextlib.contextmanager
def model_at(path: str) -> Iterator[None]:
  """Lets a model's sentences, which speak of "config.model", name the place where this model stands in the config."""
  try:
    yield
  except UserError as error:
    raise UserError(re.sub(r"\bconfig\.model\b", path, str(error))) from error
