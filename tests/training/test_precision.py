"""Preview decoder and recogniser in bfloat16: the lookahead loss's gradient stays what it is in float32.

On the miniature's own decoder, recogniser and people: what is claimed of trained networks is measured on trained ones.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lookahead.config import read_params
from lookahead.models.recogniser import align
from lookahead.training.data import Batch
from lookahead.training.losses import decode, preview_distances
from lookahead.training.networks import Networks, open_networks
from lookahead.world import LandmarkDetector, device, encode_latents, open_pipeline

PEOPLE = Path("models/miniature/portraits/search")
DEGREES = 10.0  # what the gradient may turn, for any one person
COUNT = 12


def photos(number: int) -> Tensor:
    """One of each person's photos, (COUNT, 3, H, W) in [-1, 1]."""
    paths = [folder / f"{number}.jpg" for folder in sorted(PEOPLE.iterdir())[:COUNT]]
    pictures = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module")
def networks_and_batch() -> tuple[Networks, Batch]:
    world = read_params().of("miniature")
    networks = open_networks(world.checkpoints, world.train)[1]
    faces = world.checkpoints.faces
    detector = LandmarkDetector(faces.loss, faces.detection_size)
    shown, other = photos(0).to(device()), photos(1).to(device())
    (landmarks, found), (others, also_found) = detector(shown), detector(other)
    seen = found & also_found
    assert seen.sum() >= COUNT - 2
    with torch.no_grad():
        latents = encode_latents(open_pipeline(world.checkpoints).vae, shown)[seen]
        wanted = networks.recogniser(align(other, others.to(device())))[seen]
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0)).to(latents)
    batch = Batch(torch.arange(len(latents)), latents + 0.15 * noise, landmarks[seen].to(device()), None, None, wanted)
    return networks, batch


def gradient(networks: Networks, batch: Batch) -> tuple[Tensor, Tensor]:
    """Distances (B,) of what the latents show, and their gradients at the latents, (B, D)."""
    latents = batch.latents.clone().requires_grad_()
    distance, _ = preview_distances(networks, batch, decode(networks, latents), "identity")
    (slope,) = torch.autograd.grad(distance.sum(), latents)
    return distance.detach(), slope.flatten(1)


def test_the_gradient_points_where_it_does_in_float32(networks_and_batch):
    networks, batch = networks_and_batch
    exact_distance, exact = gradient(networks, batch)
    distance, halved = gradient(replace(networks, precision=torch.bfloat16), batch)
    assert not torch.equal(exact, halved), "nothing was computed in bfloat16"
    turned = torch.nn.functional.cosine_similarity(exact, halved).clamp(-1, 1).acos().rad2deg()
    assert turned.max() < DEGREES
    assert (halved.norm(dim=1) / exact.norm(dim=1) - 1).abs().max() < 0.05
    assert (distance - exact_distance).abs().max() < 0.01
