"""Why to look ahead: what a one-step preview shows at each timestep, from the base (naive x0) to its fast child."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lookahead.artifacts import atomic
from lookahead.config import Checkpoints, Evaluate
from lookahead.errors import InputError
from lookahead.evaluation.faces import Embeddings, FaceReader, similarity
from lookahead.evaluation.pictures import Conditions
from lookahead.evaluation.statistics import interval
from lookahead.method.diffusion import NoiseSchedule, add_noise
from lookahead.method.preview import lcm_preview
from lookahead.models.fast_child import child_at, lora_layers, switch_off
from lookahead.portraits import Person, read_photo
from lookahead.sampling.conditions import Condition, reference_latents, reference_pixels
from lookahead.sampling.loop import predict, start_noise
from lookahead.world import FAST_CHILD, Pipeline, attach_adapter, attach_fast_child, open_pipeline, open_preview_vae


def measure_previews(
    checkpoints: Checkpoints, settings: Evaluate, people: list[Person], conditions: Conditions, faces: FaceReader
) -> pd.DataFrame:
    """One row a timestep and strength of the fast child: the error and the recognisability of previews (Eq. 3).

    Another photo of each person is noised; the untuned adapter sees the reference. `identity` is the cosine of preview
    and reference by pack `report`, 0 where no face is found, with a 95 % interval over people; `error` is the mean
    squared difference to the photo, pixels in [-1, 1].

    Raises:
        InputError: too few people have a second photo, or a checkpoint is missing.
    """
    shown = [number for number, person in enumerate(people) if person.others][: settings.previews.people]
    if len(shown) < settings.previews.people:
        raise InputError(f"previews.people is {settings.previews.people}, but {len(shown)} people have a second photo")
    pipe = open_pipeline(checkpoints)
    attach_fast_child(pipe, checkpoints)
    attach_adapter(pipe, checkpoints)
    scene = _Scene(pipe, open_preview_vae(checkpoints), settings, [people[number] for number in shown])
    given = conditions.alone(shown)
    wanted = [faces.read(read_photo(people[number].reference)) for number in shown]
    cells = [(t, scale) for t in settings.previews.timesteps for scale in settings.previews.scales]
    rows = [
        {"t": t, "scale": scale} | _judged(scene.preview(given, t, scale), scene.photos, wanted, faces, settings)
        for t, scale in tqdm(cells, desc="previews")
    ]
    return pd.DataFrame(rows)


class _Scene:
    """The networks and the photos that are noised."""

    def __init__(self, pipe: Pipeline, preview_vae: Pipeline, settings: Evaluate, people: list[Person]) -> None:
        photos = [Image.fromarray(read_photo(person.others[0])) for person in people]
        generators = [torch.Generator().manual_seed(settings.seed * 100_003 + i) for i in range(len(people))]
        config = pipe.scheduler.config
        self.pipe, self.preview_vae = pipe, preview_vae
        self.child = lora_layers(pipe.unet, FAST_CHILD)
        self.schedule = NoiseSchedule(pipe.scheduler.alphas_cumprod.to(pipe.unet.device), config.prediction_type)
        self.latents, self.noise = reference_latents(pipe, photos), start_noise(pipe, generators)
        self.photos = reference_pixels(pipe, photos)
        switch_off(self.child)

    @torch.no_grad()
    def preview(self, given: Condition, t: int, scale: float) -> Tensor:
        """Pixels (N, 3, H, W) in [-1, 1] of the photos' previews."""
        times = torch.full((len(self.noise),), t, device=self.noise.device)
        noisy = add_noise(self.schedule, self.latents, self.noise, times).to(self.latents.dtype)
        with child_at(self.child, FAST_CHILD, scale):
            (prediction,) = predict(self.pipe, noisy, times, [given])
        clean = lcm_preview(self.schedule, noisy.float(), prediction.float(), times)
        decoded: Tensor = self.preview_vae.decode(clean / self.preview_vae.config.scaling_factor).sample
        return decoded.clamp(-1, 1).cpu()


def _judged(
    pixels: Tensor, photos: Tensor, wanted: list[Embeddings | None], faces: FaceReader, settings: Evaluate
) -> dict[str, float]:
    grey = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    seen = [faces.read(np.ascontiguousarray(picture)) for picture in grey]
    cosines = [
        similarity(one, other, "report") if one is not None and other is not None else 0.0
        for one, other in zip(seen, wanted, strict=True)
    ]
    mean, low, high = interval(np.array(cosines), settings.bootstrap, settings.seed).measured()
    error = float((pixels - photos).square().mean())
    found = sum(one is not None for one in seen) / len(seen)
    return {"identity": mean, "identity_low": low, "identity_high": high, "found": found, "error": error}


def save_previews(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f", lineterminator="\n")
