"""The look-up of references by their labels."""

import pytest

from nurture.core import Outputs, UserError
from nurture.core.references import outputs_of


def test_a_reference_is_found_by_its_label():
  references = {"teacher": Outputs(1, {}), "guide": Outputs(2, {})}
  assert outputs_of(references, "guide", "the term") is references["guide"]


@pytest.mark.parametrize("options, words", [
  ({}, "the term reads the reference 'techer'; did you mean 'teacher'? (known: teacher); add it to config.references."),
  ({"others": ["input"], "fix": "add one"},
   "the term reads the reference 'techer'; did you mean 'teacher'? (known: input, teacher); add one."),
])
def test_one_that_is_not_there_is_one_sentence(options, words):
  with pytest.raises(UserError) as error:
    outputs_of({"teacher": Outputs(1, {})}, "techer", "the term", **options)
  assert str(error.value) == words
