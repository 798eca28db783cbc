"""What a run leaves behind, metrics, manifest and results, and how it is shown: tables, plots, progress."""

from lib.reporting.factorial import effects, responses
from lib.reporting.files import exists, is_directory, names_in, replace_file, temporary_of
from lib.reporting.intervals import Intervals, intervals
from lib.reporting.json_files import read_json, write_json
from lib.reporting.manifest import collect, start, stop
from lib.reporting.plots import Panel, curves
from lib.reporting.progress import Progress
from lib.reporting.results import Member, label_of, metric_of, summarize, without_rounding
from lib.reporting.run_directory import read_config, read_manifest, read_results, read_rows
from lib.reporting.series import draw_means, series
from lib.reporting.tables import format_mean_sem, markdown_table, plain_table
from lib.reporting.tuning import choose_level, read_arms, summarize_crossed
from lib.reporting.writer import NO_ROWS, MetricsWriter

__all__ = [
  "NO_ROWS", "Intervals", "Member", "MetricsWriter", "Panel", "Progress", "choose_level", "collect", "curves",
  "draw_means", "effects", "exists", "format_mean_sem", "intervals", "is_directory", "label_of", "markdown_table",
  "metric_of", "names_in", "plain_table", "read_arms", "read_config", "read_json", "read_manifest", "read_results",
  "read_rows", "replace_file", "responses", "series", "start", "stop", "summarize", "summarize_crossed",
  "temporary_of", "without_rounding", "write_json",
]
