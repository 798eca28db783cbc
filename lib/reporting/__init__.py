"""What a run leaves behind, metrics, manifest and results, and how it is shown: tables, plots, progress."""

from lib.reporting.factorial import effects, responses
from lib.reporting.files import replace_file, temporary_of
from lib.reporting.intervals import Intervals, intervals
from lib.reporting.manifest import collect, start, stop
from lib.reporting.plots import Panel, curves
from lib.reporting.progress import Progress
from lib.reporting.results import read_json, summarize, write_json
from lib.reporting.series import draw_means, series
from lib.reporting.tables import format_mean_sem, markdown_table, plain_table
from lib.reporting.tuning import Member, choose_level, metric_of, read_arms, summarize_crossed
from lib.reporting.writer import NO_ROWS, MetricsWriter, read_rows

__all__ = [
  "NO_ROWS", "Intervals", "Member", "MetricsWriter", "Panel", "Progress", "choose_level", "collect", "curves",
  "draw_means", "effects", "format_mean_sem", "intervals", "markdown_table", "metric_of", "plain_table", "read_arms",
  "read_json", "read_rows", "replace_file", "responses", "series", "start", "stop", "summarize", "summarize_crossed",
  "temporary_of", "write_json",
]
