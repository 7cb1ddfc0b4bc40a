"""The authors' published encoder, one pickled module of 2.6 G weights, as a folder that `--encoder` opens.

`model_ckpt.pt` (OrLichter/lcm-lookahead) is a dictionary of tensors. What was trained is copied, each tensor under its
own name; the frozen networks beside it are compared with the world's base and left out; any other tensor is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor

from lookahead.artifacts import new_folder, save_tensors, write_json
from lookahead.config import Checkpoints, World, with_overrides
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE, new_kv_encoder
from lookahead.pipeline.pipeline import CARD, SETTINGS_FILE, Saved
from lookahead.world.hub import find, opening

PORTRAIT_PROMPT = "A photo of a face"  # official code
_CARD = """# The encoder that the authors of LCM-Lookahead published

Gal et al., ECCV 2024, arXiv 2404.03620. Converted by `lookahead convert` from {name}; the base is {base}.
Their repository names no licence: ask them before you use it for more than a look.

    lookahead personalize PORTRAIT --encoder THIS_FOLDER --world {world} --prompt "..." --out FOLDER

`ip-adapter.safetensors` is also a plain IP-Adapter for stock diffusers, without the shared keys and values.
"""

Shape = tuple[int, ...]
_LORA = {"lora_A": "down", "lora_B": "up"}
_PAIR = ("to_k", "to_v")
_TRAINED = re.compile(r"image_proj_model\.|.*\.(lora_layer|extract_kv[12])\.")  # a name that a conversion must know
_ALIAS = re.compile(r"encoder_unet\..*\.extract_kv[12]\.source_attention_block\.")  # attn1 and attn2 once more
_ROUNDING = 2e-3  # of half precision, in which the base may lie here and the copy there


@dataclass(frozen=True)
class Place:
    """Where a trained tensor goes: the file, its name there, and its shape."""

    file: str
    name: str
    shape: Shape


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors by name, mapped into memory, not read; nothing but tensors is unpickled."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: give the authors' model_ckpt.pt")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # zipfile, pickle and torch raise classes of their own
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be opened ({reason:.200}): download it again") from None
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path} holds {type(found).__name__}, not a dictionary of tensors: expected model_ckpt.pt")
    return dict(found)


def _adapter_places(checkpoints: Checkpoints, unet: UNet2DConditionModel) -> dict[str, Place]:
    """The image adapter's tensors, with the shapes of the world's untuned one."""
    row = checkpoints.adapter
    path = Path(find("adapter", checkpoints)[0], row.subfolder, row.weight_name)
    with safe_open(path, framework="pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    blocks = [name.removesuffix(".attn2.processor") for name in unet.attn_processors if ".attn2." in name]
    places = {}
    for name, shape in shapes.items():
        kind, _, rest = name.partition(".")
        theirs = f"image_proj_model.{rest}"
        if kind == "ip_adapter":
            number, projection, _ = rest.split(".")  # of the processors, self- and cross-attention in turns
            theirs = f"encoder_unet.{blocks[int(number) // 2]}.extract_kv2.{projection.removesuffix('_ip')}.weight"
        places[theirs] = Place(ADAPTER_FILE, name, shape)
    return places


def _kv_places(unet: UNet2DConditionModel, rank: int, shared_rank: int) -> dict[str, Place]:
    """The tensors of the KV-encoder."""
    places = {}
    for name, weight in new_kv_encoder(unet, rank, shared_rank, seed=0).parameters().items():
        kind, _, rest = name.partition(".")
        if kind == "unet":
            module, half = re.fullmatch(r"(.+)\.(lora_[AB])\.kv_encoder\.weight", rest).groups()  # type: ignore[union-attr]
            theirs = f"{module}.lora_layer.{_LORA[half]}.weight"
        else:
            attention, number, half, _ = rest.split(".")
            block = attention.replace("/", ".").removesuffix(".attn1")
            theirs = f"{block}.extract_kv1.{_PAIR[int(number)]}.lora_layer.{half}.weight"
        places[f"encoder_unet.{theirs}"] = Place(KV_FILE, name, tuple(weight.shape))
    return places


def _rank(tensors: Mapping[str, Tensor], part: str) -> int:
    """The rank of the first LoRA whose name has this part; 0 if there is none."""
    found = (t.shape[0] for name, t in tensors.items() if part in name and name.endswith(".lora_layer.down.weight"))
    return next(found, 0)


def places_of(tensors: Mapping[str, Tensor], checkpoints: Checkpoints) -> dict[str, Place]:
    """Where each trained tensor of a checkpoint goes, by its name there; without LoRAs there is no KV-encoder."""
    with torch.device("meta"):
        folder = find("base", checkpoints)[0]
        config = UNet2DConditionModel.load_config(folder, subfolder="unet", local_files_only=True)
        unet: Any = UNet2DConditionModel.from_config(config)
    places = _adapter_places(checkpoints, unet)
    rank, shared_rank = _rank(tensors, ".attn"), _rank(tensors, ".extract_kv1.")
    if rank or shared_rank:
        places |= _kv_places(unet, rank or 1, shared_rank or 1)
    return places


def _check_trained(tensors: Mapping[str, Tensor], places: Mapping[str, Place]) -> None:
    for name, place in places.items():
        if name not in tensors:
            raise InputError(f"the checkpoint lacks {name}: it is another kind of encoder, or not whole")
        if tuple(tensors[name].shape) != place.shape:
            found = tuple(tensors[name].shape)
            raise InputError(f"{name} has the shape {found}, not {place.shape}: it was trained for another base")
        if not tensors[name].isfinite().all():
            raise InputError(f"{name} has values that are not finite: download the checkpoint again")


def _frozen(tensors: Mapping[str, Tensor], places: Mapping[str, Place]) -> Iterator[tuple[str, str]]:
    """What was not trained: names, and the name of the base's weight that each one copies."""
    for name in tensors:
        if name in places or name.startswith("image_encoder.") or _ALIAS.match(name):
            continue
        base = name.removeprefix("encoder_unet.")
        if copied := re.fullmatch(r"(.+)\.extract_kv1\.(to_[kv])\.weight", base):
            base = f"{copied[1]}.attn1.{copied[2]}.weight"  # a frozen copy, of which only the LoRA is trained
        elif base == name or _TRAINED.match(name):
            raise InputError(f"{name} is no part of the authors' encoder for this base: nothing was converted")
        yield name, base


