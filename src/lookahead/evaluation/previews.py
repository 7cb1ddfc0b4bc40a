"""Why to look ahead: what a one-step preview shows at each timestep, from the base (naive x0) to its fast child."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lookahead import world
from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.errors import InputError
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.drawing.pictures import Conditions, in_batches
from lookahead.evaluation.drawing.samplers import checkpoint_digest
from lookahead.evaluation.evaluator import Evaluator
from lookahead.evaluation.scoring.scores import similarity
from lookahead.evaluation.statistics import crossed_interval
from lookahead.method.diffusion import add_noise
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.sampling.conditions import reference_latents, reference_pixels
from lookahead.sampling.loop import noise_schedule, predict, start_noise
from lookahead.world.distributed import gather_objects, own_share


def people_shown(evaluator: Evaluator) -> list[int]:
    """The numbers of the first people who have a second photo."""
    wanted = evaluator.settings.previews.people
    shown = [number for number, person in enumerate(evaluator.people) if person.others][:wanted]
    if len(shown) < wanted:
        raise InputError(f"previews.people is {wanted}, but {len(shown)} people have a second photo: lower it")
    return shown


def measure_previews(evaluator: Evaluator, untuned: Cell, cache: Path) -> pd.DataFrame:
    """One row a timestep and strength of the fast child: the error and the recognisability of previews (Eq. 3).

    Another photo of each person is noised; the untuned adapter sees the reference. `identity` is the cosine of preview
    and reference by pack `report`, 0 where no face is found, with a 95 % interval over people; `error` is the mean
    squared difference to the photo, pixels in [-1, 1]. The processes of a launch share the rows out.
    """
    settings, checkpoints = evaluator.settings.previews, evaluator.checkpoints
    shown = people_shown(evaluator)
    grid = [(t, scale) for t in settings.timesteps for scale in settings.scales]

    def measure() -> pd.DataFrame:
        pipe, conditions = evaluator.pipe, evaluator.conditions  # encoded here, before an adapter is attached
        world.attach_adapter(pipe, checkpoints)
        world.attach_fast_child(pipe, checkpoints)
        try:
            previews = _Previews(evaluator, conditions, shown)
            own = [(point, previews.measure(*point)) for point in tqdm(own_share(grid), desc="previews")]
        finally:
            world.detach_fast_child(pipe)
            world.detach_adapter(pipe)
        rows = dict(gather_objects(own))
        return pd.DataFrame([{"t": t, "scale": scale} | rows[t, scale] for t, scale in grid])

    key = digest(
        ["previews", evaluator.key(untuned, evaluator.plan), evaluator.score_key, settings.model_dump(mode="json")],
        digest_paths([evaluator.people[number].others[0] for number in shown]),
        [checkpoint_digest(source) for source in (checkpoints.fast_child.source, checkpoints.preview_vae)],
        [evaluator.settings.seed, code_digest("evaluation/previews.py", "evaluation/statistics.py")],
    )
    return evaluator.cached(cache, key[:32], measure)


class _Previews:
    """The photos that are noised, in batches, while the adapter and the fast child are on the pipeline."""

    def __init__(self, evaluator: Evaluator, conditions: Conditions, shown: list[int]) -> None:
        pipe, size, seed = evaluator.pipe, evaluator.settings.batch_size, evaluator.settings.seed * 100_003
        photos = [evaluator.people[number].others[0] for number in shown]
        self.evaluator, self.shown = evaluator, shown
        self.preview_vae = world.open_preview_vae(evaluator.checkpoints)
        self.child = lora_layers(pipe.unet, world.FAST_CHILD)
        self.schedule = noise_schedule(pipe.scheduler)
        self.photos = torch.cat(in_batches(photos, size, lambda batch: reference_pixels(pipe, batch)))
        latents = in_batches(photos, size, lambda batch: reference_latents(pipe, batch))
        noise = start_noise(pipe, [torch.Generator().manual_seed(seed + i) for i in range(len(photos))]).split(size)
        given = [conditions.alone(shown[i : i + size]) for i in range(0, len(shown), size)]
        self.batches = list(zip(latents, noise, given, strict=True))
        switch_off(self.child)

    @torch.no_grad()
    def preview(self, t: int, scale: float) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] of the photos' previews."""
        parts = []
        for latents, noise, given in self.batches:
            times = torch.full((len(noise),), t, device=noise.device)
            noisy = add_noise(self.schedule, latents, noise, times).to(latents.dtype)
            with child_at(self.child, world.FAST_CHILD, scale):
                (prediction,) = predict(self.evaluator.pipe, noisy, times, [given])
            clean = lcm_preview(self.schedule, noisy.float(), prediction.float(), times)
            parts.append(world.decode_latents(self.preview_vae, clean).clamp(-1, 1).cpu())
        return torch.cat(parts)

    def measure(self, t: int, scale: float) -> dict[str, float]:
        """Identity with its interval, the share of faces found, and the error."""
        pixels, scorers = self.preview(t, scale), self.evaluator.scorers
        faces = [scorers.faces.read(image) for image in world.to_uint8(pixels)]
        wanted = [scorers.references[number] for number in self.shown]
        cosines = [similarity(f, w, "report") if f is not None else 0.0 for f, w in zip(faces, wanted, strict=True)]
        identity = crossed_interval(np.array([cosines]))
        found = sum(face is not None for face in faces) / len(faces)
        error = float((pixels - self.photos).square().mean())
        interval = {"identity": identity.mean, "identity_low": identity.low, "identity_high": identity.high}
        return interval | {"found": found, "error": error}
