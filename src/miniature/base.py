"""The base model: an SDXL-shaped U-Net with its noise schedule, trained to predict v from captions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lookahead.method.diffusion import NoiseSchedule, add_noise, noise_target
from lookahead.sampling.loop import noise_schedule
from lookahead.world import device, frozen
from miniature.autoencoders import LATENT_CHANNELS
from miniature.data import Pool
from miniature.encoders import PROJECTION, TEXT_WIDTHS, tokenize
from miniature.renderer import SIZE
from miniature.training import Part, autocast, fit

CAPTION_DROPOUT = 0.1
TIME_IDS = (SIZE, SIZE, 0, 0, SIZE, SIZE)  # original size, crop, target size, as SDXL's pipeline passes them
_TIME_WIDTH = 8


@dataclass(frozen=True)
class Prompts:
    """Embedded prompts, row by row, on the device."""

    tokens: Tensor  # (B, LENGTH, 96)
    pooled: Tensor  # (B, 64)

    def __getitem__(self, rows: Tensor) -> Prompts:
        return Prompts(self.tokens[rows], self.pooled[rows])

    def without(self, dropped: Tensor) -> Prompts:
        """The same with zeros, SDXL's empty prompt, where `dropped` (B,) is true."""
        kept = ~dropped.to(self.tokens.device)
        return Prompts(self.tokens * kept[:, None, None], self.pooled * kept[:, None])


def new_scheduler() -> EulerDiscreteScheduler:
    """SDXL's noise schedule, predicting v (why: MODEL_CARD.md)."""
    return EulerDiscreteScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        num_train_timesteps=1000,
        prediction_type="v_prediction",
        steps_offset=1,
        timestep_spacing="leading",
    )


def new_unet() -> UNet2DConditionModel:
    """An untrained U-Net of 4.8 M parameters with SDXL's conditioning."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 64, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 2, 4),
        transformer_layers_per_block=1,
        use_linear_projection=True,
        cross_attention_dim=sum(TEXT_WIDTHS),
        norm_num_groups=16,
        addition_embed_type="text_time",
        addition_time_embed_dim=_TIME_WIDTH,
        projection_class_embeddings_input_dim=PROJECTION + _TIME_WIDTH * len(TIME_IDS),
    )


def predict(
    unet: UNet2DConditionModel, noised: Tensor, t: Tensor, prompts: Prompts, image: Tensor | None = None
) -> Tensor:
    """The U-Net's prediction (B, 8, 16, 16) in float32; `image` are image features (B, S, D) for an adapter."""
    time_ids = torch.tensor(TIME_IDS, dtype=torch.float32, device=noised.device).expand(len(noised), -1)
    conditions: dict[str, object] = {"text_embeds": prompts.pooled, "time_ids": time_ids}
    if image is not None:
        conditions["image_embeds"] = [image.unsqueeze(1)]
    out: Tensor = unet(noised, t, prompts.tokens, added_cond_kwargs=conditions).sample
    return out.float()


@torch.no_grad()
def embed_prompts(base: Path, captions: list[str]) -> Prompts:
    """Embed captions as SDXL's pipeline does: both encoders' penultimate states, and the second's projection."""
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    first = frozen(CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32))
    second = frozen(CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2", dtype=torch.float32))
    tokens, pooled = [], []
    for start in range(0, len(captions), 1000):
        ids = tokenize(tokenizer, captions[start : start + 1000])
        two = second(ids, output_hidden_states=True)
        tokens.append(torch.cat([first(ids, output_hidden_states=True).hidden_states[-2], two.hidden_states[-2]], 2))
        pooled.append(two.text_embeds)
    return Prompts(torch.cat(tokens), torch.cat(pooled))


@dataclass(frozen=True)
class NoisyBatch:
    """Rows of the pool with noise added, on the device."""

    rows: Tensor  # (B,) int64, on the CPU
    t: Tensor  # (B,) int64
    noised: Tensor  # (B, 8, 16, 16)
    target: Tensor  # (B, 8, 16, 16), what the U-Net should predict


def draw_batch(latents: Tensor, schedule: NoiseSchedule, count: int, generator: torch.Generator) -> NoisyBatch:
    """Draw rows of the latents (N, 8, 16, 16), noise and timesteps."""
    rows = torch.randint(len(latents), (count,), generator=generator)
    clean = latents[rows].float().to(device())
    noise = torch.randn(clean.shape, generator=generator).to(device())
    t = torch.randint(1000, (count,), generator=generator).to(device())
    return NoisyBatch(rows, t, add_noise(schedule, clean, noise, t), noise_target(schedule, clean, noise, t))


def build_base(pool: Pool, latents: Tensor, part: Part, base: Path, work: Path) -> None:
    """Train the U-Net on captions with names and "a person", and save the whole pipeline in `base`."""
    torch.manual_seed(part.seed)
    unet, schedule, captions = new_unet(), noise_schedule(new_scheduler()), pool.captions()
    distinct = {text: index for index, text in enumerate(dict.fromkeys(captions))}
    prompts = embed_prompts(base, list(distinct))
    prompt_of = torch.tensor([distinct[text] for text in captions])

    def loss(step: int, generator: torch.Generator) -> Tensor:
        batch = draw_batch(latents, schedule, part.batch_size, generator)
        dropped = torch.rand(part.batch_size, generator=generator) < CAPTION_DROPOUT
        with autocast():
            predicted = predict(unet, batch.noised, batch.t, prompts[prompt_of[batch.rows]].without(dropped))
        return F.mse_loss(predicted, batch.target)

    fit(unet, loss, part, work)
    save_base(unet, base)


def save_base(unet: UNet2DConditionModel, base: Path) -> None:
    """Write the U-Net, the scheduler and the pipeline's index next to the parts that exist already."""
    pipeline = StableDiffusionXLPipeline(
        vae=AutoencoderKL.from_pretrained(base / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(base / "text_encoder"),
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(base / "text_encoder_2"),
        tokenizer=CLIPTokenizer.from_pretrained(base / "tokenizer"),
        tokenizer_2=CLIPTokenizer.from_pretrained(base / "tokenizer_2"),
        unet=unet.eval(),
        scheduler=new_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    unet.half().save_pretrained(base / "unet")
    new_scheduler().save_pretrained(base / "scheduler")
    pipeline.save_config(base)