def _check_frozen(tensors: Mapping[str, Tensor], places: Mapping[str, Place], checkpoints: Checkpoints) -> None:
    """Compare every frozen weight with the base's, one at a time."""
    folder, variant = find("base", checkpoints)
    weights = Path(folder, "unet", f"diffusion_pytorch_model{'' if variant is None else '.' + variant}.safetensors")
    with opening("base model", folder), safe_open(weights, framework="pt") as file:
        known = set(file.keys())
        for name, base in _frozen(tensors, places):
            if base not in known:
                raise InputError(f"{name} is no weight of the base model {checkpoints.base}: nothing was converted")
            own, copy = file.get_tensor(base), tensors[name]
            if own.shape != copy.shape or not torch.allclose(copy.to(own.dtype), own, _ROUNDING, 1e-6):
                raise InputError(f"{name} differs from the base model {checkpoints.base}: it was trained for another")


def convert_tensors(path: Path, checkpoints: Checkpoints, out: Path) -> None:
    """Write the authors' checkpoint into a folder as an encoder of this world.

    InputError names the first tensor that is missing, foreign, of another shape, or a changed copy of the base's.
    """
    tensors = read_checkpoint(path)
    places = places_of(tensors, checkpoints)
    _check_trained(tensors, places)
    _check_frozen(tensors, places, checkpoints)
    for file, dtype in {ADAPTER_FILE: torch.float16, KV_FILE: torch.float32}.items():
        trained = {p.name: tensors[name].to(dtype).contiguous() for name, p in places.items() if p.file == file}
        if trained:
            save_tensors(out / file, trained, {})


def convert(world: World, checkpoint: Path, out: Path) -> list[str]:
    """Write the folder, whole or not at all; the names of the weights in it."""
    saved = Saved(
        checkpoints=world.checkpoints,
        personalize=with_overrides(world.personalize, {"portrait_prompt": PORTRAIT_PROMPT}),
    )
    with new_folder(out) as work:
        convert_tensors(checkpoint, world.checkpoints, work)
        weights = sorted(path.name for path in work.iterdir())
        write_json(work / SETTINGS_FILE, saved.model_dump(mode="json"))
        card = _CARD.format(name=checkpoint.name, base=world.checkpoints.base, world=world.name)
        (work / CARD).write_text(card, encoding="utf-8")
    return weights
