"""The miniature's text-image scorer: a small CLIP in open_clip's folder format, from captions and class prompts."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from lookahead.artifacts import Log, save_tensors
from lookahead.config import Part
from miniature.augment import blur, jitter, move
from miniature.fitting import fit
from miniature.pool import Pool
from miniature.renderer import SIZE, draw_identities, render
from miniature.words import NOBODY, SCENES, STYLES, caption

NAMED, UNNAMED = 0.3, 0.5  # shares of captions with the name and with "a person"; the others have no subject at all
NOISE = 0.08  # largest standard deviation, of pictures in [-1, 1]
EMBEDDING = 32
LENGTH = 24  # tokens; the longest caption has fewer than 20
_VISION = (
    "test_resnet"  # timm's smallest residual network; styles are textures, which a vision transformer learns slowly
)
_CONFIG = {
    "embed_dim": EMBEDDING,
    "vision_cfg": {
        "image_size": SIZE,
        "timm_model_name": _VISION,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {"context_length": LENGTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
_NORMAL = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}


def build_scorer(pool: Pool, part: Part, out: Path, work: Path, log: Log) -> None:
    """Train the two towers contrastively on the pool's pictures and captions (CLIP, section 2.3) and save them.

    Args:
        pool: rendered portraits.
        part: steps, batch (pictures), learning rate and seed.
        out: the folder to write.
        work: where the resume state lies.
        log: called with the loss.
    """
    model = _new_model(part.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=LENGTH)
    prompts = tokenizer(every_prompt())
    cells = [
        ((pool.style * len(SCENES) + pool.scene) == cell).nonzero()[:, 0] for cell in range(len(STYLES) * len(SCENES))
    ]

    def loss(_: int, generator: torch.Generator) -> Tensor:
        rows = torch.stack([_one(cells[i], generator) for i in _balanced(part.batch, len(cells), generator)])
        pixels = augment(pool.pixels[rows].float() / 127.5 - 1, generator)
        people, style, scene = [pool.subject(int(row)) for row in rows], pool.style[rows], pool.scene[rows]
        draws = torch.rand(len(rows), generator=generator).tolist()
        subjects = [_subject(name, draw) for name, draw in zip(people, draws, strict=True)]
        texts = [_text(i, j, name) for i, j, name in zip(style.tolist(), scene.tolist(), subjects, strict=True)]
        images = model.encode_image(pixels, normalize=True)
        told = contrastive_loss(model, images, tokenizer(texts), true_captions(style, scene, people, subjects))
        return told + class_loss(model, images, prompts, style, scene)

    fit(model, loss, part, work, log)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_tensors(out / "open_clip_model.safetensors", halves, {"format": "pt"})
    config = json.dumps({"model_cfg": _CONFIG, "preprocess_cfg": _NORMAL}, indent=2, sort_keys=True)
    (out / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")


def _new_model(seed: int) -> open_clip.CLIP:
    with torch.random.fork_rng():  # open_clip's initialisation takes no generator
        torch.manual_seed(seed)
        return open_clip.CLIP(**json.loads(json.dumps(_CONFIG)), output_dict=False)


def _balanced(count: int, cells: int, generator: torch.Generator) -> list[int]:
    """`count` cells of the style x scene grid, every cell equally often but for the remainder."""
    rounds = [torch.randperm(cells, generator=generator) for _ in range(-(-count // cells))]
    return torch.cat(rounds)[:count].tolist()


def _one(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (), generator=generator)]


def _subject(name: str, draw: float) -> str:
    return name if draw < NAMED else NOBODY if draw < NAMED + UNNAMED else ""


def _text(style: int, scene: int, subject: str) -> str:
    text = caption(tuple(STYLES)[style], tuple(SCENES)[scene], subject)
    return text if subject else text.replace(" of  ", " ")


def true_captions(style: Tensor, scene: Tensor, people: list[str], subjects: list[str]) -> Tensor:
    """Which captions are true of which pictures: (B, B) bool, rows are pictures; "a person" is true of everybody."""
    same = (style[:, None] == style) & (scene[:, None] == scene)
    who = torch.tensor([[subject in (NOBODY, "", person) for subject in subjects] for person in people])
    return same & who


def contrastive_loss(model: open_clip.CLIP, images: Tensor, tokens: Tensor, true: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy (section 2.3) with every true caption a positive (Khosla et al. 2020, Eq. 2).

    Args:
        model: the two towers.
        images: (B, EMBEDDING), unit.
        tokens: (B, LENGTH) int64.
        true: (B, B) bool, rows are pictures.
    """
    texts = model.encode_text(tokens, normalize=True)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T  # (B, B)
    weight = true.float()
    of_images = -(weight * logits.log_softmax(1)).sum(1) / weight.sum(1)
    of_texts = -(weight * logits.log_softmax(0)).sum(0) / weight.sum(0)
    loss: Tensor = (of_images.mean() + of_texts.mean()) / 2
    return loss


def every_prompt() -> list[str]:
    """The captions of "a person" in every style (slowest) and scene."""
    return [_text(style, scene, NOBODY) for style in range(len(STYLES)) for scene in range(len(SCENES))]


def classes(model: open_clip.CLIP, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of styles and of scenes, each the mean over its prompts (CLIP, section 3.1.4)."""
    grid = model.encode_text(prompts, normalize=True).unflatten(0, (len(STYLES), len(SCENES)))
    return F.normalize(grid.mean(1), dim=-1), F.normalize(grid.mean(0), dim=-1)


def class_loss(model: open_clip.CLIP, images: Tensor, prompts: Tensor, style: Tensor, scene: Tensor) -> Tensor:
    """Cross-entropy of style and scene by ensembled prompts: without it, captions become 36 unrelated classes."""
    scale = model.logit_scale.exp().clamp(max=100)
    styles, scenes = classes(model, prompts)
    return F.cross_entropy(scale * images @ styles.T, style) + F.cross_entropy(scale * images @ scenes.T, scene)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Changed copies of pictures (B, 3, H, W) in [-1, 1]: the sampled pictures that it judges are never clean."""
    changed = blur(jitter(move(pixels, generator), generator), generator)
    level = NOISE * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (changed + level * torch.randn(changed.shape, generator=generator)).clamp(-1, 1)


@torch.no_grad()
def measure_scorer(folder: Path, people: int, seed: int) -> dict[str, float]:
    """Zero-shot accuracy of style and scene on new pictures of unseen people, clean and after `augment`.

    Args:
        folder: what `build_scorer` wrote.
        people: how many people, each drawn once in every style and scene.
        seed: of people and pictures.
    """
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    styles, scenes = classes(model.eval(), tokenizer(every_prompt()))
    generator = torch.Generator().manual_seed(seed)
    style = torch.arange(len(STYLES)).repeat_interleave(len(SCENES)).repeat(people)
    scene = torch.arange(len(SCENES)).repeat(people * len(STYLES))
    who = draw_identities(people, generator).repeat_interleave(len(STYLES) * len(SCENES), 0)
    clean = render(who, style, scene, generator, "portrait").pixels
    figures = {}
    for suffix, pixels in {"": clean, "_degraded": augment(clean, generator)}.items():
        images = torch.cat([model.encode_image(part, normalize=True) for part in torch.split(pixels, 200)])
        for name, embeddings, right in (("style", styles, style), ("scene", scenes, scene)):
            figures[f"{name}{suffix}"] = ((images @ embeddings.T).argmax(1) == right).float().mean().item()
    return figures
