"""Commands of those who study: searches, comparisons, and the pages that show them."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Annotated

import typer

from lookahead.cli import World, app, check_port, parameters, run_stage
from lookahead.errors import InputError

STUDIES = Path("state/search/studies.db")


@app.command()
def search(
    world: World = None,
    storage: Annotated[str | None, typer.Option(help="postgresql+psycopg://..., shared by many workers")] = None,
) -> None:
    """Search the training's parameters; started again, anywhere, it continues."""
    run_stage("search", world=world, storage=storage)


def with_values(text: str, values: Mapping[str, object]) -> str:
    """The text of params.yaml with other values at dotted names; its comments stay."""
    from ruamel.yaml import YAML

    from lookahead.config import parse_params

    form, null, buffer = YAML(), ("tag:yaml.org,2002:null", "null"), io.StringIO()
    form.preserve_quotes, form.width = True, 4096  # lines are broken where people broke them
    form.representer.add_representer(type(None), lambda writer, _: writer.represent_scalar(*null))
    tree = form.load(text)
    for dotted, value in values.items():
        *parents, last = dotted.split(".")
        node = tree
        for name in parents:  # a world need not state what it inherits
            node = node.setdefault(name, {})
        node[last] = value
    form.dump(tree, buffer)
    parse_params(YAML(typ="safe", pure=True).load(buffer.getvalue()))  # refuses unknown names and wrong values
    return buffer.getvalue()


@app.command()
def adopt(world: World = None, yes: Annotated[bool, typer.Option("--yes", help="do not ask")] = False) -> None:
    """Show what the search recommends for params.yaml, and apply it; comments stay."""
    from lookahead.artifacts import atomic
    from lookahead.config import read_tree

    params, patch = Path("params.yaml"), Path("results", parameters().of(world).name, "search", "best.yaml")
    changes = read_tree(patch, "the patch", "run `make search`, or go to the repository's root")
    before = params.read_text(encoding="utf-8")
    after = with_values(before, changes) if changes else before
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
    method: Annotated[str, typer.Option(help="adapter, noise_only, tuned, ...")] = "tuned",
    label: Annotated[list[str] | None, typer.Option(help="one a run, in their order; default: the runs")] = None,
) -> None:
    """Contrast evaluations with the first one, and show the same pictures in a row.

    Example: lookahead compare runs/miniature/evaluate RUN --label now --label before
    """
    if len(runs) < 2:
        raise InputError(f"a comparison needs two runs or more, and was given {', '.join(runs)}")
    labels = label or runs
    if len(labels) != len(runs):
        raise InputError(f"{len(runs)} runs have {len(labels)} times --label: give it once a run")
    tracking = parameters().tracking
    from lookahead.report import comparison
    from lookahead.tracking import fetch_files

    read = []
    with tempfile.TemporaryDirectory() as fetched:
        for number, (run, name) in enumerate(zip(runs, labels, strict=True)):
            folder = Path(run)
            if not folder.is_dir():
                folder = Path(fetched) / str(number)
                fetch_files(tracking, run, comparison.FILES, folder)
            read.append(comparison.read_run(name, folder, method))
    print(f"{comparison.write_comparison(read, out)}\n\n{out}")


@app.command()
def ui(port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 5000) -> None:
    """Show the runs in MLflow's pages, for this machine only."""
    tracking = parameters().tracking
    check_port(port)
    if not tracking.enabled:
        raise InputError("tracking is switched off: set tracking.enabled to true in params.yaml")
    from lookahead.mlflow_pages import headline_page
    from lookahead.tracking import connect, server_command

    command, environment = server_command(tracking, port)
    page = headline_page(connect(tracking)[1])
    print(f"MLflow: http://127.0.0.1:{port}/{page} (Ctrl-C stops it)", flush=True)
    os.execvpe(command[0], command, environment)


@app.command()
def dashboard(
    storage: Annotated[str | None, typer.Option(help="of a shared study; default: this machine's SQLite file")] = None,
    port: Annotated[int, typer.Option(help="on 127.0.0.1")] = 8080,
) -> None:
    """Show the studies in optuna-dashboard, for this machine only."""
    if storage is None and not STUDIES.is_file():
        raise InputError(f"{STUDIES} does not exist: run `make search` first, or name a shared --storage")
    from lookahead.config import check_storage

    check_storage(storage)
    check_port(port)
    print(f"optuna-dashboard: http://127.0.0.1:{port} (Ctrl-C stops it)", flush=True)
    program = str(Path(sys.executable).with_name("optuna-dashboard"))
    os.execv(program, [program, storage or f"sqlite:///{STUDIES}", "--host", "127.0.0.1", "--port", str(port)])
