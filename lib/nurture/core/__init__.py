"""The core of every other package: records, building from configs, keys, trees and schedules."""

from nurture.core.build import Preset, build, fields_of, lookup
from nurture.core.errors import UserError, model_at
from nurture.core.task import Task
from nurture.core.types import Batch, Context, DataSpec, Network, Outputs, model_input

__all__ = [
  "Batch", "Context", "DataSpec", "Network", "Outputs", "Preset", "Task", "UserError",
  "build", "fields_of", "lookup", "model_at", "model_input",
]
