"""Commands of those who reproduce: the stages, their check beforehand, and the headline."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated

import typer

from lookahead.cli.base import World, app, run_stage, script

Variant = Annotated[str | None, typer.Option(help="noise_only or lookahead; default: both")]
COLUMNS = {"identity": "identity", "prompt": "prompt alignment"}


@app.command()
def generate(world: World = None) -> None:
    """Draw the dataset of invented people, checked by their faces."""
    run_stage("generate", world=world)


@app.command(name="import")
def import_folder(folder: Path, world: World = None) -> None:
    """Read own photos, a folder a person below FOLDER, into `runs/<world>/imported`; see docs/own-photos.md."""
    from lookahead.artifacts import read_json
    from lookahead.config import read_params

    params = read_params()
    from lookahead.stage import run_stage as build  # after the parameters: a typo should not wait for torch

    photos = runpy.run_path(str(script("photos")))
    out = build(photos["stage_of"](folder, "imported"), params, world or params.world)
    told = read_json(out / "metrics.json")
    print(f"{told['images']} pictures of {told['people']} people are kept, {told['skipped']} files are skipped")
    print(f"Pictures: {out / 'samples.png'}\nSkipped, with reasons: {out / 'skipped.csv'}")


@app.command()
def fetch(
    photos: Annotated[Path, typer.Argument(help="a CSV file: url,sha256 or person,url,sha256")],
    out: Annotated[Path, typer.Argument(help="the folder of a split, filled with a folder a person")],
) -> None:
    """Bring portraits from a list of addresses and checksums; started again, it brings what is missing."""
    from lookahead.data.fetch import fetch as bring
    from lookahead.data.fetch import read_list

    listed = read_list(photos)
    bring(listed, out, print)
    print(f"{len(listed)} photos of {len({photo.person for photo in listed})} people are in {out}")


@app.command()
def features(world: World = None) -> None:
    """Encode the dataset once."""
    run_stage("features", world=world)


@app.command()
def train(world: World = None, variant: Variant = None) -> None:
    """Tune the encoder, with the lookahead loss and without."""
    run_stage("train", world=world, variant=variant)


@app.command()
def evaluate(world: World = None) -> None:
    """Compare the encoders on people never seen."""
    run_stage("evaluate", world=world)


@app.command()
def doctor(world: World = None) -> None:
    """Check that a reproduction would run here; exit code 1 if it would not."""
    from lookahead.config import read_params

    params = read_params()
    from lookahead.doctor import examine  # after the parameters: a typo should not wait for torch

    marks = {"ok": "  ok ", "odd": " odd ", "bad": " BAD "}
    worst = False
    for state, subject, message in examine(params, world or params.world):
        print(f"{marks[state]} {subject}: {message}", flush=True)
        worst = worst or state == "bad"
    if worst:
        raise typer.Exit(1)


def _interval(entry: dict[str, float], signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{entry['mean']:{sign}.3f} [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"


def headline_rows(metrics: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, ...]]:
    """The headline table's rows: each method, then each comparison."""
    from lookahead.evaluation.methods import COMPARISONS, METHODS

    rows = [("", *COLUMNS.values())]
    for group, told in (METHODS | COMPARISONS).items():
        if group in metrics:
            rows.append((told.name, *(_interval(metrics[group][column], group in COMPARISONS) for column in COLUMNS)))
    return rows


@app.command()
def headline(world: World = None) -> None:
    """Print the result: identity and prompt alignment of each method, with 95 % intervals over people."""
    from lookahead.artifacts import read_json
    from lookahead.config import read_params

    folder = Path("runs") / (world or read_params().world) / "evaluate"
    rows = headline_rows(read_json(folder / "metrics.json"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nReport: {folder / 'report.html'}\nRuns:   make ui")
