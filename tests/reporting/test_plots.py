"""Curves: what is drawn, not how pretty it is."""

import math
import subprocess
import sys

import matplotlib.figure
import numpy as np
import pytest
from matplotlib import image
from matplotlib.font_manager import FontProperties

from nurture.reporting import Intervals, Panel, curves, draw_means, intervals
from nurture.reporting.results import mean_and_sem
from nurture.reporting.style import COLORS, _wrapped, figure_of, palette, palette_of, shade

STEPS = np.arange(5)


@pytest.fixture
def figure(monkeypatch):
  """The last figure drawn."""
  drawn = []
  original = matplotlib.figure.Figure.savefig
  monkeypatch.setattr(
    matplotlib.figure.Figure, "savefig", lambda self, *a, **k: (drawn.append(self), original(self, *a, **k))[1]
  )
  return lambda: drawn[-1]


def lines(axes, color):
  return [line for line in axes.lines if line.get_color() == color]


def test_mean_and_sem_are_those_of_the_finite_numbers_of_each_column():
  values = np.random.default_rng(0).normal(size=(6, 4))
  values[2, 1] = math.nan
  values[1:, 2] = math.inf  # one left
  values[:, 3] = math.nan   # none left
  values = np.concatenate([values, np.where(np.arange(6)[:, None] < 2, [[1.0], [2.0]] * 3, math.nan)], axis=1)
  mean, sem = mean_and_sem(values)
  finite = [column[np.isfinite(column)] for column in values.T]
  np.testing.assert_allclose(mean, [*(column.mean() for column in finite[:3]), math.nan, 1.5], rtol=1e-12)
  errors = [np.std(column, ddof=1) / math.sqrt(len(column)) for column in finite[:2]]
  np.testing.assert_allclose(sem, [*errors, 0.0, 0.0, 0.5], rtol=1e-12)


def test_the_line_is_the_mean_and_the_band_one_standard_error(tmp_path, figure):
  values = np.random.default_rng(0).normal(size=(20, 5))
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": (STEPS, values)})])
  axes, = figure().axes
  line, = lines(axes, COLORS[0])
  np.testing.assert_allclose(line.get_ydata(), values.mean(0), rtol=1e-12)
  edge = axes.collections[0].get_paths()[0].vertices[:, 1]
  sem = values.std(0, ddof=1) / math.sqrt(20)
  np.testing.assert_allclose(edge.max(), (values.mean(0) + sem).max(), rtol=1e-12)
  np.testing.assert_allclose(edge.min(), (values.mean(0) - sem).min(), rtol=1e-12)


@pytest.mark.parametrize("members, thin", [(1, 0), (2, 2), (10, 10), (11, 0)])
def test_few_members_are_drawn_one_by_one(tmp_path, figure, members, thin):
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": (STEPS, np.ones((members, 5)))})])
  assert len(lines(figure().axes[0], COLORS[0])) == thin + 1


def test_a_label_has_one_colour_in_all_panels_and_one_place_in_the_legend(tmp_path, figure):
  flat = (STEPS, np.ones(5))
  curves(tmp_path / "x.png", [
    Panel("1", "y", {"a": flat, "b": flat}), Panel("2", "y", {"b": flat}, theory={"theory": flat, "b": flat}),
  ])
  legend, = figure().legends
  assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "theory"]
  assert [line.get_linestyle() for line in legend.get_lines()] == ["-", "-", "--"]  # the series, not its theory
  assert [line.get_color() for line in figure().axes[1].lines] == [COLORS[1], "black", shade(COLORS[1], -0.45)]


def test_theory_lies_over_what_was_measured_and_stands_out_from_it(tmp_path, figure):
  flat = (STEPS, np.ones(5))
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": flat, "b": flat}, theory={"a": flat})], theory="law")
  *measured, theory = figure().axes[0].lines
  assert all(theory.get_zorder() > line.get_zorder() for line in measured)
  assert theory.get_linestyle() == "--" and theory.get_color() != measured[0].get_color() and theory.get_path_effects()
  assert [text.get_text() for text in figure().legends[0].get_texts()] == ["a", "b", "law"]


def test_a_style_that_is_given_holds_in_every_picture(tmp_path, figure):
  flat, styles = (STEPS, np.ones(5)), palette(["a", "b", "c"])
  curves(tmp_path / "x.png", [Panel("t", "y", {"c": flat}), Panel("t", "y", {"b": flat, "c": flat})], styles=styles)
  assert [[line.get_color() for line in axes.lines] for axes in figure().axes] == [[COLORS[2]], [COLORS[1], COLORS[2]]]
  intervals(tmp_path / "y.png", [Intervals("t", "x", {"c": [1.0]}), Intervals("t", "x", {"c": [1.0]})], styles=styles)
  assert {line.get_color() for axes in figure().axes for line in axes.lines} == {COLORS[2]}


