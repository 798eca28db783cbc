"""Sentences name the place in the config that they are about."""

import pytest

from nurture.core import UserError, model_at


@pytest.mark.parametrize(("said", "shown"), [
  ("config.model.width is 0", "config.references.guide.model.width is 0"),
  ("config.model is wide and config.model.heads is 3",
   "config.references.guide.model is wide and config.references.guide.model.heads is 3"),
  ("config.models, my_config.model and config.data stay", "config.models, my_config.model and config.data stay"),
])
def test_a_model_speaks_of_the_place_where_it_stands(said, shown):
  with pytest.raises(UserError) as caught, model_at("config.references.guide.model"):
    raise UserError(said)
  assert str(caught.value) == shown


def test_nested_places_add_up():
  with pytest.raises(UserError) as caught, model_at("config.references.guide.model"), model_at("config.model.model"):
    raise UserError("config.model.width is 0")
  assert str(caught.value) == "config.references.guide.model.model.width is 0"


def test_other_errors_pass():
  with pytest.raises(KeyError), model_at("config.references.guide.model"):
    raise KeyError("config.model")
