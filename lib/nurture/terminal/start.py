"""Start and end of every binary: one sentence for a person's mistakes, a traceback for the program's."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from logging import CRITICAL, disable
from typing import Any, NoReturn

from absl import app, flags, logging

from nurture.core import UserError
from nurture.terminal.flags import parse_flags
from nurture.terminal.overrides import Place

USER_ERROR, INTERRUPTED = 2, 130  # exit codes


def run(
  main: Callable[[Sequence[str]], Any], *, takes_arguments: bool = False, places: Place | None = None
) -> NoReturn:
  """Parses the flags, calls main(argv) and exits.

  A UserError, a mistake on the command line or in the name of a config file, and Ctrl-C print one sentence
  on stderr and exit with code 2 (130 for Ctrl-C). Everything else keeps its traceback.

  Args:
    main: takes what is left of the command line, its first element the program's name.
    takes_arguments: whether words that are no flags have a meaning; without, they are refused.
    places: what may stand in a config of this binary, such as nurture.training.places.ROOT, so that a field can be set
      that the config does not list.
  """

  def checked_main(argv: Sequence[str]) -> Any:
    if argv[1:] and not takes_arguments:
      raise UserError(f"{argv[1]!r} has no meaning here; write flags as --name=value (see --help).")
    if not flags.FLAGS["verbosity"].present:
      logging.set_verbosity(logging.WARNING)  # libraries tell of every file they write
    return main(argv)

  try:
    app.run(checked_main, flags_parser=functools.partial(parse_flags, root=places))
  except UserError as error:
    _exit(str(error), USER_ERROR)
  except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(0)
  except KeyboardInterrupt:
    _exit("interrupted; run the same command again, a training run continues from its last checkpoint.", INTERRUPTED)
  raise AssertionError("app.run exits")


def _exit(message: str, code: int) -> NoReturn:
  disable(CRITICAL)  # threads that are still at work would log tracebacks below the sentence
  sys.stdout.flush()
  print(f"error: {' '.join(message.split())}", file=sys.stderr)
  sys.exit(code)
