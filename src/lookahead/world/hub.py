"""A world's parts on the hub: the files that each needs, whether the hub's cache has them, and in which folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.world.packs import named_pack
from lookahead.world.sources import HubSource, check_folder, check_weights, hub_source

LORA_FILE = "pytorch_lora_weights.safetensors"
_TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
_STEMS |= {"text_encoder": "model", "text_encoder_2": "model"}


@dataclass(frozen=True)
class Part:
    """A part that comes from the hub: its name below `checkpoints`, where it is, and exactly the files it needs."""

    name: str
    source: HubSource
    files: tuple[str, ...]

    def missing(self) -> list[str]:
        """The files that the hub's cache lacks."""
        return [file for file in self.files if cached(self.source, file) is None]


def cached(source: HubSource, file: str) -> Path | None:
    """Where the hub's cache has a file of a repository, or None; asks no network."""
    found = try_to_load_from_cache(source.repository, file, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def _network(stem: str, variant: str | None) -> list[str]:
    return ["config.json", f"{stem}.safetensors" if variant is None else f"{stem}.{variant}.safetensors"]


def _pipeline(variant: str | None, networks: set[str]) -> list[str]:
    """The files of a diffusers folder for SDXL."""
    files = ["model_index.json", "scheduler/scheduler_config.json"]
    files += [f"{folder}/{file}" for folder in ("tokenizer", "tokenizer_2") for file in _TOKENIZER]
    return files + [f"{folder}/{file}" for folder in sorted(networks) for file in _network(_STEMS[folder], variant)]


def _scorer_repository(checkpoints: Checkpoints) -> str:
    """The repository that open_clip takes a model and its tag from, such as ViT-L-14 and openai; else nothing."""
    import open_clip

    scorer = checkpoints.scorer
    settings = open_clip.get_pretrained_cfg(scorer.model, scorer.pretrained) if scorer.pretrained else {}
    return str(settings.get("hf_hub") or "").strip("/")


def sources(checkpoints: Checkpoints) -> dict[str, str]:
    """The source of every part but the face packs, by its name below `checkpoints`."""
    named = {
        "base": checkpoints.base,
        "vae": checkpoints.vae,
        "preview_vae": checkpoints.preview_vae,
        "fast_child": checkpoints.fast_child,
        "generator.pipeline": checkpoints.generator.pipeline,
        "generator.lora": checkpoints.generator.lora,
        "adapter": checkpoints.adapter.source,
        "image_encoder": checkpoints.image_encoder.source,
        "scorer": _scorer_repository(checkpoints) or checkpoints.scorer.model,
    }
    return {name: source for name, source in named.items() if source is not None}


def _files(name: str, variant: str | None, checkpoints: Checkpoints) -> list[str]:
    adapter, image = checkpoints.adapter, checkpoints.image_encoder
    own_vae = {"vae"} if checkpoints.vae is not None else set()
    match name:
        case "base":
            return _pipeline(variant, set(_STEMS) - own_vae)
        case "generator.pipeline":
            return _pipeline(variant, set(_STEMS))
        case "vae" | "preview_vae":
            return _network("diffusion_pytorch_model", variant)
        case "adapter":
            return [Path(adapter.subfolder, adapter.weight).as_posix()]
        case "image_encoder":
            return [Path(image.subfolder, file).as_posix() for file in _network("model", variant)]
        case "scorer":
            return ["open_clip_model.safetensors"]
        case _:
            return [LORA_FILE]


def hub_parts(checkpoints: Checkpoints) -> list[Part]:
    """Every part of a world that comes from the hub; none where all are folders."""
    found = ((name, hub_source(source)) for name, source in sources(checkpoints).items())
    return [Part(name, at, tuple(_files(name, at.variant, checkpoints))) for name, at in found if at is not None]


def named_packs(checkpoints: Checkpoints) -> dict[str, str]:
    """The insightface packs that are given by a name, by their role."""
    packs = checkpoints.faces.model_dump(exclude={"detection_size"})
    return {role: pack for role, pack in packs.items() if "/" not in pack and not Path(pack).is_dir()}


def missing(checkpoints: Checkpoints) -> list[str]:
    """One line for each part of a world that has to be downloaded still."""
    lines = [
        f"checkpoints.{part.name}: {part.source.repository} ({len(lacks)} of {len(part.files)} files)"
        for part in hub_parts(checkpoints)
        if (lacks := part.missing())
    ]
    packs = named_packs(checkpoints).items()
    return lines + [f"checkpoints.faces.{role}: the face pack {pack}" for role, pack in packs if not named_pack(pack)]


def require(checkpoints: Checkpoints, world: str | None = None) -> None:
    """Nothing, if every part that is not a folder has been downloaded.

    Raises:
        InputError: names all that are missing, how to get them, and the way back.
    """
    lines = missing(checkpoints)
    if lines:
        option = f" --world {world}" if world else ""
        raise InputError(
            f"{len(lines)} parts of this world have not been downloaded:\n  " + "\n  ".join(lines) + "\n"
            f"`lookahead fetch{option}` gets them (it needs a network, and goes on where it was); "
            f"`lookahead doctor{option}` tells sizes and licences.\n"
            "The way back: `world: miniature` in params.yaml, which `dvc exp run -S world=...` leaves changed."
        )


def place(name: str, checkpoints: Checkpoints) -> tuple[str, str | None]:
    """The folder that the part so named is opened from, every file in it whole, and the variant of its weights.

    Raises:
        InputError: it is no folder and not downloaded, or a file is truncated.
    """
    part = next((part for part in hub_parts(checkpoints) if part.name == name), None)
    if part is None:
        folder = sources(checkpoints)[name]
        check_folder(folder)
        return folder, None
    if part.missing():
        require(checkpoints)
    paths = [path for file in part.files if (path := cached(part.source, file))]
    for path in paths:
        if path.suffix == ".safetensors":
            check_weights(path)
    depth = len(Path(part.files[0]).parts)
    return str(paths[0].parents[depth - 1]), part.source.variant
