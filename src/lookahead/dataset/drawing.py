"""Drawing the dataset: which pictures of whom, by the few-step generator, shard by shard, each looked at for a face."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import torch
from insightface.app import FaceAnalysis
from PIL import Image
from tqdm import tqdm

from lookahead.artifacts import Log, keep_only
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.faces import Face, find_face
from lookahead.dataset.prompts import Prompts, read_prompts
from lookahead.dataset.shards import Picture, encode_png, shard_is_done, shard_path, write_shard
from lookahead.dataset.summary import summarise_dataset
from lookahead.portraits import Pixels
from lookahead.world import Pipeline, open_faces, open_generator, quiet_alignment
from lookahead.world.distributed import is_main_process, own_share, wait_for_everyone


def _seed(*entropy: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1)[0])


def _shuffled(words: list[str], count: int, generator: torch.Generator) -> list[str]:
    """`count` words in turns of a random order, so that each comes equally often."""
    order = torch.randperm(len(words), generator=generator).tolist()
    return [words[order[i % len(words)]] for i in range(count)]


class Plan:
    """The pictures of a dataset: for each person `photos` plain ones, then `stylised` others.

    Scenes are dealt in turns, as the words of each further detail, which one turn leaves open.
    """

    def __init__(self, prompts: Prompts, settings: Generate) -> None:
        self._prompts, self._settings, self._each = prompts, settings, settings.photos + settings.stylised
        self.names = prompts.invent(settings.people, settings.seed)
        total, size = len(self.names) * self._each, settings.shard_size
        self.shards = [range(start, min(start + size, total)) for start in range(0, total, size)]

    def pictures(self, indices: range) -> list[Picture]:
        """The pictures of consecutive indices; a seed depends on the index alone, never on batch or process."""
        first = indices.start // self._each
        people = range(first, -(-indices.stop // self._each))
        every = [picture for identity in people for picture in self._of_person(identity)]
        return every[indices.start - first * self._each :][: len(indices)]

    def _of_person(self, identity: int) -> list[Picture]:
        prompts, settings, name = self._prompts, self._settings, self.names[identity]
        generator = torch.Generator().manual_seed(_seed(settings.seed, identity, 1))
        styles = [prompts.plain] * settings.photos + _shuffled(prompts.stylised, settings.stylised, generator)
        said, pictures = {"style": styles, "scene": _shuffled(list(prompts.scenes), self._each, generator)}, []
        for kind, phrases in prompts.details.items():
            said[kind] = _shuffled([*phrases, ""], self._each, generator)
        for index, drawn in enumerate(zip(*said.values(), strict=True), identity * self._each):
            words = {kind: word for kind, word in zip(said, drawn, strict=True) if word}
            texts = prompts.caption(name, words), prompts.caption(prompts.nobody, words)
            style, scene, *_ = drawn
            pictures.append(Picture(index, identity, name, style, scene, *texts, _seed(settings.seed, index)))
        return pictures


def draw_pictures(pipe: Pipeline, pictures: Sequence[Picture], checkpoints: Checkpoints) -> list[Pixels]:
    """Draw a batch of pictures, each from its own seed, in the generator's resolution, scaled to the world's."""
    side = checkpoints.resolution
    images = pipe(
        prompt=[picture.prompt for picture in pictures],
        generator=[torch.Generator().manual_seed(picture.seed) for picture in pictures],
        num_inference_steps=checkpoints.generator.num_inference_steps,
        guidance_scale=checkpoints.generator.guidance_scale,
        height=checkpoints.generator.resolution,
        width=checkpoints.generator.resolution,
    ).images
    return [np.asarray(image.resize((side, side), Image.Resampling.LANCZOS)) for image in images]  # B x (H, W, 3)


def draw_and_inspect(
    pipe: Pipeline, faces: FaceAnalysis, pictures: Sequence[Picture], checkpoints: Checkpoints, batch: int, bar: Any
) -> tuple[list[bytes], list[Face | None]]:
    """Draw pictures in batches; threads make the PNGs and find the faces while the next batch is drawn.

    At 1024 pixels, compressing takes one core much longer than drawing takes a GPU. No bytes depend on the threads.
    """

    def inspect(pixels: Pixels) -> tuple[bytes, Face | None]:
        return encode_png(pixels), find_face(faces, pixels)

    results: list[Future[tuple[bytes, Face | None]]] = []
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(pictures), batch):
            drawn = draw_pictures(pipe, pictures[start : start + batch], checkpoints)
            wait(results[: max(0, start - batch)])  # no more than two batches of pixels are held
            results += [pool.submit(inspect, pixels) for pixels in drawn]
            bar.update(len(drawn))
        done = [result.result() for result in results]
    return [png for png, _ in done], [face for _, face in done]


def _draw_shards(checkpoints: Checkpoints, settings: Generate, plan: Plan, work: Path, log: Log) -> None:
    """Draw this process's missing shards; batches never cross shards, so that the bytes stay the same."""
    own = [(shard_path(work, number), plan.shards[number]) for number in own_share(range(len(plan.shards)))]
    missing = [(path, indices) for path, indices in own if not shard_is_done(path, plan.pictures(indices))]
    if not missing:
        return
    pipe, faces = open_generator(checkpoints), open_faces(checkpoints.faces.select, checkpoints.faces.detection_size)
    total = sum(len(indices) for _, indices in missing)
    with quiet_alignment(), tqdm(total=total, desc="generate", unit="image") as bar:
        for path, indices in missing:
            pictures = plan.pictures(indices)
            pngs, found = draw_and_inspect(pipe, faces, pictures, checkpoints, settings.batch_size, bar)
            write_shard(path, pictures, pngs, found)
            log({"images": float(bar.n), "faces_found": 1 - found.count(None) / len(found)}, int(path.stem))


def synthesise(checkpoints: Checkpoints, settings: Generate, work: Path, log: Log) -> None:
    """Draw, check and describe the dataset in `work`: shards, `table.parquet`, `metrics.json`, its card and pictures.

    Every process calls this and draws its share of the shards; a run that was cut off continues at its missing shards,
    so that a kill loses `shard_size` pictures at most.
    """
    plan = Plan(prompts := read_prompts(settings.prompts), settings)
    if is_main_process():
        keep_only(work, [])
        keep_only(work / "shards", [shard_path(work, number).name for number in range(len(plan.shards))])
    wait_for_everyone()
    _draw_shards(checkpoints, settings, plan, work, log)
    wait_for_everyone()
    if is_main_process():
        summarise_dataset(work, settings, prompts.plain)
