"""Commands of those who reproduce: the stages, their check beforehand, and the headline."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated

import typer

from lookahead.cli.base import World, app, run_stage, script
from lookahead.errors import InputError

Variant = Annotated[str | None, typer.Option(help="noise_only or lookahead; default: both")]
_MARKS = {"ok": " ok ", "odd": "note", "bad": "BAD "}
_SUBJECT = 30  # characters: the longest name of a part
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
    photos: Annotated[Path | None, typer.Argument(help="a CSV file: url,sha256 or person,url,sha256")] = None,
    out: Annotated[Path | None, typer.Argument(help="the folder of a split, filled with a folder a person")] = None,
    world: World = None,
) -> None:
    """Bring a world's checkpoints from the hub; or portraits, from a list. Started again, it brings what is missing."""
    if photos is None:
        _fetch_checkpoints(world)
    elif out is None:
        raise InputError(f"where do the photos of {photos} go? Give a folder: lookahead fetch {photos} FOLDER")
    else:
        _fetch_photos(photos, out)


def _fetch_checkpoints(world: str | None) -> None:
    from lookahead.config import read_params

    checkpoints = read_params().of(world).checkpoints
    from lookahead.world import fetch  # after the parameters: a typo should not wait for torch

    fetch(checkpoints, lambda line: print(line, flush=True))
    print("everything that this world needs is here")


def _fetch_photos(photos: Path, out: Path) -> None:
    from lookahead.photos.fetch import fetch as bring
    from lookahead.photos.fetch import read_list

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
def doctor(
    world: World = None,
    storage: Annotated[str | None, typer.Option(help="a shared search's database: postgresql+psycopg://...")] = None,
) -> None:
    """Check that a reproduction would run here, and say how to get what is missing; exit code 1 if anything is."""
    from lookahead.config import read_params

    params = read_params()
    from lookahead.doctor import examine  # after the parameters: a typo should not wait for torch

    mends: dict[str, list[str]] = {}
    for state, subject, message, mend in examine(params, world or params.world, storage):
        print(f" {_MARKS[state]} {subject:{_SUBJECT}}  {message}", flush=True)
        if state == "bad":
            mends.setdefault(mend, []).append(subject)
    if mends:
        print("\nWhat to do:")
        for mend, subjects in mends.items():
            print(f"  {', '.join(subjects)}:\n    {mend}")
        raise typer.Exit(1)


def _interval(entry: dict[str, float], signed: bool) -> str:
    sign = "+" if signed else ""
    return f"{entry['mean']:{sign}.3f} [{entry['low']:{sign}.3f}, {entry['high']:{sign}.3f}]"


def headline_rows(metrics: dict[str, dict[str, dict[str, float]]]) -> list[tuple[str, ...]]:
    """The headline table's rows: each method, then each comparison."""
    from lookahead.evaluation.cells import CONTRASTS, LABELS

    pairs = {pair.name: f"{LABELS[pair.cell]} − {LABELS[pair.baseline]}" for pair in CONTRASTS}
    rows = [("", *COLUMNS.values())]
    for name, label in (LABELS | pairs).items():
        if name in metrics:
            rows.append((label, *(_interval(metrics[name][column], name in pairs) for column in COLUMNS)))
    return rows


@app.command()
def headline(world: World = None) -> None:
    """Print the result: identity and prompt alignment of each method, with 95 % intervals over people, of this training."""
    from lookahead.artifacts import read_json
    from lookahead.config import read_params

    folder = Path("runs") / (world or read_params().world) / "evaluate"
    rows = headline_rows(read_json(folder / "intervals.json"))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print()
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\nReport: {folder / 'report.html'}\nRuns:   make ui")
