"""Figures and grids: hollow markers by the verdict, the same pictures in every row."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from lookahead.report.figures import plot_intervals, save_axes
from lookahead.report.formats import Estimate
from lookahead.report.pages import TILE, make_album, save_grid, thumbnail
from tests.report.frames import draw, long_table, portraits

UP = Estimate(0.06, 0.04, 0.08, 9, 1, "higher")
OPEN = Estimate(0.06, 0.04, 0.08, 9, 1, "not significant")  # by Holm, though its own interval excludes 0


def test_markers_are_hollow_by_the_verdict() -> None:
    axis: Axes = Figure().subplots()
    plot_intervals(axis, "", ["a", "b", "c"], {"s": [UP, OPEN, None]})
    dots = [line for line in axis.lines if line.get_marker() == "o" and np.size(line.get_xdata())]
    assert [dot.get_markerfacecolor() for dot in dots] == ["C0", "white"]
    assert "not significant" in axis.get_legend_handles_labels()[1]


def test_figures_of_pyplot_are_closed(tmp_path: Path) -> None:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    save_axes(pyplot.subplots(1, 2)[1], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size and not pyplot.get_fignums()


def test_an_album_holds_the_first_people_of_the_first_training_and_a_grid_the_same_in_every_row(tmp_path: Path) -> None:
    table, people = long_table({"adapter": 0.0, "tuned": 0.1}, seeds=2), portraits(tmp_path / "portraits")
    album = make_album(table, people, draw(table, tmp_path / "pictures"), 3)
    assert album.groupby("cell").size().to_dict() == {"adapter": 12, "reference": 3, "tuned": 12}
    own = album[album["cell"] == "tuned"]
    first = table[(table["cell"] == "tuned") & (table["training_seed"] == 0) & (table["person"] < 3)]
    assert own["identity"].tolist() == first["identity"].tolist()
    shades = [thumbnail(image).getpixel((0, 0)) for image in own["image"]]
    wanted = zip(first["person"], first["style"], strict=True)
    assert shades == [(40, 60 * person, 25 * len(style)) for person, style in wanted]

    save_grid(album, {"tuned": "a long label of a row", "adapter": "untuned"}, tmp_path / "a.png")
    grid, step, styles = Image.open(tmp_path / "a.png"), TILE + 6, ["photo", "oil", "photo", "pencil", "photo", "oil"]
    for row, shade in ((1, 40), (2, 0)):  # the first row has the references
        middle = [(grid.width - step * (6 - column) + TILE // 2, step * row + TILE // 2) for column in range(6)]
        wanted = [(shade, 60 * (i // 2), 25 * len(style)) for i, style in enumerate(styles)]
        assert [grid.getpixel(where) for where in middle] == wanted
