"""From checked portraits to pictures as files, each with its prompt, seed and settings in its metadata, and a grid."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from diffusers.utils import make_image_grid
from insightface.app import FaceAnalysis
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from lookahead.artifacts import new_folder, read_json
from lookahead.config import Checkpoints, Personalize, World, with_overrides
from lookahead.config.fields import checked
from lookahead.dataset.prompts import read_prompts, words_of
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.pipeline.pipeline import SETTINGS_FILE, Features, LookaheadPipeline, Saved, encode_portraits
from lookahead.portraits import open_picture
from lookahead.sampling.conditions import rebuilt_psnr
from lookahead.world import detect_faces, open_faces

GRID = "grid.png"
_LOGGER = logging.getLogger(__name__)
_PACKAGES = ("lookahead", "torch", "diffusers", "transformers", "peft")

Boxes = NDArray[np.float32]  # (F, 5): left, top, right, bottom in pixels, and the detector's confidence


class FaceCheck:
    """Accepts a portrait that shows one face of a sufficient size, by the detector of pack `loss`."""

    def __init__(self, checkpoints: Checkpoints, min_face_size: float) -> None:
        """Open the detector; `min_face_size` is a face's least height as a share of the picture's shorter side."""
        faces: FaceAnalysis = open_faces(checkpoints.faces.loss, checkpoints.faces.detection_size)
        self._detector, self._min_face_size = faces.models["detection"], min_face_size

    def boxes(self, portrait: Image.Image) -> Boxes:
        """All detected faces, by falling confidence."""
        return detect_faces(self._detector, np.ascontiguousarray(np.asarray(portrait)[:, :, ::-1]))[0]

    def __call__(self, portrait: Image.Image, name: str) -> Image.Image:
        """The portrait's largest square, as near to centred on the face as the picture allows."""
        boxes = self.boxes(portrait)
        if len(boxes) == 0:
            raise InputError(f"{name}: no face is found; use a photo that shows the face from the front, well lit")
        if len(boxes) > 1:
            raise InputError(f"{name}: {len(boxes)} faces are found; crop it to the one person")
        height, side = float(boxes[0, 3] - boxes[0, 1]), min(portrait.size)
        if height < self._min_face_size * side:
            share, least = f"{height / side:.0%}", f"{self._min_face_size:.0%}"
            raise InputError(f"{name}: the face is too small ({share} of the picture, at least {least}); crop closer")
        return square_around(portrait, boxes[0])


def square_around(portrait: Image.Image, box: Boxes) -> Image.Image:
    """The largest square of a picture, moved towards the middle of a box: the image encoder sees only a square."""
    side = min(portrait.size)
    middles = (float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2)
    left, top = (
        round(min(max(m - side / 2, 0), length - side)) for m, length in zip(middles, portrait.size, strict=True)
    )
    return portrait.crop((left, top, left + side, top + side))


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
    """The given encoder, else the one that training wrote, else None, which stands for the untuned adapter."""
    if given is not None and not (given / ADAPTER_FILE).is_file():
        raise InputError(f"{given} holds no encoder: {ADAPTER_FILE} was expected in it")
    trained = Path("runs") / world / "train" / "lookahead" / "encoder"
    return given or (trained if (trained / ADAPTER_FILE).is_file() else None)


def settings_of(world: World, encoder: Path | None) -> Personalize:
    """How an encoder draws: as its own `lookahead.json` says, where it was exported or converted, else as the world."""
    path = None if encoder is None else encoder / SETTINGS_FILE
    if path is None or not path.is_file():
        return world.personalize
    saved = checked(Saved, read_json(path), str(path), "file")
    if saved.checkpoints.base != world.checkpoints.base:
        raise InputError(
            f"{encoder} belongs to the base {saved.checkpoints.base}, but the world {world.name} has "
            f"{world.checkpoints.base}: choose another --world or --encoder"
        )
    return saved.personalize


