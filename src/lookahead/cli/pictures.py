"""Commands of those who want pictures."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from lookahead.cli import World, app, check_port, parameters
from lookahead.errors import InputError

Encoder = Annotated[Path | None, typer.Option(help="an encoder's folder; default: the trained one, else untuned")]
CHAMPION = "champion"
UNTUNED = "the untuned adapter (`lookahead train` trains an encoder)"


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
    scheduler: Annotated[str | None, typer.Option(help="of diffusers, e.g. EulerDiscreteScheduler")] = None,
    steering: Annotated[float | None, typer.Option(help="strength of lookahead guidance, e.g. 0.1; 0 is off")] = None,
    combine: Annotated[str | None, typer.Option(help="several portraits: average or concatenate")] = None,
) -> None:
    """Draw a person from portraits and prompts.

    Example: lookahead personalize me.jpg --prompt "a pencil drawing of a person in the snow" --out snow

    What is not given comes from `personalize` in params.yaml. Draw only people who agreed to it.
    """
    settings = parameters().of(world)
    from lookahead.pipeline import personalize as pictures
    from lookahead.world import PICTURES, require

    require(settings.checkpoints, settings.name, PICTURES)
    found = pictures.find_encoder(settings.name, encoder)
    print(f"encoder: {found or UNTUNED}", flush=True)
    changes = {
        "kv": kv,
        "adapter_scale": adapter_scale,
        "fast.guidance_scale" if fast else "guidance_scale": guidance,
        "fast.num_inference_steps" if fast else "num_inference_steps": steps,
        "fast.scheduler" if fast else "scheduler": scheduler,
        "steering.strength": steering,
        "combine": combine,
    }
    request = pictures.Request(tuple(portraits), tuple(prompt), negative, images, seed, fast, changes)
    pictures.personalize(settings, found, request, out)
    print(out / pictures.GRID)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="its files are replaced")], world: World = None, encoder: Encoder = None
) -> None:
    """Write the encoder for other programs: a standard IP-Adapter file, and a model card."""
    settings = parameters().of(world)
    from lookahead.pipeline import LookaheadPipeline
    from lookahead.pipeline.personalize import find_encoder
    from lookahead.pipeline.pipeline import export as write

    found = find_encoder(settings.name, encoder)
    print(f"encoder: {found or UNTUNED}", flush=True)
    intervals = None if encoder else Path("runs", settings.name, "evaluate", "intervals.json")
    write(LookaheadPipeline(settings.checkpoints, settings.personalize, found), out, intervals)
    print(out / "README.md")


@app.command()
def convert(
    checkpoint: Annotated[Path, typer.Argument(help="the authors' model_ckpt.pt; `published`: the world's, fetched")],
    out: Annotated[Path, typer.Argument(help="a new folder, for `--encoder`")],
    world: World = "sdxl",
) -> None:
    """Make an encoder of the authors' published checkpoint (docs/authors-encoder.md); needs no GPU."""
    settings = parameters().of(world)
    from lookahead.pipeline.convert import convert as make
    from lookahead.world import require
    from lookahead.world.hub import find

    published = settings.checkpoints.published_encoder
    if checkpoint == Path("published"):
        if published is None:
            raise InputError(f"worlds.{settings.name}.checkpoints.published_encoder is null: set it in params.yaml")
        checkpoint = Path(find("published_encoder", settings.checkpoints)[0], published.weight_name)
    require(settings.checkpoints, settings.name, ("base", "adapter"))
    print(f"{out} has {' and '.join(make(settings, checkpoint, out))}")


@app.command()
def register(
    folder: Annotated[Path, typer.Argument(help="what `lookahead export` wrote")],
    name: Annotated[str | None, typer.Option(help="of the model; default: lookahead-WORLD")] = None,
    alias: Annotated[str, typer.Option(help="moves to the new version; champion only if that is better")] = CHAMPION,
    world: World = None,
) -> None:
    """Put an exported encoder into MLflow's model registry, from where it is served over HTTP (docs/serving.md).

    A version with the figures of its evaluation becomes the champion if its identity is significantly higher than the
    champion's and its prompt alignment not significantly lower, by one protocol, or if there is no champion yet.
    """
    params = parameters()
    from lookahead.serving import register as put
    from lookahead.tracking import connect, store_uri

    runs = Path("runs", params.of(world).name)
    name, client, experiment = name or f"lookahead-{params.of(world).name}", *connect(params.tracking)
    evaluated = _same(folder, runs / "train/lookahead/encoder") and (runs / "evaluate" / "metrics.json").is_file()
    version = put(folder, client, experiment, name, runs / "evaluate" if evaluated else None)
    champion = client.get_registered_model(name).aliases.get(CHAMPION) if alias == CHAMPION else None
    if champion is not None and not _better(params.tracking, client, name, champion, version):
        print(f"{name} version {version} is registered; version {champion} stays {CHAMPION}, as it is not beaten")
        return
    client.set_registered_model_alias(name, alias, str(version))
    print(f"{name} version {version} is {alias}; serve it from here, the repository's root:")
    print(f"  PATH=$PWD/.venv/bin:$PATH MLFLOW_TRACKING_URI={store_uri(params.tracking)} mlflow models serve \\")
    print(f"    --model-uri models:/{name}@{alias} --env-manager local --host 127.0.0.1 --port 5001")


def _same(folder: Path, trained: Path) -> bool:
    """Whether an exported encoder is the trained one, byte for byte."""
    from lookahead.models.adapter import ADAPTER_FILE

    files = [path / ADAPTER_FILE for path in (folder, trained)]
    return all(file.is_file() for file in files) and len({file.read_bytes() for file in files}) == 1


def _better(tracking: Any, client: Any, name: str, champion: str, version: int) -> bool:
    """Whether a version beats the champion by their evaluations; `client` is MLflow's."""
    from lookahead.report.comparison import FILES, beats, compare, read_run
    from lookahead.report.formats import markdown
    from lookahead.tracking import fetch_files

    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number in (str(champion), str(version)):
            run = client.get_model_version(name, number).run_id
            try:
                fetch_files(tracking, run, FILES, Path(folder, number))
            except InputError:
                print(f"version {number} has no evaluation: nothing is compared")
                return False
            runs.append(read_run(f"version {number}", Path(folder, number), "tuned"))
        print(markdown(compare(runs)[-1]))
        return beats(*runs)


@app.command()
def demo(
    world: World = None,
    encoder: Encoder = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="on 127.0.0.1")] = 7860,
) -> None:
    """Open a page to try portraits and prompts in, untuned and tuned side by side, for this machine only.

    It needs Gradio: `make demo` installs it, and starts this.
    """
    settings = parameters().of(world)
    check_port(port)
    from lookahead.demo import serve
    from lookahead.pipeline.personalize import find_encoder
    from lookahead.world import require

    require(settings.checkpoints, settings.name)
    found = find_encoder(settings.name, encoder)
    print(f"encoder: {found or UNTUNED}")
    print(f"http://127.0.0.1:{port} in a minute (Ctrl-C stops it)", flush=True)
    serve(settings, found, port)
