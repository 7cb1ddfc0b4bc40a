"""The text-image scorer: a small CLIP in open_clip's folder format, from captions and class prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from lookahead.artifacts import save_tensors
from lookahead.world import device
from miniature.data import Pool, to_pixels
from miniature.renderer import SIZE, render
from miniature.training import Part, blur, fit, jitter, move
from miniature.vocabulary import NOBODY, SCENES, STYLES, captions, captions_without_names, draw_identities, subjects

NAMED, UNNAMED = 0.3, 0.5  # shares of captions with the name and with "a person"; the others have no subject at all
NOISE = 0.08  # largest standard deviation, of pictures in [-1, 1]
EMBEDDING = 32
LENGTH = 24  # tokens; the longest caption has fewer than 20
_CONFIG: dict[str, Any] = {
    "embed_dim": EMBEDDING,
    "vision_cfg": {
        "image_size": SIZE,
        "timm_model_name": "test_resnet",  # timm's smallest; styles are textures, which a transformer learns slowly
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
    },
    "text_cfg": {"context_length": LENGTH, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
_NORMAL = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "shortest"}


def build_scorer(pool: Pool, part: Part, out: Path, work: Path) -> None:
    """Train the two towers contrastively on the pool's pictures and captions (CLIP, section 2.3) and save them."""
    with torch.random.fork_rng():  # open_clip's initialisation takes no generator
        torch.manual_seed(part.seed)
        model = open_clip.CLIP(**json.loads(json.dumps(_CONFIG)), output_dict=False)
    tokenizer = open_clip.SimpleTokenizer(context_length=LENGTH)
    prompts = tokenizer(captions_without_names()).to(device())
    cell_of = pool.style * len(SCENES) + pool.scene
    cells = [(cell_of == cell).nonzero()[:, 0] for cell in range(len(STYLES) * len(SCENES))]

    def loss(_: int, generator: torch.Generator) -> Tensor:
        rows = _balanced(cells, part.batch_size, generator)
        pixels = augment(to_pixels(pool.pixels[rows]), generator)
        people, style, scene = subjects(pool.first[rows], pool.last[rows]), pool.style[rows], pool.scene[rows]
        draws = zip(people, torch.rand(len(rows), generator=generator).tolist(), strict=True)
        called = [name if draw < NAMED else NOBODY if draw < NAMED + UNNAMED else "" for name, draw in draws]
        images = model.encode_image(pixels, normalize=True)
        tokens = tokenizer(captions(style, scene, called)).to(device())
        true = true_captions(style, scene, people, called).to(device())
        contrastive = contrastive_loss(model, images, tokens, true)
        return contrastive + class_loss(model, images, prompts, style.to(device()), scene.to(device()))

    fit(model, loss, part, work)
    halves = {name: tensor.detach().half().contiguous() for name, tensor in model.state_dict().items()}
    save_tensors(out / "open_clip_model.safetensors", halves, {"format": "pt"})
    config = json.dumps({"model_cfg": _CONFIG, "preprocess_cfg": _NORMAL}, indent=2, sort_keys=True)
    (out / "open_clip_config.json").write_text(config + "\n", encoding="utf-8")


def _balanced(cells: list[Tensor], count: int, generator: torch.Generator) -> Tensor:
    """`count` rows, of every cell of the style x scene grid equally many but for the remainder."""
    rounds = [torch.randperm(len(cells), generator=generator) for _ in range(-(-count // len(cells)))]
    chosen = [cells[i] for i in torch.cat(rounds)[:count].tolist()]
    return torch.stack([rows[torch.randint(len(rows), (), generator=generator)] for rows in chosen])


def true_captions(style: Tensor, scene: Tensor, people: list[str], called: list[str]) -> Tensor:
    """Which captions are true of which pictures: (B, B) bool, rows are pictures; "a person" is true of everybody."""
    same = (style[:, None] == style) & (scene[:, None] == scene)
    who = torch.tensor([[name in (NOBODY, "", person) for name in called] for person in people])
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


def classes(model: Any, prompts: Tensor) -> tuple[Tensor, Tensor]:
    """Unit embeddings of styles and of scenes, each the mean over its prompts (CLIP, section 3.1.4)."""
    grid = model.encode_text(prompts, normalize=True).unflatten(0, (len(STYLES), len(SCENES)))
    return F.normalize(grid.mean(1), dim=-1), F.normalize(grid.mean(0), dim=-1)


def class_loss(model: open_clip.CLIP, images: Tensor, prompts: Tensor, style: Tensor, scene: Tensor) -> Tensor:
    """Cross-entropy of style and scene by ensembled prompts: without it, captions become 36 unrelated classes."""
    scale = model.logit_scale.exp().clamp(max=100)
    styles, scenes = classes(model, prompts)
    return F.cross_entropy(scale * images @ styles.T, style) + F.cross_entropy(scale * images @ scenes.T, scene)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Changed copies of pictures (B, 3, H, W) in [-1, 1]: sampled pictures, which it will score, are never clean."""
    changed = blur(jitter(move(pixels, generator), generator), generator)
    level = NOISE * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    noise = level * torch.randn(changed.shape, generator=generator)
    return (changed + noise.to(changed.device)).clamp(-1, 1)


@torch.no_grad()
def measure_scorer(folder: Path, people: int, seed: int) -> dict[str, float]:
    """Zero-shot accuracy of style and scene on new pictures of unseen people, clean and after `augment`.

    Args:
        folder: what `build_scorer` wrote.
        people: how many people, each drawn once in every style and scene.
        seed: of people and pictures.
    """
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{folder}", device=device())
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    styles, scenes = classes(model.eval(), tokenizer(captions_without_names()).to(device()))
    generator = torch.Generator().manual_seed(seed)
    style = torch.arange(len(STYLES)).repeat_interleave(len(SCENES)).repeat(people)
    scene = torch.arange(len(SCENES)).repeat(people * len(STYLES))
    who = draw_identities(people, generator).repeat_interleave(len(STYLES) * len(SCENES), 0)
    clean = render(who, style, scene, generator, "portrait").pixels
    figures = {}
    for suffix, pixels in {"": clean, "_degraded": augment(clean, generator)}.items():
        chunks = torch.split(pixels.to(device()), 200)
        images = torch.cat([model.encode_image(chunk, normalize=True) for chunk in chunks])
        for name, embeddings, right in (("style", styles, style), ("scene", scenes, scene)):
            likely = (images @ embeddings.T).argmax(1).cpu()
            figures[f"{name}{suffix}"] = (likely == right).float().mean().item()
    return figures