def personalize(world: World, encoder: Path | None, request: Request, out: Path) -> None:
    """Draw every prompt and write `grid.png` and `<prompt>-<seed>.png` into `out`, all of them or none."""
    overrides = {path: value for path, value in request.overrides.items() if value is not None}
    settings = with_overrides(settings_of(world, encoder), overrides)
    with new_folder(out) as work:
        portraits = _checked(world.checkpoints, settings.min_face_size, request.portraits)
        encoded = encode_portraits(world.checkpoints, portraits, settings.batch_size)
        pipe = LookaheadPipeline(world.checkpoints, settings, encoder)
        for doubt in doubts(pipe, portraits, request.prompts):
            _LOGGER.warning(doubt)
        pictures = _draw(pipe, portraits, request, encoded)
        _write(work, pictures, portraits[0], request, _origin(pipe, request))


def doubts(pipe: LookaheadPipeline, portraits: Sequence[Image.Image], prompts: Sequence[str]) -> list[str]:
    """A sentence for each portrait and prompt that the world, if it is a small one, does not know."""
    if (known := pipe.settings.known) is None:
        return []
    quality, vocabulary = rebuilt_psnr(pipe.base, portraits).tolist(), read_prompts(known.prompts).vocabulary
    found = [
        f"portrait {number} is unlike the people whom this world was trained on (its autoencoder rebuilds it with "
        f"{decibels:.0f} dB, theirs with {known.min_psnr:.0f} and more): for real people take --world sd15"
        for number, decibels in enumerate(quality, 1)
        if decibels < known.min_psnr
    ]
    for prompt in prompts:
        if unknown := sorted(words_of(prompt) - vocabulary):
            found.append(f"this world does not know {', '.join(unknown)}: it draws what {known.prompts} names")
    return found


def _checked(checkpoints: Checkpoints, min_face_size: float, portraits: Sequence[Path]) -> list[Image.Image]:
    """The portraits, cropped; the face pack is closed again."""
    check = FaceCheck(checkpoints, min_face_size)
    return [check(open_picture(path), str(path)) for path in portraits]


def _draw(
    pipe: LookaheadPipeline, portraits: Sequence[Image.Image], request: Request, encoded: Features
) -> list[Image.Image]:
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
            encoded=encoded,
        )


def _origin(pipe: LookaheadPipeline, request: Request) -> dict[str, str]:
    """The metadata that all pictures share; portraits by name only, as paths tell about their owner."""
    return {
        "negative_prompt": request.negative_prompt or "",
        "portraits": ", ".join(path.name.encode(errors="replace").decode() for path in request.portraits),
        "encoder": "untuned adapter" if pipe.encoder is None else "tuned",
        "fast": str(request.fast),
        "settings": json.dumps(pipe.settings.model_dump(mode="json"), sort_keys=True),
        "versions": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "Software": f"lookahead {version('lookahead')}: this picture is generated",
    }


def _write(
    folder: Path, pictures: Sequence[Image.Image], portrait: Image.Image, request: Request, origin: Mapping[str, str]
) -> None:
    tiles, count = list[Image.Image](), request.num_images_per_prompt

    def save(picture: Image.Image, name: str, prompt: str, seed: int) -> None:
        info = PngInfo()
        for key, text in {"prompt": prompt, "seed": str(seed), **origin}.items():
            info.add_itxt(key, text)
        picture.save(folder / name, pnginfo=info)

    for row, prompt in enumerate(request.prompts):
        drawn = pictures[row * count : (row + 1) * count]
        tiles += [portrait.resize(drawn[0].size, Image.Resampling.LANCZOS), *drawn]
        for seed, picture in enumerate(drawn, request.seed):
            save(picture, f"{row:02d}-{seed}.png", prompt, seed)
    grid = make_image_grid(tiles, len(request.prompts), count + 1)
    save(grid, GRID, "\n".join(request.prompts), request.seed)
