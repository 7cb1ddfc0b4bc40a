"""Commands of those who study: searches, comparisons, and the pages that show them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from lookahead.cli.base import World, app, parameters, run_stage
from lookahead.errors import InputError


@app.command()
def search(
    world: World = None,
    storage: Annotated[str | None, typer.Option(help="postgresql+psycopg://..., shared by many workers")] = None,
) -> None:
    """Search the training's parameters; started again, anywhere, it continues."""
    run_stage("search", world=world, storage=storage)


def patched(params: Path, patch: Path) -> tuple[str, str]:
    """The text of `params.yaml`, and with a patch of dotted names applied; comments stay, equal if nothing changes."""
    from ruamel.yaml import YAML

    from lookahead.config import parse_params, read_tree

    changes = read_tree(patch, "the patch", "run `make search`, or go to the repository's root")
    before, buffer = params.read_text(encoding="utf-8"), io.StringIO()
    if not changes:
        return before, before
    form, null = YAML(), ("tag:yaml.org,2002:null", "null")
    form.preserve_quotes, form.width = True, 4096  # lines are broken where people broke them
    form.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(*null))
    tree = form.load(before)
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        node = tree
        for name in parents:  # a world need not state what it inherits
            node = node.setdefault(name, {})
        node[last] = value
    form.dump(tree, buffer)
    parse_params(YAML(typ="safe", pure=True).load(buffer.getvalue()))  # refuses unknown names and wrong values
    return before, buffer.getvalue()


@app.command()
def adopt(world: World = None, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Show what the search recommends for params.yaml, and apply it; comments stay."""
    from lookahead.artifacts import atomic

    params = Path("params.yaml")
    patch = Path("results") / (world or parameters().world) / "search" / "best.yaml"
    before, after = patched(params, patch)
    if before == after:
        print(f"{patch} changes nothing: params.yaml stays")
        return
    texts = before.splitlines(), after.splitlines()
    print("\n".join(unified_diff(*texts, "params.yaml", "adopted", n=0, lineterm="")))
    if yes or typer.confirm("Apply this to params.yaml?"):
        with atomic(params) as temporary:
            temporary.write_text(after, encoding="utf-8")
        print("params.yaml is changed; `make repro` continues from it")


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(help="MLflow's run ids, or folders like runs/miniature/evaluate")],
    out: Annotated[Path, typer.Option(help="the page; it is replaced")] = Path("compare.html"),
    method: Annotated[list[str] | None, typer.Option(help="adapter, noise_only, tuned; one, or one a run")] = None,
    label: Annotated[list[str] | None, typer.Option(help="one a run, in their order; default: the runs")] = None,
) -> None:
    """Contrast evaluations with the first one, and show the same pictures in a row.

    Example: lookahead compare runs/miniature/evaluate RUN --label now --label before
    """
    if len(runs) < 2:
        raise InputError(f"a comparison needs two runs or more, and was given {', '.join(runs)}")
    methods = method or ["tuned"]
    methods = methods * len(runs) if len(methods) == 1 else methods
    labels = label or ([f"{run} {name}" for run, name in zip(runs, methods, strict=False)] if method else runs)
    for option, given in (("method", methods), ("label", labels)):
        if len(given) != len(runs):
            raise InputError(f"{len(runs)} runs have {len(given)} times --{option}: give it once a run")
    tracking = parameters().tracking
    from lookahead.report import comparison
    from lookahead.tracking import fetch_files

    read = []
    with tempfile.TemporaryDirectory() as fetched:
        for number, (run, chosen, name) in enumerate(zip(runs, methods, labels, strict=True)):
            folder = Path(run)
            if not folder.is_dir():
                folder = Path(fetched) / str(number)
                fetch_files(tracking, run, comparison.FILES, folder)
            read.append(comparison.read_run(name, folder, chosen))
    print(f"{comparison.write_comparison(read, out)}\n\n{out}")


@app.command()
def ui(port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 5000) -> None:
    """Show the runs in MLflow's pages, for this machine only."""
    tracking = parameters().tracking
    if not tracking.enabled:
        raise InputError("tracking is switched off: set tracking.enabled to true in params.yaml")
    from lookahead.tracking import server_command

    command, environment = server_command(tracking, port)
    print(f"http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    os.execvpe(command[0], command, environment)


@app.command()
def dashboard(
    storage: Annotated[str | None, typer.Option(help="of a shared study; default: this machine's SQLite file")] = None,
    port: Annotated[int, typer.Option(help="of optuna-dashboard, on 127.0.0.1")] = 8080,
    ui_port: Annotated[int, typer.Option(help="of MLflow's pages, on 127.0.0.1")] = 5000,
) -> None:
    """Show the studies in optuna-dashboard and the runs in MLflow's pages, for this machine only."""
    tracking = parameters().tracking
    from lookahead.search.study import dashboard_command
    from lookahead.tracking import server_command

    commands = [(dashboard_command(storage, port), dict(os.environ))]
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
