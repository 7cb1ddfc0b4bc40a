"""The command `lookahead`: the stages for people, and what they ask before and after."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Annotated

import typer

from lookahead.errors import InputError

app = typer.Typer(
    help="LCM-Lookahead: data, training, evaluation. `make repro` (or `dvc repro`) runs whatever is out of date.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
World = Annotated[str | None, typer.Option(help="a world of params.yaml; default: its `world`")]
Variant = Annotated[str | None, typer.Option(help="noise_only or lookahead; default: both")]
Encoder = Annotated[Path | None, typer.Option(help="an encoder's folder; default: the trained one, else untuned")]
NAMES = {"adapter": "untuned", "noise_only": "noise loss only", "tuned": "with lookahead"}
COLUMNS = {"identity": "identity", "prompt": "prompt alignment"}


def _script(name: str) -> Path:
    script = Path("stages") / f"{name}.py"
    if not script.is_file():
        raise InputError(f"{script} does not exist in {Path.cwd()}: run from the repository's root")
    return script


def _run_stage(name: str, **options: str | None) -> None:
    """Run a stage's script, the one that `dvc repro` runs."""
    script = _script(name)
    given = [word for option, value in options.items() if value is not None for word in (f"--{option}", value)]
    sys.argv = [str(script), *given]
    runpy.run_path(str(script), run_name="__main__")


@app.command()
def generate(world: World = None) -> None:
    """Draw the dataset of invented people, checked by their faces."""
    _run_stage("generate", world=world)


@app.command(name="import")
def import_folder(folder: Path, world: World = None) -> None:
    """Read own photos, a folder a person below FOLDER, into `runs/<world>/imported`; see docs/own-photos.md."""
    from lookahead.artifacts import read_json
    from lookahead.config import read_params

    params = read_params()
    from lookahead.stage import run_stage

    script = runpy.run_path(str(_script("photos")))  # after the parameters: a typo should not wait for torch
    out = run_stage(script["stage_of"](folder, "imported"), params, world or params.world)
    told = read_json(out / "metrics.json")
    print(f"{told['images']} pictures of {told['people']} people are kept, {told['skipped']} files are skipped")
    print(f"Pictures: {out / 'samples.png'}\nSkipped, with reasons: {out / 'skipped.csv'}")


@app.command()
def features(world: World = None) -> None:
    """Encode the dataset once."""
    _run_stage("features", world=world)


@app.command()
def train(world: World = None, variant: Variant = None) -> None:
    """Tune the encoder, with the lookahead loss and without."""
    _run_stage("train", world=world, variant=variant)


@app.command()
def evaluate(world: World = None) -> None:
    """Compare the encoders on people never seen."""
    _run_stage("evaluate", world=world)


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
    """The headline table's rows: each method, then what tuning and what the lookahead loss changed."""
    changes = {"difference": "with lookahead - untuned", "gain": "with lookahead - noise loss only"}
    rows = [("", *COLUMNS.values())]
    for group, name in (NAMES | changes).items():
        rows.append((name, *(_interval(metrics[group][column], group in changes) for column in COLUMNS)))
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


