"""Drawing the dataset: invented people by the few-step generator, shard by shard, checked and kept by their faces."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from insightface.app import FaceAnalysis
from tqdm import tqdm

from lookahead.artifacts import Log, write_json, write_parquet
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.apart import (
    EVALUATED,
    Portraits,
    check_names,
    drop_evaluated,
    likenesses,
    read_evaluated,
)
from lookahead.dataset.card import save_histograms, write_card
from lookahead.dataset.consistency import REASONS, Face, Verdict, find_face, judge, summarise
from lookahead.dataset.gallery import save_gallery
from lookahead.dataset.plan import Picture, plan_pictures
from lookahead.dataset.prompts import read_prompts
from lookahead.dataset.retrieval import rank_one
from lookahead.dataset.shards import Pixels, encode_png, keep_only, read_rows, shard_is_done, shard_path, write_shard
from lookahead.dataset.table import TABLE, judged_table, sights_of
from lookahead.errors import InputError
from lookahead.world import Pipeline, open_faces, open_generator, quiet_alignment
from lookahead.world.processes import PATIENCE, broadcast, launched


def draw_pictures(pipe: Pipeline, pictures: Sequence[Picture], checkpoints: Checkpoints) -> list[Pixels]:
    """Draw a batch of pictures, each from its own seed."""
    images = pipe(
        prompt=[picture.prompt for picture in pictures],
        generator=[torch.Generator().manual_seed(picture.seed) for picture in pictures],
        num_inference_steps=checkpoints.generator.num_inference_steps,
        guidance_scale=checkpoints.generator.guidance_scale,
        height=checkpoints.resolution,
        width=checkpoints.resolution,
        output_type="np",
    ).images
    return list((images * 255).round().clip(0, 255).astype(np.uint8))  # B x (H, W, 3)


def _looked_at(faces: FaceAnalysis, pixels: Pixels) -> tuple[bytes, Face | None]:
    """A picture as PNG, and the face in it."""
    return encode_png(pixels), find_face(faces, pixels)


def draw_and_look(
    pipe: Pipeline, faces: FaceAnalysis, pictures: Sequence[Picture], checkpoints: Checkpoints, batch: int, bar: Any
) -> list[tuple[bytes, Face | None]]:
    """Draw pictures in batches, and of each one the PNG and the face; threads do that while the next batch is drawn.

    At 1024 pixels, compressing takes one core much longer than drawing takes a GPU. No bytes depend on the threads.
    """
    pool = ThreadPoolExecutor()
    try:
        looks: list[Future[tuple[bytes, Face | None]]] = []
        for start in range(0, len(pictures), batch):
            drawn = draw_pictures(pipe, pictures[start : start + batch], checkpoints)
            looks += [pool.submit(_looked_at, faces, pixels) for pixels in drawn]
            bar.update(len(drawn))
        return [look.result() for look in looks]
    finally:
        pool.shutdown(cancel_futures=True)


def _shards(pictures: Sequence[Picture], size: int) -> Iterator[tuple[int, Sequence[Picture]]]:
    for number, start in enumerate(range(0, len(pictures), size)):
        yield number, pictures[start : start + size]


def _clean(pictures: Sequence[Picture], settings: Generate, work: Path) -> None:
    keep_only(work, [])
    keep_only(work / "shards", [shard_path(work, number).name for number, _ in _shards(pictures, settings.shard)])


def _missing(pictures: Sequence[Picture], settings: Generate, work: Path) -> list[tuple[int, Sequence[Picture]]]:
    shards = _shards(pictures, settings.shard)
    return [(number, rows) for number, rows in shards if not shard_is_done(shard_path(work, number), rows)]


def draw_shards(
    checkpoints: Checkpoints, settings: Generate, pictures: Sequence[Picture], work: Path, log: Log
) -> None:
    """Draw the missing shards that are this process's; batches never cross shards, so that the bytes stay the same.

    Raises:
        InputError: a checkpoint or an existing shard is damaged, or the disk is full.
    """
    missing = [(number, rows) for number, rows in _missing(pictures, settings, work) if launched().mine(number)]
    if not missing:
        return
    pipe, faces = open_generator(checkpoints), open_faces(checkpoints.faces.select, checkpoints.faces.detection_size)
    with quiet_alignment(), tqdm(total=len(pictures), desc="drawing people", unit="image") as bar:
        bar.update(len(pictures) - sum(len(rows) for _, rows in missing))
        for number, rows in missing:
            looked = draw_and_look(pipe, faces, rows, checkpoints, settings.batch, bar)
            pngs, found = [png for png, _ in looked], [face for _, face in looked]
            write_shard(shard_path(work, number), rows, pngs, found)
            log({"images": float(bar.n), "faces_found": 1 - found.count(None) / len(found)}, number)


def assist() -> None:
    """Draw this process's shards of the dataset that the first process is making, as it tells.

    Raises:
        InputError: a checkpoint is damaged, or the disk is full.
    """
    told = json.loads(broadcast("", launched()))
    checkpoints, settings = Checkpoints.model_validate(told["checkpoints"]), Generate.model_validate(told["settings"])
    pictures = plan_pictures(read_prompts(settings.prompts), settings)
    draw_shards(checkpoints, settings, pictures, Path(told["work"]), lambda _metrics, _step: None)


def _draw_all(checkpoints: Checkpoints, settings: Generate, pictures: Sequence[Picture], work: Path, log: Log) -> None:
    """Clean up before any process writes, tell the others where, draw, and wait until they are done."""
    _clean(pictures, settings, work)
    told = {"checkpoints": checkpoints.model_dump(), "settings": settings.model_dump(), "work": str(work.resolve())}
    broadcast(json.dumps(told), launched())
    draw_shards(checkpoints, settings, pictures, work, log)
    while _missing(pictures, settings, work):  # if another process dies, the launcher ends this one
        time.sleep(PATIENCE)


def _check_any_kept(verdicts: Sequence[Verdict], settings: Generate) -> None:
    if any(verdict.kept for verdict in verdicts):
        return
    known = [v.similarity for v in verdicts if v.similarity is not None]
    middle = f"their median similarity is {np.median(known):.2f}" if known else "no face is found in any"
    alike = sum(verdict.reason == EVALUATED for verdict in verdicts)
    raise InputError(
        f"none of {len(verdicts)} pictures is kept: {middle}, keep_photo is {settings.keep_photo}, keep_stylised "
        f"{settings.keep_stylised}, keep_images {settings.keep_images}; lower those, or look at the generator; "
        f"{alike} are too like the evaluation's people: evaluation_likeness is {settings.evaluation_likeness}"
    )


def synthesise(checkpoints: Checkpoints, settings: Generate, portraits: Portraits, work: Path, log: Log) -> None:
    """Draw, check and describe the dataset in `work`: shards, `table.parquet`, `metrics.json`, its card and pictures.

    Nobody of the `portraits` is in it: a plan with such a name is refused, a person with such a face dropped.
    A run that was cut off continues at its missing shards.

    Raises:
        InputError: the prompts file, a portrait, a checkpoint or a shard is bad, a name is one of the evaluation's, the
            disk is full, or no picture is kept.
    """
    prompts = read_prompts(settings.prompts)
    pictures = plan_pictures(prompts, settings)
    evaluated = read_evaluated(checkpoints, portraits)
    check_names({picture.name for picture in pictures}, evaluated)
    _draw_all(checkpoints, settings, pictures, work, log)
    rows = read_rows(work)
    sights = sights_of(rows)
    verdicts = judge(sights, settings, prompts.plain)
    likeness = likenesses(sights, verdicts, prompts.plain, evaluated.faces)
    verdicts = drop_evaluated(sights, verdicts, likeness, settings.evaluation_likeness)
    _check_any_kept(verdicts, settings)
    write_parquet(work / TABLE, judged_table(rows, verdicts, prompts.plain))
    metrics = {
        **summarise(sights, verdicts, (*REASONS, EVALUATED)),
        "rank_1": rank_one(sights, verdicts, prompts.plain),
        "evaluation_people": len(evaluated.folders),
        "nearest_evaluation_person": max(
            (v for v in likeness.values() if v <= settings.evaluation_likeness), default=None
        ),
    }
    write_json(work / "metrics.json", metrics)
    save_histograms(work / "histograms.png", sights, verdicts, prompts.plain)
    write_card(work / "README.md", metrics, settings.licences)
    save_gallery(work, verdicts, settings.photos + settings.stylised)