@pytest.mark.parametrize("levels, log, shown", [
  ([0.01, 0.05, 0.1], True, ["0.01", "0.05", "0.1"]), ([1, 2, 1024, 10**6], True, ["1", "2", "1024", "10⁶"]),
  ([0, 3e-5], False, ["0", "3·10⁻⁵"]),
])
def test_ticks_stand_at_the_levels_that_were_run(tmp_path, figure, levels, log, shown):
  values = np.ones((2, len(levels)))
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": (levels, values)}, levels=levels, log_x=log)])
  axes, = figure().axes
  assert list(axes.get_xticks()) == levels and not len(axes.get_xticks(minor=True))
  assert [label.get_text() for label in axes.get_xticklabels()] == shown
  assert lines(axes, COLORS[0])[-1].get_marker() == "o"


def test_levels_can_have_names_and_those_without_room_for_one_keep_their_tick(tmp_path, figure):
  panel = Panel("t", "y", {"a": ([0, 1, 1.01], [1, 2, 3])}, levels=(0, 1, 1.01), names=("off", "on", "nearly on"))
  curves(tmp_path / "x.png", [panel])
  axes, = figure().axes
  assert list(axes.get_xticks()) == [0, 1, 1.01]
  assert [label.get_text() for label in axes.get_xticklabels()] == ["off", "on", ""]


LONG = "an arm with a name of many words, such as a network guided by an untrained one, released, lr=0.003"
ONE_WORD = "a_path/" * 40


@pytest.mark.parametrize("columns", [1, 2, 3])
def test_every_text_lies_inside_the_figure(tmp_path, figure, columns):
  flat = (STEPS, np.ones((3, 5)))
  panel = Panel(LONG, LONG, {f"{i} {LONG}": flat for i in range(3)} | {"short": flat}, xlabel=LONG)
  curves(tmp_path / "x.png", [panel] * columns, columns=columns)
  assert_inside(figure())
  curves(tmp_path / "x.png", [Panel(ONE_WORD, "y", {"a": flat, ONE_WORD: flat})] * columns, columns=columns)
  assert_inside(figure())
  intervals(tmp_path / "y.png", [Intervals(LONG, LONG, {LONG: [1.0, 2.0], "b": [1.0, 3.0]})] * columns)
  assert_inside(figure())


def test_the_name_of_an_axis_keeps_to_its_panel(tmp_path, figure):
  panels = [Panel(str(i), LONG, {"a": (STEPS, np.ones((3, 5)))}) for i in range(3)]
  curves(tmp_path / "x.png", panels, columns=1)
  figure().draw_without_rendering()
  for axes in figure().axes:
    assert axes.yaxis.label.get_window_extent().height < figure().bbox.height / 3


@pytest.mark.parametrize("word", ["a_path/" * 40, "x" * 200, "short " + "y" * 200])
def test_a_word_without_room_is_broken_into_as_few_lines_as_hold_it(word):
  figure = figure_of(6, 3)
  room = 300
  lines = _wrapped(figure, word, 10, room).split("\n")
  font, renderer = FontProperties(size=10), figure.canvas.get_renderer()
  widths = [renderer.get_text_width_height_descent(line, font, False)[0] for line in lines]
  assert "".join(lines) == word.replace(" ", "") and max(widths) <= 1.2 * room  # letters are not of one width
  assert min(widths[word.startswith("short") : -1]) >= 0.7 * room


def assert_inside(figure):
  figure.draw_without_rendering()
  width, height = figure.get_size_inches()
  drawn = figure.get_tightbbox()  # in inches, of all that is drawn
  assert drawn.x0 > -0.01 and drawn.y0 > -0.01 and drawn.x1 < width + 0.01 and drawn.y1 < height + 0.01
  assert min(axes.get_window_extent().height for axes in figure.axes) > 60  # and the axes have not vanished


@pytest.mark.parametrize("members, dots, note", [
  ([1], False, ""), ([3], False, "lines and bands: mean ± standard error of n = 3 seeds; thin: single seeds"),
  ([20], False, "lines and bands: mean ± standard error of n = 20 seeds"),
  ([1, 3, 8], False, "lines and bands: mean ± standard error of n = 3 to 8 seeds; thin: single seeds"),
  ([3], True, "points and bars: mean ± standard error of n = 3 seeds"),
])
def test_the_legend_says_what_is_drawn_and_of_how_many(tmp_path, figure, members, dots, note):
  series = {str(n): (STEPS, np.concatenate([np.ones((n, 5)), np.full((1, 5), math.nan)])) for n in members}
  curves(tmp_path / "x.png", [Panel("t", "y", series, dots=dots)], of="seeds")
  assert [legend.get_title().get_text() for legend in figure().legends] == ([note] if note else [])


def test_an_arm_has_one_colour_and_its_levels_have_dashes_and_shades():
  points = {f"{m}, lr={lr}": {"method": m, "lr": lr} for m in ("plain", "ELR") for lr in (0.1, 0.01, 0.001)}
  styles = palette_of(points)
  assert styles["plain, lr=0.1"].color == COLORS[0] and styles["ELR, lr=0.1"].color == COLORS[1]
  for method in ("plain", "ELR"):
    of = [styles[f"{method}, lr={lr}"] for lr in (0.1, 0.01, 0.001)]
    whiteness = [sum(int(style.color[i : i + 2], 16) for i in (1, 3, 5)) for style in of]
    assert whiteness == sorted(set(whiteness)) and len({str(style.dashes) for style in of}) == 3