@app.command()
def personalize(
    portraits: Annotated[list[Path], typer.Argument(help="photos of one person, each with one face")],
    prompt: Annotated[list[str], typer.Option(help="what to draw of `a person`; may be given several times")],
    out: Annotated[Path, typer.Option(help="a new folder for grid.png and the pictures")],
    world: World = None,
    encoder: Encoder = None,
    negative: Annotated[str | None, typer.Option(help="what should not be in the picture")] = None,
    images: Annotated[int, typer.Option(min=1, help="pictures of each prompt")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="of the first picture; the next ones count on")] = 0,
    fast: Annotated[bool, typer.Option("--fast", help="few steps, with the LCM-LoRA")] = False,
    kv: Annotated[bool | None, typer.Option(help="use the KV-encoder, if the encoder has one")] = None,
    adapter_scale: Annotated[float | None, typer.Option(help="how strongly the portrait counts, 0 to 1")] = None,
    guidance: Annotated[float | None, typer.Option(help="how strongly prompt and portrait count, without KV")] = None,
    steps: Annotated[int | None, typer.Option(help="of the scheduler")] = None,
    scheduler: Annotated[str | None, typer.Option(help="any of diffusers', e.g. EulerDiscreteScheduler")] = None,
    steering: Annotated[float | None, typer.Option(help="strength of lookahead guidance, e.g. 0.1; 0 is off")] = None,
    combine: Annotated[str | None, typer.Option(help="several portraits: average or concatenate")] = None,
) -> None:
    """Draw a person from portraits and prompts.

    Example: lookahead personalize me.jpg --prompt "a pencil drawing of a person in the snow" --out snow

    What is not given comes from `personalize` in params.yaml. Draw only people who agreed to it.
    """
    from lookahead.config import read_params

    params = read_params()
    settings = params.of(world)
    from lookahead.pipeline import personalize as pictures

    pictures.check_out(out)
    found = pictures.find_encoder(world or params.world, encoder)
    print(f"encoder: {found or 'the untuned adapter (no tuned one in runs/; `lookahead train` makes one)'}", flush=True)
    changes = {
        "kv": kv,
        "adapter_scale": adapter_scale,
        "fast.guidance" if fast else "guidance": guidance,
        "fast.steps" if fast else "steps": steps,
        "fast.scheduler" if fast else "scheduler": scheduler,
        "steering.strength": steering,
        "combine": combine,
    }
    wish = pictures.Wish(tuple(portraits), tuple(prompt), negative, images, seed, fast, changes)
    pictures.personalize(settings, found, wish, out)
    print(out / pictures.GRID)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="its files are replaced")], world: World = None, encoder: Encoder = None
) -> None:
    """Write the encoder for other programs: a standard IP-Adapter file, and a model card."""
    from lookahead.config import read_params

    params = read_params()
    settings = params.of(world)
    from lookahead.pipeline import LookaheadPipeline
    from lookahead.pipeline.export import export as write
    from lookahead.pipeline.personalize import find_encoder

    found = find_encoder(world or params.world, encoder)
    print(f"encoder: {found or 'the untuned adapter'}", flush=True)
    metrics = None if encoder else Path("runs", world or params.world, "evaluate", "metrics.json")
    write(LookaheadPipeline(settings.checkpoints, settings.personalize, found), out, metrics)
    print(out / "README.md")


@app.command()
def ui(port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 5000) -> None:
    """Show the runs in MLflow's pages, for this machine only."""
    from lookahead.config import read_params
    from lookahead.tracking.store import server_command

    tracking = read_params().tracking
    if not tracking.enabled:
        raise InputError("tracking is switched off: set tracking.enabled to true in params.yaml")
    command, environment = server_command(tracking, port)
    print(f"http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    os.execvpe(command[0], command, environment)


@app.command()
def search(
    world: World = None,
    storage: Annotated[str | None, typer.Option(help="postgresql+psycopg://..., shared by many workers")] = None,
) -> None:
    """Search the training's parameters; started again, anywhere, it adds what is missing."""
    _run_stage("search", world=world, storage=storage)


@app.command()
def adopt(world: World = None, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Show what the search recommends for params.yaml, and apply it; comments stay."""
    from lookahead.config import read_params
    from lookahead.search import adopt as adoption

    params = Path("params.yaml")
    patch = Path("results") / (world or read_params().world) / "search" / "best.yaml"
    before, after = adoption.patched(params, patch)
    if before == after:
        print(f"{patch} changes nothing: params.yaml stays")
        return
    print(adoption.difference(before, after))
    if yes or typer.confirm("Apply this to params.yaml?"):
        adoption.adopt(params, after)
        print("params.yaml is changed; `make repro` continues from it")


@app.command()
def dashboard(
    storage: Annotated[str | None, typer.Option(help="of a shared study; default: this machine's journal")] = None,
    port: Annotated[int, typer.Option(help="of optuna-dashboard, on 127.0.0.1")] = 8080,
    ui_port: Annotated[int, typer.Option(help="of MLflow's pages, on 127.0.0.1")] = 5000,
) -> None:
    """Show the studies in optuna-dashboard and the runs in MLflow's pages, for this machine only."""
    import signal
    import subprocess

    from lookahead.config import read_params
    from lookahead.search.dashboard import dashboard_command
    from lookahead.tracking.store import server_command

    commands = [(dashboard_command(storage, port), dict(os.environ))]
    tracking = read_params().tracking
    if tracking.enabled:
        commands.append(server_command(tracking, ui_port))
        print(f"MLflow:           http://127.0.0.1:{ui_port}")
    print(f"optuna-dashboard: http://127.0.0.1:{port} (Ctrl-C stops both)", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # so that both pages end with this command
    running = [subprocess.Popen(command, env=environment) for command, environment in commands]
    try:
        running[0].wait()
    except KeyboardInterrupt:
        pass
    finally:
        for process in running:
            process.terminate()


def main() -> None:
    """The entry point: bad input is one message and exit code 1."""
    try:
        app()
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
