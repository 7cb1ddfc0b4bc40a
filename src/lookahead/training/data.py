"""Pairs of pictures, their features as a batch, and random draws, which depend on the seed and an index alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from lookahead.config import Density, LoraScale, Train
from lookahead.errors import InputError
from lookahead.features.store import FeatureStore, FeatureTable
from lookahead.method.annealing import DENSITIES, among, annealed, between, draw_timesteps, importance, mixture
from lookahead.method.lora_scale import draw_scale
from lookahead.sampling.conditions import Condition, Prompt, Reference
from lookahead.world import to_device


def generator_for(purpose: str, seed: int, index: int) -> Generator:
    """A generator for each purpose and index: what one pass draws does not shift what another one does."""
    digest = hashlib.sha256(f"{purpose}/{seed}/{index}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))


def _shares(groups: Tensor, inside: Tensor) -> Tensor:
    """For each row (N,), 1 / how many of the groups `inside` (N,) lie in the row's one of `groups` (N,)."""
    distinct = torch.unique(torch.stack([groups, inside], 1), dim=0)  # (G, 2)
    return 1 / torch.bincount(distinct[:, 0], minlength=int(groups.max()) + 1)[groups].double()


def balanced(own: Tensor, identity: Tensor, style: Tensor, own_share: float) -> Tensor:
    """The chance of each picture, (N,) float64 of sum 1: equal for the people of a source, and for a person's styles.

    `own` (N,) says which are own photos, whose chance is `own_share` where there are both sources; `identity` and
    `style` number people and styles (N,).
    """
    rows = torch.arange(len(own))
    looks = identity * (int(style.max()) + 1) + style  # a number for each style of each person
    within = _shares(own.long(), identity) * _shares(identity, style) * _shares(looks, rows)
    both = bool(own.any()) and not bool(own.all())
    return within * (torch.where(own, own_share, 1 - own_share).double() if both else 1.0)


class Pairs:
    """The pairs of a dataset: any picture as target and, as its reference, another photo of the person."""

    def __init__(self, table: FeatureTable, own_share: float, photos_only: bool = False) -> None:
        """Find who has a second photo; `own_share` is that of targets from own photos, if there are any."""
        photos = torch.nonzero(table.photo).squeeze(1)
        self._photos = photos[torch.argsort(table.identity[photos], stable=True)]  # (P,) grouped by person
        owners = table.identity[self._photos]
        self._first = torch.searchsorted(owners, table.identity)  # (N,) where each one's person begins among the photos
        number = torch.searchsorted(owners, table.identity, right=True) - self._first
        self._others = number - table.photo.long()  # (N,) photos that may be the reference
        self._position = torch.full_like(table.identity, len(photos))  # (N,) a photo's rank among the person's
        self._position[self._photos] = torch.arange(len(photos)) - self._first[self._photos]
        self.targets = torch.nonzero((self._others > 0) & (table.photo | (not photos_only))).squeeze(1)
        if len(self.targets) == 0:
            raise InputError("no person has two photos: generate more of them, or lower generate.min_photo_similarity")
        numbers = {style: number for number, style in enumerate(sorted(set(table.style)))}
        styles = torch.tensor([numbers[style] for style in table.style])[self.targets]
        self.chances = balanced(table.own[self.targets], table.identity[self.targets], styles, own_share)
        self._ends = self.chances.cumsum(0)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Rows (count,) of targets and of references, which depend on the generator alone."""
        which, turns = (torch.rand(count, generator=generator, dtype=torch.float64) for _ in range(2))
        targets = self.targets[torch.searchsorted(self._ends, which * self._ends[-1], right=True)]
        turn = (turns * self._others[targets]).long()  # (count,) in [0, others)
        skip = turn >= self._position[targets]  # a photo is not its own reference
        return targets, self._photos[self._first[targets] + turn + skip.long()]


@dataclass(frozen=True)
class Batch:
    """Pairs of a target and a reference, B of them: everything that the losses need, encoded in advance."""

    rows: Tensor  # (B,) of the targets in the features
    latents: Tensor  # (B, C, h, w), target
    landmarks: Tensor  # (B, 5, 2) pixels, target
    condition: Condition  # the target's prompt, which names nobody, and the reference's image features
    reference: Reference  # what the KV-encoder sees
    embeddings: Tensor  # (B, E) unit: whom the preview should show


def _float(tensor: Tensor) -> Tensor:
    return to_device(tensor).float()


def load_pairs(store: FeatureStore, targets: Tensor, references: Tensor, against: str = "reference") -> Batch:
    """The features of targets and references, rows (B,) each, in float32 on the device.

    Previews are compared with the face of the "reference", or the "centroid" of all photos of the person.
    """
    embeddings = store.centroids(references) if against == "centroid" else store.embeddings(references)
    prompt, reference_prompt = (Prompt(*store.prompt_embeds(rows)).map(_float) for rows in (targets, references))
    return Batch(
        rows=targets,
        latents=_float(store.latents(targets)),
        landmarks=_float(store.landmarks(targets)),
        condition=Condition(prompt, _float(store.image_features(references))),
        reference=Reference(_float(store.latents(references)), reference_prompt),
        embeddings=_float(embeddings),
    )


def null_condition(store: FeatureStore, count: int) -> Condition:
    """The empty prompt and no image, `count` times: for dropped conditions and for classifier-free guidance."""
    prompts = store.prompts
    empty = Condition(Prompt(prompts.empty_prompt_embeds, prompts.empty_pooled), prompts.null_image_features)
    return empty.map(lambda one: _float(one).expand(count, *one.shape[1:]))


def _where(kept: Tensor, given: Tensor, empty: Tensor) -> Tensor:
    return torch.where(to_device(kept).view(-1, *[1] * (given.ndim - 1)), given, empty)


def with_dropout(store: FeatureStore, condition: Condition, settings: Train, generator: Generator) -> Condition:
    """The condition with some samples' image tokens dropped, and some samples' prompts (as IP-Adapter)."""
    count, shares = len(condition.image), (settings.image_dropout, settings.text_dropout)
    image_kept, text_kept = (torch.rand(count, generator=generator) >= share for share in shares)
    empty = null_condition(store, count)
    prompt = Prompt(
        _where(text_kept, condition.prompt.tokens, empty.prompt.tokens),
        _where(text_kept, condition.prompt.pooled, empty.prompt.pooled),
    )
    return Condition(prompt, _where(image_kept, condition.image, empty.image))


@dataclass(frozen=True)
class NoiseDraw:
    """Timesteps (B,), int64, the noise (B, C, h, w) of one pass, and the weight of each sample's loss, (B,)."""

    t: Tensor
    noise: Tensor
    weight: Tensor


