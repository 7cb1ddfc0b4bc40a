"""Commands of those who reproduce: the stages, their check beforehand, and the headline."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Annotated

import typer

from lookahead.cli import World, app, parameters, run_stage, script
from lookahead.errors import InputError

Variant = Annotated[str | None, typer.Option(help="noise_only or lookahead; default: both")]


@app.command()
def generate(world: World = None) -> None:
    """Draw the dataset of invented people, checked by their faces."""
    run_stage("generate", world=world)


@app.command(name="import")
def import_folder(folder: Path, world: World = None) -> None:
    """Read own photos, one folder a person below FOLDER, into `runs/<world>/imported`; see docs/own-photos.md."""
    params = parameters()
    from lookahead.artifacts import read_json
    from lookahead.stage import run_stage as build

    stage = runpy.run_path(str(script("photos")))["stage_of"](folder, "imported")
    out = build(stage, params, params.of(world).name)
    counts = read_json(out / "metrics.json")
    print(f"{counts['images']} pictures of {counts['people']} people are kept, {counts['skipped']} files are skipped")
    for label, path in {"Pictures": out / "samples.png", "Skipped, with reasons": out / "skipped.csv"}.items():
        if path.is_file():  # of nobody there are no pictures
            print(f"{label}: {path}")


@app.command()
def fetch(
    photos: Annotated[Path | None, typer.Argument(help="a CSV file: url,sha256 or person,url,sha256")] = None,
    out: Annotated[Path | None, typer.Argument(help="the folder of a split, filled with one folder a person")] = None,
    world: World = None,
    verify: Annotated[bool, typer.Option("--verify", help="compare all with their SHA-256, download nothing")] = False,
) -> None:
    """Download a world's checkpoints; or portraits, from a list. Started again, it keeps the files that are whole."""
    if photos is None:
        settings = parameters().of(world)
        from lookahead import world as worlds

        def report(line: str) -> None:
            print(line, flush=True)

        if verify:
            worlds.verify(settings.checkpoints, settings.name, report)
        else:
            worlds.fetch(settings.checkpoints, report)
        print("every checkpoint of this world is complete")
    elif out is None:
        raise InputError(f"where do the photos of {photos} go? Give a folder: lookahead fetch {photos} FOLDER")
    else:
        from lookahead.photos.fetch import fetch as download_photos
        from lookahead.photos.fetch import read_list

        listed = read_list(photos)
        download_photos(listed, out, print)
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
    """Compare the encoders on people whom no training and no choice has seen."""
    run_stage("evaluate", world=world)


@app.command()
def plan(world: World = None) -> None:
    """Say what a world's stages will take here (hours, memory, disk, downloads), and what makes them cheaper."""
    chosen = parameters().of(world)
    from lookahead.plan import announcement

    print(announcement(chosen))


@app.command()
def doctor(
    world: World = None,
    storage: Annotated[str | None, typer.Option(help="a shared search's database: postgresql+psycopg://...")] = None,
) -> None:
    """Check that a reproduction would run here, and say how to get what is missing; exit code 1 if anything is."""
    params = parameters()
    from lookahead.doctor import examine

    mends: dict[str, list[str]] = {}
    for subject, (state, message, mend) in examine(params, params.of(world), storage):
        print(f" {'BAD' if state == 'bad' else state:4} {subject:30}  {message}", flush=True)
        if state == "bad":
            mends.setdefault(mend, []).append(subject)
    if mends:
        print("\nWhat to do:")
        for mend, subjects in mends.items():
            print(f"  {', '.join(subjects)}:\n    {mend}")
        raise typer.Exit(1)


@app.command()
def headline(world: World = None) -> None:
    """Print the result: identity and prompt alignment of each method, with 95 % intervals."""
    folder = Path("runs") / parameters().of(world).name / "evaluate"
    from lookahead.mlflow_pages import TABLE

    if not (folder / TABLE).is_file():
        raise InputError(f"{folder} holds no result: run `make repro`, or `lookahead evaluate`")
    table = (folder / TABLE).read_text(encoding="utf-8")
    print(f"\n{table}\nReport: {folder / 'report.html'}\nRuns:   make ui")