@pytest.mark.parametrize("points", [
  {"a": {"method": "a"}, "b": {"method": "b"}},  # no levels
  {"lr=1": {"lr": 1}, "lr=2": {"lr": 2}},  # no methods
  {"lr=1": {"method": "a", "lr": 1}, "lr=2": {"method": "a", "lr": 2}},  # one, of which nothing need be told apart
  {"all": {}},
])
def test_without_methods_or_without_levels_every_point_has_its_own_colour(points):
  assert palette_of(points) == palette(list(points))


def test_the_same_colour_comes_back_with_other_dashes(tmp_path, figure):
  curves(tmp_path / "x.png", [Panel("t", "y", {str(i): (STEPS, np.full(5, i)) for i in range(15)})])
  styles = {(line.get_color(), str(line._dash_pattern)) for line in figure().axes[0].lines}
  assert len(styles) == 15


@pytest.mark.parametrize("low, high, from_zero, to_one", [
  (0.1, 1.0, True, True), (0.6, 1.0, False, True), (0.0, 0.4, True, False), (0.1, 0.6, True, True),
])
def test_a_fraction_reaches_from_zero_to_one_where_it_comes_near(tmp_path, figure, low, high, from_zero, to_one):
  values = np.linspace(low, high, 5)
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": (STEPS, values)}, fraction=True)])
  bottom, top = figure().axes[0].get_ylim()
  assert -0.03 < bottom < low and high < top < 1.03
  assert (bottom < 0) == from_zero and (top > 1) == to_one


@pytest.mark.parametrize("order", [1, -1])
def test_the_ends_of_a_fraction_are_those_of_all_series(tmp_path, figure, order):
  """A series that comes near an end reaches it, whether it is drawn first or last."""
  series = {"low": (STEPS, np.linspace(0.1, 0.3, 5)), "high": (STEPS, np.linspace(0.7, 0.9, 5))}
  curves(tmp_path / "x.png", [Panel("t", "y", dict(list(series.items())[::order]), fraction=True)])
  np.testing.assert_allclose(figure().axes[0].get_ylim(), (-0.02, 1.02), atol=1e-12)


def test_logarithmic_axes(tmp_path, figure):
  curves(tmp_path / "x.png", [Panel("t", "y", {"a": (STEPS + 1, np.ones(5))}, log_x=True, log_y=True)])
  assert (figure().axes[0].get_xscale(), figure().axes[0].get_yscale()) == ("log", "log")


def test_gaps_single_points_and_dead_members_are_drawn_without_a_warning(tmp_path, figure):
  values = np.ones((3, 5))
  values[0, 2:], values[1] = math.nan, math.inf
  series = {"a": (STEPS, values), "b": ([0], [[1.0]]), "c": (STEPS, values * math.nan), "d": ([0, 1], [[1.0, 2.0]])}
  curves(tmp_path / "x.png", [Panel("t", "y", series)])
  assert [line.get_marker() for line in lines(figure().axes[0], COLORS[1])] == ["o"]
  assert [line.get_marker() for line in lines(figure().axes[0], COLORS[3])] == ["None"]


def test_the_same_data_gives_the_same_bytes_at_readme_width(tmp_path):
  panels = [Panel(str(i), "y", {"a": (STEPS, np.eye(5))}) for i in range(3)]
  first, second = (curves(tmp_path / name, panels).read_bytes() for name in ("1.png", "2.png"))
  assert first == second
  height, width, _ = image.imread(tmp_path / "1.png").shape
  assert width == 1680 and height > 1000  # two rows


def test_names_with_dollars_are_no_formulas(tmp_path, figure):
  wrong = r"cost $\wrong{$ a"  # as a formula it would be an error
  flat = (STEPS, np.ones(5))
  curves(tmp_path / "x.png", [Panel(wrong, wrong, {wrong: flat, "b": flat}, xlabel=wrong)])
  assert figure().legends[0].get_texts()[0].get_text() == wrong.replace("$", r"\$")
  intervals(tmp_path / "y.png", [Intervals(wrong, wrong, {wrong: [1.0, 2.0]})])
  draw_means(figure().axes[0], [{"member": 0, "step": 0, wrong: 1.0}], wrong, [{"label": wrong, "members": [0]}])
  figure().axes[0].legend()
  figure().savefig(tmp_path / "z.png")


def test_drawing_does_not_load_pyplot(tmp_path):
  code = (
    "import sys; from nurture.reporting import Panel, curves; assert 'matplotlib' not in sys.modules\n"
    f"curves({str(tmp_path / 'x.png')!r}, [Panel('t', 'y', {{'a': ([0, 1], [0, 1])}})])\n"
    "print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
  assert done.stdout.split() == ["True", "False"], done.stderr
