"""Pictures of a person as files: a grid, and every picture with what made it in its metadata."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers.utils import make_image_grid
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from lookahead.artifacts import publish
from lookahead.config import World, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline.pipeline import LookaheadPipeline
from lookahead.pipeline.portraits import FaceCheck, read_person

GRID = "grid.png"
_PACKAGES = ("lookahead", "torch", "diffusers", "transformers", "peft")


@dataclass(frozen=True)
class Wish:
    """What is to be drawn: portraits of one person, prompts, and how; `changes` are dotted paths of `personalize`."""

    portraits: tuple[Path, ...]
    prompts: tuple[str, ...]
    negative: str | None
    images: int
    seed: int
    fast: bool
    changes: Mapping[str, object]


def find_encoder(world: str, given: Path | None) -> Path | None:
    """The encoder to draw with: the given folder, else the one that training wrote, else None, the untuned adapter.

    Raises:
        InputError: the given folder holds no encoder.
    """
    if given is not None and not (given / ADAPTER_FILE).is_file():
        raise InputError(f"{given} holds no encoder: {ADAPTER_FILE} was expected in it")
    trained = Path("runs") / world / "train" / "lookahead" / "encoder"
    return given or (trained if (trained / ADAPTER_FILE).is_file() else None)


def check_out(out: Path) -> None:
    """Refuse a folder that holds something already, before minutes are spent.

    Raises:
        InputError: `out` is a file or a folder that is not empty.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out} exists already and is not empty: choose another folder")


def personalize(world: World, encoder: Path | None, wish: Wish, out: Path) -> None:
    """Draw every prompt and put `grid.png` and `<prompt>-<seed>.png` into `out`, all of them or none.

    Raises:
        InputError: a portrait does not show one face, a number is out of range, or `out` holds something already.
    """
    check_out(out)
    settings = with_overrides(world.personalize, {path: v for path, v in wish.changes.items() if v is not None})
    portraits = read_person(wish.portraits, FaceCheck(world.checkpoints, settings.smallest_face))
    pipe = LookaheadPipeline(world.checkpoints, settings, encoder)
    pictures = _draw(pipe, portraits, wish)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as work:
        _write(Path(work), pictures, portraits[0], wish, _origin(pipe, wish))
        Path(work).chmod(0o755)  # temporary folders are private
        publish(Path(work), out)


def _draw(pipe: LookaheadPipeline, portraits: Sequence[Image.Image], wish: Wish) -> list[Image.Image]:
    settings, count = pipe.settings, len(wish.prompts) * wish.images
    batches = -(-count // settings.batch)
    steps = settings.fast.steps if wish.fast else settings.steps
    with tqdm(total=batches * steps, desc=f"drawing {count} pictures", unit="step") as bar:

        def advance(step: int, t: int, latents: torch.Tensor) -> None:
            bar.update()

        return pipe(
            portraits,
            wish.prompts,
            wish.negative,
            seed=wish.seed,
            num_images=wish.images,
            fast=wish.fast,
            callback=advance,
        )


def _origin(pipe: LookaheadPipeline, wish: Wish) -> dict[str, str]:
    """What all pictures of a call have in common; portraits by name only, as paths tell about their owner."""
    return {
        "negative_prompt": wish.negative or "",
        "portraits": ", ".join(path.name for path in wish.portraits),
        "encoder": "untuned adapter" if pipe.encoder is None else "tuned",
        "fast": str(wish.fast),
        "settings": json.dumps(pipe.settings.model_dump(mode="json"), sort_keys=True),
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "Software": f"lookahead {version('lookahead')}: this picture is generated",
    }


def _write(
    folder: Path, pictures: Sequence[Image.Image], portrait: Image.Image, wish: Wish, origin: Mapping[str, str]
) -> None:
    tiles: list[Image.Image] = []
    for row, prompt in enumerate(wish.prompts):
        ours = pictures[row * wish.images : (row + 1) * wish.images]
        tiles += [portrait.resize(ours[0].size, Image.Resampling.LANCZOS), *ours]
        for number, picture in enumerate(ours):
            seed = wish.seed + number
            info = {"prompt": prompt, "seed": str(seed)} | dict(origin)
            picture.save(folder / f"{row:02d}-{seed}.png", pnginfo=_png_info(info))
    grid = make_image_grid(tiles, len(wish.prompts), wish.images + 1)
    grid.save(
        folder / GRID, pnginfo=_png_info({"prompt": "\n".join(wish.prompts), "seed": str(wish.seed)} | dict(origin))
    )


def _png_info(entries: Mapping[str, str]) -> PngInfo:
    info = PngInfo()
    for name, text in entries.items():
        info.add_itxt(name, text)
    return info
