"""Look-up of the networks that config.references names, with one sentence for a label that is not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from nurture.core.build import suggest
from nurture.core.errors import UserError
from nurture.core.types import Outputs


def outputs_of(
  references: Mapping[str, Outputs], label: str, reader: str, *, others: Iterable[str] = (), fix: str = ""
) -> Outputs:
  """Returns the outputs of a reference.

  Args:
    references: `Outputs` by label.
    label: of the reference.
    reader: who reads it, for the message.
    others: what else the reader takes for a label, for the message.
    fix: what to add, for the message; empty, the reference.

  Raises:
    UserError: if there is no such reference; names the reader and lists the references.
  """
  if label not in references:
    known = suggest(label, [*references, *others])
    raise UserError(f"{reader} reads the reference {label!r}; {known}; {fix or 'add it to config.references'}.")
  return references[label]
