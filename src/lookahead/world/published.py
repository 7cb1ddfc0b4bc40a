"""What is known of published checkpoints (each SHA-256 from several public repositories), and if a file is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lookahead.artifacts import digest_file
from lookahead.config import Scorer
from lookahead.errors import InputError

_RAIL = "CreativeML Open RAIL++-M: commercial use, but for a list of forbidden uses"
_MIT, _APACHE = "MIT: commercial use", "Apache-2.0: commercial use"
_PACK = "insightface models: NON-COMMERCIAL research only"
LICENCES = {  # in plain words; more in docs/sdxl.md
    "stabilityai/stable-diffusion-xl-base-1.0": _RAIL,
    "madebyollin/sdxl-vae-fp16-fix": _MIT,
    "madebyollin/taesdxl": _MIT,
    "latent-consistency/lcm-lora-sdxl": _RAIL,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _RAIL.replace("RAIL++-M", "RAIL-M"),
    "stabilityai/sd-vae-ft-mse": _MIT,
    "madebyollin/taesd": _MIT,
    "latent-consistency/lcm-lora-sdv1-5": _RAIL,
    "stabilityai/sdxl-turbo": "sai-nc-community: NON-COMMERCIAL, unless Stability AI agrees otherwise",
    "h94/IP-Adapter": _APACHE,
    "timm/vit_large_patch14_clip_224.openai": _MIT,
    "fal/AuraFace-v1": "Apache-2.0 by its page, but its detector is insightface's",
    "rinong/lcm_lookahead": "none is stated: ask the authors",
    "buffalo_l": _PACK,
    "antelopev2": _PACK,
    "buffalo_s": _PACK,
}
GB = {  # of the files that are downloaded, at half precision; a repository's single files where it holds several
    "stabilityai/stable-diffusion-xl-base-1.0": 6.77,
    "madebyollin/sdxl-vae-fp16-fix": 0.33,
    "madebyollin/taesdxl": 0.01,
    "latent-consistency/lcm-lora-sdxl": 0.39,
    "stable-diffusion-v1-5/stable-diffusion-v1-5": 2.13,
    "stable-diffusion-v1-5/stable-diffusion-v1-5/safety_checker/model.fp16.safetensors": 0.61,
    "stabilityai/sd-vae-ft-mse": 0.33,
    "madebyollin/taesd": 0.01,
    "latent-consistency/lcm-lora-sdv1-5": 0.13,
    "stabilityai/sdxl-turbo": 6.94,
    "h94/IP-Adapter/sdxl_models/ip-adapter-plus-face_sdxl_vit-h.safetensors": 0.85,
    "h94/IP-Adapter/models/ip-adapter-plus-face_sd15.safetensors": 0.10,
    "h94/IP-Adapter/models/image_encoder/model.safetensors": 2.53,
    "timm/vit_large_patch14_clip_224.openai": 1.71,
    "fal/AuraFace-v1": 0.28,
    "rinong/lcm_lookahead": 14.5,  # by its contents in float32; not seen
    "buffalo_l": 0.29,
    "antelopev2": 0.36,
    "buffalo_s": 0.13,
}
_SCRFD_10G = "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91"
SHA256 = {
    "timm/vit_large_patch14_clip_224.openai/open_clip_model.safetensors": (
        "9ce2e8a8ebfff3793d7d375ad6d3c35cb9aebf3de7ace0fc7308accab7cd207e"
    ),
    "buffalo_l/det_10g.onnx": _SCRFD_10G,
    "buffalo_l/w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
    "antelopev2/scrfd_10g_bnkps.onnx": _SCRFD_10G,
    "antelopev2/glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
    "buffalo_s/det_500m.onnx": "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
    "buffalo_s/w600k_mbf.onnx": "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
    "fal/AuraFace-v1/scrfd_10g_bnkps.onnx": _SCRFD_10G,
    "fal/AuraFace-v1/glintr100.onnx": "a7933ea5330113b01c9b60351d8f4c33003f145d8470ac5f0e52ee2effe25c60",
}


def fault_of(path: Path, sha256: str | None = None, contents: bool = False) -> str | None:
    """What is wrong with a file: whether its library opens it, and, of large weights only if asked, its contents."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt"):  # compares the file's length with its header
                pass
        elif path.suffix == ".onnx":
            import onnxruntime  # only here: training runs without it

            onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no class in common
        return f"is truncated or damaged ({str(error)[:80]})"
    name = path.readlink().name if path.is_symlink() else ""  # in the hub's cache a SHA-256, or Git's checksum
    sha256 = sha256 or (name if len(name) == 64 else None)
    if sha256 is not None and (contents or path.suffix != ".safetensors") and digest_file(path) != sha256:
        return "differs from its SHA-256"
    if len(name) == 40:
        git = hashlib.sha1(b"blob %d\0" % path.stat().st_size + path.read_bytes(), usedforsecurity=False)
        return None if git.hexdigest() == name else "differs from its checksum"
    return None


def scorer_weights(scorer: Scorer) -> tuple[Mapping[str, Any], str]:
    """What open_clip knows of the weights with a tag, and their commit; they want the activation of their training."""
    import open_clip  # only here: training runs without it

    tag, _, commit = (scorer.pretrained or "").partition("@")
    settings, model = open_clip.get_pretrained_cfg(scorer.model, tag), open_clip.get_model_config(scorer.model)
    if not settings or model is None or not settings.get("hf_hub"):
        raise InputError(f"checkpoints.scorer: open_clip knows no weights {tag!r} of {scorer.model!r} on the hub")
    wanted, has = (bool(each.get("quick_gelu")) for each in (settings, model))
    if wanted != has:  # open_clip only warns, and every score would be wrong
        name = scorer.model.removesuffix("-quickgelu") + "-quickgelu" * wanted
        fault = f"has {'QuickGELU' if has else 'GELU'}, which its weights {tag!r} were not trained with"
        raise InputError(f"checkpoints.scorer: {scorer.model} {fault}: choose {name}")
    return settings, commit