class Draws(NamedTuple):
    """The draws of both losses of a micro-batch."""

    noise: NoiseDraw
    lookahead: NoiseDraw


def density_at(density: Density, timesteps: int, progress: float) -> Tensor:
    """The density (timesteps,) after a share of the training, its strength annealed (§4.3)."""
    strength = annealed(density.annealing, density.strength, density.final_strength, progress)
    return between(DENSITIES[density.kind](strength, timesteps), density.timestep_min, density.timestep_max)


def _draw_noise(shape: torch.Size, density: Tensor, generator: Generator) -> NoiseDraw:
    t = draw_timesteps(density, shape[0], generator)
    return NoiseDraw(t, torch.randn(shape, generator=generator), torch.ones(shape[0]))


def _to_device(draw: NoiseDraw) -> NoiseDraw:
    return NoiseDraw(to_device(draw.t), to_device(draw.noise), to_device(draw.weight))


def draw_both(
    shape: torch.Size, settings: Train, timesteps: int, index: int, previewed: Sequence[int] | None = None
) -> Draws:
    """The draws of micro-batch `index`, whose latents have a shape (B, C, h, w), on the device (§3).

    With `share_timesteps` both losses see the same t, from the mixture of their densities, and the same noise; the
    weights keep each loss's mean what it would be with draws of its own (tested to be unbiased). A training without the
    lookahead loss draws the same way, so that both variants see the same t and noise. Previews from pure noise all
    start at T - 1, so that there is nothing to share. `previewed` are the only timesteps of the lookahead loss, if not
    None.
    """
    seed, step = settings.seed, index // settings.gradient_accumulation_steps
    progress = min(1.0, step / max(1, settings.steps - 1))
    densities = [density_at(one, timesteps, progress) for one in (settings.noise_density, settings.lookahead.density)]
    if previewed is not None:
        densities[1] = among(densities[1], previewed)
    if settings.shares_draws:
        both = mixture(*densities)
        drawn = _draw_noise(shape, both, generator_for("shared_pass", seed, index))
        draw, weights = _to_device(drawn), (importance(density, both, drawn.t) for density in densities)
        return Draws(*(replace(draw, weight=to_device(weight)) for weight in weights))
    purposes = zip(densities, ("noise_pass", "lookahead_pass"), strict=True)
    noise, lookahead = (_draw_noise(shape, density, generator_for(name, seed, index)) for density, name in purposes)
    if settings.lookahead.preview.start == "noise":
        lookahead = replace(lookahead, t=torch.full_like(lookahead.t, timesteps - 1))
    return Draws(_to_device(noise), _to_device(lookahead))


def scale_at(settings: LoraScale, seed: int, step: int) -> float:
    """alpha_LoRA at an optimizer step; `redraw_every` consecutive steps share one (§4.2)."""
    generator = generator_for("lora_scale", seed, step // settings.redraw_every)
    return draw_scale(settings.low, settings.high, settings.probability_of_one, generator)
