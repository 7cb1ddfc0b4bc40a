"""Why to look ahead: what a one-step preview shows at each timestep, from the base (naive x0) to its fast child."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from lookahead import world
from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.evaluation.cells import Cell
from lookahead.evaluation.evaluator import Evaluator
from lookahead.evaluation.pictures import Conditions, in_batches
from lookahead.evaluation.samplers import checkpoint_digest
from lookahead.evaluation.scores import similarity
from lookahead.evaluation.statistics import crossed_interval
from lookahead.method.diffusion import add_noise
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.sampling.conditions import Condition, reference_latents, reference_pixels
from lookahead.sampling.loop import noise_schedule, predict, start_noise
from lookahead.world.distributed import gather_objects, own_share


def people_shown(evaluator: Evaluator) -> list[int]:
    """The numbers of the first people who have a second photo."""
    wanted = evaluator.settings.previews.people
    return [number for number, person in enumerate(evaluator.people) if person.others][:wanted]


def measure_previews(evaluator: Evaluator, untuned: Cell, cache: Path) -> pd.DataFrame:
    """One row a timestep and strength of the fast child: the error and the recognisability of previews (Eq. 3).

    Another photo of each person is noised; the untuned adapter sees the reference. `identity` is the cosine of preview
    and reference by pack `report`, 0 where no face is found, with a 95 % interval over people; `error` is the mean
    squared difference to the photo, pixels in [-1, 1]. The processes of a launch share the rows out.
    """
    settings, checkpoints = evaluator.settings.previews, evaluator.checkpoints
    shown = people_shown(evaluator)
    points = [(t, scale) for t in settings.timesteps for scale in settings.scales]

    def measure() -> pd.DataFrame:
        pipe, conditions = evaluator.pipe, evaluator.conditions  # encoded here, before an adapter is attached
        world.attach_adapter(pipe, checkpoints)
        world.attach_fast_child(pipe, checkpoints)
        try:
            own = _measure(evaluator, conditions, shown, own_share(points))
        finally:
            world.detach_fast_child(pipe)
            world.detach_adapter(pipe)
        rows = {(row["t"], row["scale"]): row for row in gather_objects(own)}
        return pd.DataFrame([rows[point] for point in points])

    key = digest(
        ["previews", evaluator.key(untuned, evaluator.plan), evaluator.score_key, settings.model_dump(mode="json")],
        digest_paths([evaluator.people[number].others[0] for number in shown]),
        [checkpoint_digest(source) for source in (checkpoints.fast_child.source, checkpoints.preview_vae)],
        [evaluator.settings.seed, code_digest("evaluation/previews.py", "evaluation/statistics.py")],
    )
    return evaluator.cached(cache, key[:32], measure)


@torch.no_grad()
def _measure(
    evaluator: Evaluator, conditions: Conditions, shown: list[int], points: Sequence[tuple[int, float]]
) -> list[dict[str, float]]:
    """The rows of some timesteps and strengths, while the adapter and the fast child are on the pipeline."""
    pipe, size, seed = evaluator.pipe, evaluator.settings.batch_size, evaluator.settings.seed * 100_003
    paths = [evaluator.people[number].others[0] for number in shown]
    photos = torch.cat(in_batches(paths, size, lambda batch: reference_pixels(pipe, batch)))
    latents = in_batches(paths, size, lambda batch: reference_latents(pipe, batch))
    noise = start_noise(pipe, [torch.Generator().manual_seed(seed + i) for i in range(len(paths))]).split(size)
    given = [conditions.alone(shown[i : i + size]) for i in range(0, len(shown), size)]
    references = [evaluator.scorers.references[number] for number in shown]
    vae, schedule = world.open_preview_vae(evaluator.checkpoints), noise_schedule(pipe.scheduler)
    child = lora_layers(pipe.unet, world.FAST_CHILD)
    switch_off(child)

    def preview(t: int, scale: float, latents: Tensor, noise: Tensor, given: Condition) -> Tensor:
        """Pixels (B, 3, H, W) in [-1, 1]."""
        times = torch.full((len(noise),), t, device=noise.device)
        noisy = add_noise(schedule, latents, noise, times).to(latents.dtype)
        with child_at(child, world.FAST_CHILD, scale):
            (prediction,) = predict(pipe, noisy, times, [given])
        clean = lcm_preview(schedule, noisy.float(), prediction.float(), times)
        return world.decode_latents(vae, clean).clamp(-1, 1).cpu()

    rows = []
    for t, scale in tqdm(points, desc="previews", unit="curve point"):
        pixels = torch.cat([preview(t, scale, *batch) for batch in zip(latents, noise, given, strict=True)])
        faces = [evaluator.scorers.faces.read(image) for image in world.to_uint8(pixels)]
        cosines = [similarity(f, r, "report") if f else 0.0 for f, r in zip(faces, references, strict=True)]
        identity = crossed_interval(np.array([cosines]))
        row = {"t": t, "scale": scale, "identity": identity.mean}
        row |= {"identity_low": identity.low, "identity_high": identity.high}
        found, error = sum(face is not None for face in faces) / len(faces), (pixels - photos).square().mean()
        rows.append(row | {"found": found, "error": float(error)})
    return rows
