"""Pictures of a person as files: a grid, and every picture with its prompt, seed and settings in its metadata."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from diffusers.utils import make_image_grid
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from lookahead.artifacts import publish
from lookahead.config import World, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline.face_check import FaceCheck
from lookahead.pipeline.pipeline import LookaheadPipeline
from lookahead.portraits import open_picture

GRID = "grid.png"
_PACKAGES = ("lookahead", "torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Request:
    """Portraits of one person, prompts, and how to draw; `overrides` are by dotted paths of `personalize`."""

    portraits: tuple[Path, ...]
    prompts: tuple[str, ...]
    negative_prompt: str | None
    num_images_per_prompt: int
    seed: int
    fast: bool
    overrides: Mapping[str, object]


def find_encoder(world: str, given: Path | None) -> Path | None:
    """The given encoder, else the one that training wrote, else None, which stands for the untuned adapter.

    Raises:
        InputError: the given folder holds no encoder.
    """
    if given is not None and not (given / ADAPTER_FILE).is_file():
        raise InputError(f"{given} holds no encoder: {ADAPTER_FILE} was expected in it")
    trained = Path("runs") / world / "train" / "lookahead" / "encoder"
    return given or (trained if (trained / ADAPTER_FILE).is_file() else None)


def check_out(out: Path) -> None:
    """Refuse a folder that has files already, before minutes are spent.

    Raises:
        InputError: `out` is a file or a folder that is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} exists already and is not empty: choose another folder")


def personalize(world: World, encoder: Path | None, request: Request, out: Path) -> None:
    """Draw every prompt and write `grid.png` and `<prompt>-<seed>.png` into `out`, all of them or none.

    Raises:
        InputError: a portrait does not show one face, a number is out of range, or `out` is not empty.
    """
    check_out(out)
    overrides = {path: value for path, value in request.overrides.items() if value is not None}
    settings = with_overrides(world.personalize, overrides)
    check = FaceCheck(world.checkpoints, settings.min_face_size)
    portraits = [check(open_picture(path), str(path)) for path in request.portraits]
    pipe = LookaheadPipeline(world.checkpoints, settings, encoder)
    pictures = _draw(pipe, portraits, request)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        _write(Path(work), pictures, portraits[0], request, _origin(pipe, request))
        Path(work).chmod(0o755)  # temporary folders are private
        publish(Path(work), out)


def _draw(pipe: LookaheadPipeline, portraits: Sequence[Image.Image], request: Request) -> list[Image.Image]:
    settings, count = pipe.settings, len(request.prompts) * request.num_images_per_prompt
    steps = (settings.fast if request.fast else settings).num_inference_steps * -(-count // settings.batch_size)
    with tqdm(total=steps, desc=f"drawing {count} pictures", unit="step") as bar:
        return pipe(
            portraits,
            request.prompts,
            request.negative_prompt,
            num_images_per_prompt=request.num_images_per_prompt,
            seed=request.seed,
            fast=request.fast,
            callback=lambda step, t, latents: bar.update() and None,
        )


def _origin(pipe: LookaheadPipeline, request: Request) -> dict[str, str]:
    """The metadata that all pictures share; portraits by name only, as paths tell about their owner."""
    return {
        "negative_prompt": request.negative_prompt or "",
        "portraits": ", ".join(path.name for path in request.portraits),
        "encoder": "untuned adapter" if pipe.encoder is None else "tuned",
        "fast": str(request.fast),
        "settings": json.dumps(pipe.settings.model_dump(mode="json"), sort_keys=True),
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "Software": f"lookahead {version('lookahead')}: this picture is generated",
    }


def _write(
    folder: Path, pictures: Sequence[Image.Image], portrait: Image.Image, request: Request, origin: Mapping[str, str]
) -> None:
    tiles: list[Image.Image] = []
    count = request.num_images_per_prompt
    for row, prompt in enumerate(request.prompts):
        drawn = pictures[row * count : (row + 1) * count]
        tiles += [portrait.resize(drawn[0].size, Image.Resampling.LANCZOS), *drawn]
        for seed, picture in enumerate(drawn, request.seed):
            picture.save(folder / f"{row:02d}-{seed}.png", pnginfo=_metadata(prompt, seed, origin))
    grid = make_image_grid(tiles, len(request.prompts), count + 1)
    grid.save(folder / GRID, pnginfo=_metadata("\n".join(request.prompts), request.seed, origin))


def _metadata(prompt: str, seed: int, origin: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, text in {"prompt": prompt, "seed": str(seed), **origin}.items():
        info.add_itxt(name, text)
    return info
