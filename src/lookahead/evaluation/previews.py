"""Why to look ahead: what a one-step preview shows at each timestep, from the base (naive x0) to its fast child."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.drawing.cache import checkpoint_digest
from lookahead.evaluation.drawing.conditions import in_batches
from lookahead.evaluation.evaluator import Evaluator
from lookahead.evaluation.scoring.faces import similarity
from lookahead.evaluation.statistics import crossed_interval
from lookahead.method.diffusion import NoiseSchedule, add_noise
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.sampling.conditions import reference_latents, reference_pixels
from lookahead.sampling.loop import predict, start_noise
from lookahead.world import (
    FAST_CHILD,
    attach_adapter,
    attach_fast_child,
    detach_adapter,
    detach_fast_child,
    open_preview_vae,
)
from lookahead.world.distributed import gather_objects, own_share

Row = dict[str, float]


def measure_previews(evaluator: Evaluator, untuned: Cell, cache: Path) -> pd.DataFrame:
    """One row a timestep and strength of the fast child: the error and the recognisability of previews (Eq. 3).

    Another photo of each person is noised; the untuned adapter sees the reference. `identity` is the cosine of preview
    and reference by pack `report`, 0 where no face is found, with a 95 % interval over people; `error` is the mean
    squared difference to the photo, pixels in [-1, 1]. The processes of a launch share the rows out.

    Raises:
        InputError: too few people have a second photo, or a checkpoint is missing.
    """
    settings, people = evaluator.settings.previews, evaluator.people
    shown = [number for number, person in enumerate(people) if person.others][: settings.people]
    if len(shown) < settings.people:
        raise InputError(f"previews.people is {settings.people}, but {len(shown)} people have a second photo")
    grid = [(t, scale) for t in settings.timesteps for scale in settings.scales]
    checkpoints = evaluator.checkpoints

    def measure() -> pd.DataFrame:
        with _previewing(evaluator, shown) as scene:
            own = [(point, scene.measure(*point)) for point in tqdm(own_share(grid), desc="previews")]
        rows = dict(gather_objects(own))
        return pd.DataFrame([{"t": t, "scale": scale} | rows[t, scale] for t, scale in grid])

    key = digest(
        ["previews", evaluator.key(untuned, evaluator.plan), evaluator.score_key, settings.model_dump(mode="json")],
        digest_paths([people[number].others[0] for number in shown]),
        [checkpoint_digest(source) for source in (checkpoints.fast_child, checkpoints.preview_vae)],
        [evaluator.settings.seed, code_digest("evaluation/previews.py", "evaluation/statistics.py")],
    )
    return evaluator.cached(cache, key[:32], measure)


class _Scene:
    """The photos that are noised, in batches, on the pipeline with the untuned adapter and the fast child."""

    def __init__(self, evaluator: Evaluator, shown: list[int]) -> None:
        pipe, self.batch_size = evaluator.pipe, evaluator.settings.batch_size
        photos = [evaluator.people[number].others[0] for number in shown]
        seed = evaluator.settings.seed * 100_003
        self.evaluator, self.shown = evaluator, shown
        self.preview_vae = open_preview_vae(evaluator.checkpoints)
        self.child = lora_layers(pipe.unet, FAST_CHILD)
        self.schedule = NoiseSchedule(
            pipe.scheduler.alphas_cumprod.to(pipe.unet.device), pipe.scheduler.config.prediction_type
        )
        self.latents = in_batches(photos, self.batch_size, lambda batch: reference_latents(pipe, batch))
        self.photos = torch.cat(in_batches(photos, self.batch_size, lambda batch: reference_pixels(pipe, batch)))
        noise = start_noise(pipe, [torch.Generator().manual_seed(seed + i) for i in range(len(photos))])
        self.noise = noise.split(self.batch_size)
        switch_off(self.child)

    @torch.no_grad()
    def preview(self, t: int, scale: float) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] of the photos' previews."""
        parts = []
        for number, (latents, noise) in enumerate(zip(self.latents, self.noise, strict=True)):
            given = self.evaluator.conditions.alone(self.shown[number * self.batch_size :][: len(noise)])
            times = torch.full((len(noise),), t, device=noise.device)
            noisy = add_noise(self.schedule, latents, noise, times).to(latents.dtype)
            with child_at(self.child, FAST_CHILD, scale):
                (prediction,) = predict(self.evaluator.pipe, noisy, times, [given])
            clean = lcm_preview(self.schedule, noisy.float(), prediction.float(), times)
            decoded = self.preview_vae.decode(clean / self.preview_vae.config.scaling_factor).sample
            parts.append(decoded.clamp(-1, 1).cpu())
        return torch.cat(parts)

    def measure(self, t: int, scale: float) -> Row:
        """Identity with its interval, the share of faces found, and the error."""
        pixels, scorers = self.preview(t, scale), self.evaluator.scorers
        images = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
        faces = [scorers.faces.read(np.ascontiguousarray(image)) for image in images]
        wanted = [scorers.references[number] for number in self.shown]
        cosines = [similarity(f, w, "report") if f is not None else 0.0 for f, w in zip(faces, wanted, strict=True)]
        identity = crossed_interval(np.array([cosines]))
        found = sum(face is not None for face in faces) / len(faces)
        error = float((pixels - self.photos).square().mean())
        interval = {"identity": identity.mean, "identity_low": identity.low, "identity_high": identity.high}
        return interval | {"found": found, "error": error}


@contextmanager
def _previewing(evaluator: Evaluator, shown: list[int]) -> Iterator[_Scene]:
    """The untuned adapter and the fast child on the evaluator's pipeline, inside only."""
    pipe = evaluator.pipe
    assert evaluator.conditions is not None  # encoded before an adapter is attached
    attach_adapter(pipe, evaluator.checkpoints)
    attach_fast_child(pipe, evaluator.checkpoints)
    try:
        yield _Scene(evaluator, shown)
    finally:
        detach_fast_child(pipe)
        detach_adapter(pipe)
