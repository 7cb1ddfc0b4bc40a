"""Figures and grids: hollow markers by the verdict, the same pictures in every row."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from lookahead.report.figures import Series, colours, plot_intervals, save_axes
from lookahead.report.formats import Estimate
from lookahead.report.pages import TILE, Line, grid_lines, make_album, opened, read_album, save_album, save_grid
from tests.report.frames import PEOPLE, draw, long_table, portraits

UP = Estimate(0.06, 0.04, 0.08, 9, 1, "higher")
OPEN = Estimate(0.06, 0.04, 0.08, 9, 1, "not significant")  # by Holm, though its own interval excludes 0


def test_markers_are_hollow_by_the_verdict() -> None:
    axis: Axes = Figure().subplots()
    plot_intervals(axis, "", ["a", "b", "c"], [Series("s", "#ff0000", [UP, OPEN, None])])
    dots = [line for line in axis.lines if line.get_marker() == "o" and np.size(line.get_xdata())]
    assert [dot.get_markerfacecolor() for dot in dots] == ["#ff0000", "white"]
    assert "not significant" in axis.get_legend_handles_labels()[1]


def test_known_names_keep_their_colours_and_others_differ() -> None:
    found = colours(["tuned", "a", "noise_only", "b"])
    assert found["tuned"] == colours(["tuned"])["tuned"] and len(set(found.values())) == 4


def test_figures_of_pyplot_are_closed(tmp_path: Path) -> None:
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    save_axes(pyplot.subplots(1, 2)[1], tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size and not pyplot.get_fignums()


def test_grids_crop_and_label(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (0, 0, 100, 100))
    save_grid([Line("a long label of a row", [wide]), Line("b", [wide], ["caption"])], tmp_path / "a.png")
    grid = Image.open(tmp_path / "a.png")
    middle = [(grid.width - 6 - TILE // 2, y) for y in (6 + TILE // 2, 2 * 6 + TILE + TILE // 2)]
    assert {grid.getpixel(where) for where in middle} == {(255, 0, 0)}


def test_an_album_holds_the_first_peoples_pictures_of_the_first_training(tmp_path: Path) -> None:
    table, people = long_table({"adapter": 0.0, "tuned": 0.1}, seeds=2), portraits(tmp_path / "portraits")
    album = make_album(table, people, draw(table, tmp_path / "pictures"), 3)
    assert album.groupby("cell").size().to_dict() == {"adapter": 12, "reference": 3, "tuned": 12}
    own = album[album["cell"] == "tuned"]
    first = table[(table["cell"] == "tuned") & (table["training_seed"] == 0) & (table["person"] < 3)]
    assert own["identity"].tolist() == first["identity"].tolist()
    shades = [opened(image).getpixel((0, 0)) for image in own["image"]]
    wanted = zip(first["person"], first["style"], strict=True)
    assert shades == [(40, 60 * person, 25 * len(style)) for person, style in wanted]
    save_album(album, tmp_path / "album.parquet")
    assert read_album(tmp_path / "album.parquet").equals(album)


def test_a_grid_has_the_same_people_and_prompts_in_every_row(tmp_path: Path) -> None:
    table, people = long_table({"adapter": 0.0, "tuned": 0.1}), portraits(tmp_path / "portraits")
    album = make_album(table, people, draw(table, tmp_path / "pictures"), PEOPLE)
    lines = grid_lines(album, {"tuned": "lookahead", "adapter": "untuned"})
    assert [line.label for line in lines] == ["reference", "lookahead", "untuned"]
    styles = [caption.split(", ")[0] for caption in lines[-1].captions]
    assert styles == ["photo", "oil", "photo", "pencil"] * 2
    for line, shade in zip(lines[1:], (40, 0), strict=True):
        pixels = [picture.getpixel((0, 0)) for picture in line.pictures]
        assert pixels == [(shade, 60 * (i // 2), 25 * len(style)) for i, style in enumerate(styles)]
