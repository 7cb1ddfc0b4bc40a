"""The factory: every part trains and opens, a killed training resumes, precision fits the device."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from lookahead import world
from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from miniature import build, training
from miniature.base import embed_prompts
from miniature.build import PARTS, Builder, build_part, read_miniature
from miniature.data import Faces, Pool, draw_faces
from miniature.faces import KINDS
from miniature.training import Part, autocast, fit
from miniature.vocabulary import SCENES, STYLES, caption, draw_identities


def fake_pool() -> Pool:
    """Noise that claims to show every style and scene twice."""
    generator, rows = torch.Generator().manual_seed(0), torch.arange(2 * len(STYLES) * len(SCENES))
    pixels = torch.randint(256, (len(rows), 3, 64, 64), generator=generator).byte()
    name = torch.where(rows % 3 == 0, -1, 0)
    style, scene = rows // len(SCENES) % len(STYLES), rows % len(SCENES)
    return Pool(pixels, draw_identities(len(rows), generator), style, scene, name, name)


def fake_faces() -> Faces:
    """Six pictures of each of six people."""
    generator = torch.Generator().manual_seed(0)
    people = draw_identities(6, generator).repeat_interleave(6, 0)
    return draw_faces(people, torch.zeros(36, dtype=torch.int64), generator, "wide")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A factory with little data that trains each part for one step."""
    for name, rows in (("open_pool", fake_pool()), ("open_people", fake_faces()), ("open_wide", fake_faces())):
        monkeypatch.setattr(build, name, lambda *_, rows=rows: rows)
    for name, kind in KINDS.items():
        monkeypatch.setitem(KINDS, name, replace(kind, people=(0, 6)))
    committed, root = read_miniature(), tmp_path / "miniature"
    parts = {name: part.model_copy(update={"steps": 1, "batch_size": 4}) for name, part in committed.parts.items()}
    people = dict.fromkeys(committed.people, 1)
    checkpoints = read_params().worlds["miniature"].checkpoints.model_dump_json()
    return Builder(
        root,
        tmp_path / "work",
        committed.model_copy(update={"parts": parts, "people": people, "trajectories": 4}),
        Checkpoints.model_validate_json(checkpoints.replace("models/miniature", root.as_posix())),
    )


@pytest.mark.slow
def test_every_part_trains_in_float32_on_a_processor_without_bfloat16_and_opens(
    builder: Builder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    formats: set[torch.dtype] = set()
    hook = register_module_forward_hook(lambda _, __, out: formats.add(getattr(out, "dtype", torch.float32)))
    for name in [name for name in PARTS if name != "card"]:
        build_part(name, builder)
    hook.remove()
    assert torch.bfloat16 not in formats
    pipe = world.open_pipeline(builder.checkpoints)
    world.attach_adapter(pipe, builder.checkpoints)
    world.attach_fast_child(pipe, builder.checkpoints)
    for opening in (world.open_generator, world.open_preview_vae, world.open_image_encoder, world.open_scorer):
        opening(builder.checkpoints)
    assert all(len(world.open_faces(str(pack), 64).models) == 2 for pack in (builder.root / "faces/models").iterdir())
    assert len(list((builder.root / "portraits").rglob("*.jpg"))) == 9


def test_an_unknown_part_is_refused_with_the_known_ones(builder: Builder) -> None:
    with pytest.raises(InputError, match="no part 'unet': choose one of detector"):
        build_part("unet", builder)


@pytest.mark.parametrize(
    ("gpu", "capabilities", "dtype"),
    [
        (None, {}, torch.float32),
        (None, {"avx512_bf16": True}, torch.bfloat16),
        (None, {"amx_bf16": True}, torch.bfloat16),
        (False, {"amx_bf16": True}, torch.float32),
        (True, {}, torch.bfloat16),
    ],
)
def test_bfloat16_is_chosen_where_the_device_has_it(
    monkeypatch: pytest.MonkeyPatch, gpu: bool | None, capabilities: dict[str, bool], dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu is not None)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert world.compute_dtype() == dtype
    if gpu is None:
        with autocast():
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype


class Odd(nn.Module):
    """A network with a weight that no gradient reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.norm = nn.Linear(3, 3), nn.Parameter(torch.ones(2)), nn.BatchNorm1d(3)


def train(work: Path, killed_at: int | None = None) -> dict[str, Tensor]:
    torch.manual_seed(0)
    odd = Odd()

    def loss(step: int, generator: torch.Generator) -> Tensor:
        if step == killed_at:
            raise KeyboardInterrupt
        inputs = torch.randn(8, 3, generator=generator).to(world.device())
        return (odd.norm(odd.used(inputs)) - inputs).square().mean()

    fit(odd, loss, Part(steps=6, batch_size=4, learning_rate=0.1, seed=1), work)
    return odd.state_dict()


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY", 2)
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", 3)
    resumed = train(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_committed_pipeline_embeds_prompts_as_the_training_did() -> None:
    """The two tokenizers once numbered words differently; an empty prompt is zeros, as where captions were dropped."""
    pipe = world.open_pipeline(read_params().worlds["miniature"].checkpoints)
    captions = [caption(style, scene, "anna abel") for style in STYLES for scene in SCENES]
    tokens, empty, pooled, empty_pooled = pipe.encode_prompt(
        captions, device=world.device(), num_images_per_prompt=1, do_classifier_free_guidance=True
    )
    trained = embed_prompts(Path("models/miniature/base"), captions)
    torch.testing.assert_close(tokens, trained.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(pooled, trained.pooled, atol=1e-4, rtol=1e-4)
    assert not empty.any() and not empty_pooled.any()
