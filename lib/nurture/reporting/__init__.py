"""Reporting: metrics, manifest and results of a run, and the tables, plots and progress that show them."""

from nurture.reporting.factorial import effects, responses
from nurture.reporting.files import exists, is_directory, replace_file, temporary_of
from nurture.reporting.intervals import Intervals, intervals
from nurture.reporting.json_files import read_json, write_json
from nurture.reporting.manifest import collect, reason_of, recorded, start, stop
from nurture.reporting.plots import Panel, curves, draw_mean
from nurture.reporting.progress import Progress
from nurture.reporting.results import Member, label_of, metric_of, name_of, summarize, without_rounding
from nurture.reporting.run_directory import read_config, read_manifest, read_results, read_rows, stream_rows
from nurture.reporting.series import draw_means, series
from nurture.reporting.study import Study, study
from nurture.reporting.style import (
  COLORS,
  RC,
  Style,
  add_legend,
  name_axes,
  number,
  palette,
  palette_of,
  plain_logarithm,
  tick_levels,
)
from nurture.reporting.tables import format_mean_sem, markdown_table, plain_table
from nurture.reporting.tensorboard import TensorBoard
from nurture.reporting.tuning import Choice, choose_levels, read_arms, summarize_crossed
from nurture.reporting.wandb import Wandb
from nurture.reporting.words import Words, axis_of, words_of
from nurture.reporting.writer import NO_ROWS, MetricsWriter, Sink

__all__ = [
  "COLORS", "Choice", "Intervals", "Member", "MetricsWriter", "NO_ROWS", "Panel", "Progress", "RC", "Sink", "Study",
  "Style", "TensorBoard", "Wandb", "Words", "add_legend", "axis_of", "choose_levels", "collect", "curves", "draw_mean",
  "draw_means", "effects", "exists", "format_mean_sem", "intervals", "is_directory", "label_of", "markdown_table",
  "metric_of", "name_axes", "name_of", "number", "palette", "palette_of", "plain_logarithm", "plain_table",
  "read_arms", "read_config", "read_json", "read_manifest", "read_results", "read_rows", "reason_of", "recorded",
  "replace_file", "responses", "series", "start", "stop", "stream_rows", "study", "summarize", "summarize_crossed",
  "temporary_of", "tick_levels", "without_rounding", "words_of", "write_json",
]
