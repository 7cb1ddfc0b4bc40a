"""Where a world's parts come from (folders, the hub, insightface), which are missing, and how they are downloaded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from diffusers import DiffusionPipeline
from huggingface_hub import HfApi, constants, snapshot_download
from safetensors import SafetensorError, safe_open

from lookahead.artifacts import digest_file
from lookahead.config import Checkpoints
from lookahead.errors import InputError

UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # components of pipelines that are not opened
PARTS = (
    *("base", "vae", "preview_vae", "fast_child", "generator.pipeline", "generator.lora", "adapter"),
    *("image_encoder", "scorer", "faces.loss", "faces.select", "faces.report"),
)
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[0-9a-f]{40}))?(:(?P<variant>\w+))?")
PACK_DIGESTS = {  # SHA-256 of detectors and recognisers, as several public repositories name them
    "buffalo_l/det_10g.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    "buffalo_l/w600k_r50.onnx": "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43",
    "antelopev2/scrfd_10g_bnkps.onnx": "5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91",
    "antelopev2/glintr100.onnx": "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf",
    "buffalo_s/det_500m.onnx": "5e4447f50245bbd7966bd6c0fa52938c61474a04ec7def48753668a9d8b4ea3a",
    "buffalo_s/w600k_mbf.onnx": "9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
}


def check_weights(path: Path) -> None:
    """Let safetensors compare a file's length with its header."""
    try:
        with safe_open(path, framework="pt"):
            return
    except (SafetensorError, OSError) as error:
        mend = "remove it and run `lookahead fetch`, or `git checkout -- models`"
        raise InputError(f"{path} is truncated or damaged ({error}): {mend}") from None


@dataclass(frozen=True)
class Part:
    """A pretrained part: its name below `checkpoints`, and the folder, repository or face pack that it comes from.

    Of a repository `files` are opened; without them it is a diffusers pipeline, opened but for components `replaced`.
    """

    name: str
    kind: Literal["folder", "repository", "pack"]
    source: str
    revision: str | None = None
    variant: str | None = None
    files: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()

    def folder(self, local_files_only: bool = True) -> Path:
        """The folder that it is opened from (of a repository the hub's snapshot); OSError where a file is missing."""
        if self.kind == "folder":
            found = Path(self.source.removeprefix("local-dir:"))
        elif self.kind == "pack":
            kept = Path.home() / ".insightface" / "models" / self.source
            inner = kept / self.source  # the archive of antelopev2 holds a folder of its own name
            found = next((folder for folder in (inner, kept) if any(folder.glob("*.onnx"))), inner)
        else:
            options: dict[str, Any] = {"revision": self.revision, "local_files_only": local_files_only}
            if self.files:
                found = Path(snapshot_download(self.source, allow_patterns=list(self.files), **options))
            else:
                options |= {"variant": self.variant, "use_safetensors": True} | dict.fromkeys(self.replaced)
                found = Path(DiffusionPipeline.download(self.source, **options))
        lacking = [file for file in self.files or ("",) if not (found / file).exists()]
        if lacking:
            raise FileNotFoundError(f"{self.source} has no {', '.join(lacking)}")
        return found

    def missing(self) -> bool:
        """Whether a file is missing."""
        try:
            self.folder()
        except OSError:
            return True
        return False

    def check(self) -> None:
        """Check that it is complete: its weights' lengths, and a published face pack's SHA-256."""
        folder = locate(self)
        for path in sorted(folder.rglob("*.safetensors")):
            check_weights(path)
        for path in sorted(folder.glob("*.onnx")) if self.kind == "pack" else ():
            digest = digest_file(path)
            if PACK_DIGESTS.get(f"{self.source}/{path.name}", digest) != digest:
                raise InputError(f"{path} differs from its SHA-256: run `lookahead fetch`")

    def download(self) -> None:
        """Download what is missing, and remove what differs from its checksum."""
        if self.kind == "pack":
            from insightface.utils import ensure_available  # only here: training runs without it

            shutil.rmtree(Path.home() / ".insightface" / "models" / self.source, ignore_errors=True)
            ensure_available("models", self.source)
            self.check()
            return
        self.folder(local_files_only=False)
        result = HfApi().verify_repo_checksums(self.source, revision=self.revision)
        for mismatch in result.mismatches:
            path = result.verified_path / mismatch["path"]
            path.resolve().unlink()
            path.unlink(missing_ok=True)
        if result.mismatches:
            names = ", ".join(mismatch["path"] for mismatch in result.mismatches)
            raise InputError(f"{names} differs from its SHA-256, and was removed")


def face_pack(name: str, pack: str) -> Part:
    """A face pack: a folder, or a name that insightface knows."""
    return Part(name, "folder" if "/" in pack or Path(pack).is_dir() else "pack", pack)


def _source(name: str, checkpoints: Checkpoints) -> str | None:
    value = attrgetter(name)(checkpoints)
    if name != "scorer":
        return value if value is None or isinstance(value, str) else str(value.source)
    if value.pretrained is None:
        return str(value.model)
    import open_clip  # only here: training runs without it

    settings = open_clip.get_pretrained_cfg(value.model, value.pretrained)  # names the tag's repository
    return str((settings or {}).get("hf_hub") or value.model).strip("/")


def _files(name: str, variant: str | None, checkpoints: Checkpoints) -> tuple[str, ...]:
    suffix = ".safetensors" if variant is None else f".{variant}.safetensors"
    adapter, image_encoder = checkpoints.adapter, Path(checkpoints.image_encoder.subfolder)
    lora = checkpoints.generator.lora
    return {
        "base": (),
        "generator.pipeline": (),
        "vae": ("config.json", f"diffusion_pytorch_model{suffix}"),
        "preview_vae": ("config.json", f"diffusion_pytorch_model{suffix}"),
        "adapter": (Path(adapter.subfolder, adapter.weight_name).as_posix(),),
        "image_encoder": tuple((image_encoder / file).as_posix() for file in ("config.json", f"model{suffix}")),
        "scorer": ("open_clip_model.safetensors",),
        "fast_child": (checkpoints.fast_child.weight_name,),
        "generator.lora": () if lora is None else (lora.weight_name,),
    }[name]


def part(name: str, checkpoints: Checkpoints) -> Part | None:
    """The part of this name below `checkpoints`; None where the world has none."""
    source = _source(name, checkpoints)
    if source is None:
        return None
    if name.startswith("faces."):
        return face_pack(name, source)
    match = _HUB_ID.fullmatch(source)
    if match is None or Path(source).parent.is_dir():
        return Part(name, "folder", source)
    replaced = (*UNUSED, "vae") if name == "base" and checkpoints.vae is not None else UNUSED
    files = _files(name, match["variant"], checkpoints)
    return Part(name, "repository", match["repository"], match["revision"], match["variant"], files, replaced)


def parts(checkpoints: Checkpoints) -> list[Part]:
    """Every part of a world."""
    return [found for name in PARTS if (found := part(name, checkpoints)) is not None]


def require(checkpoints: Checkpoints, world: str | None = None) -> None:
    """Return if no part has to be downloaded."""
    missing = [found for found in parts(checkpoints) if found.kind != "folder" and found.missing()]
    if missing:
        option = f" --world {world}" if world else ""
        lines = "".join(f"  checkpoints.{found.name}: {found.source}\n" for found in missing)
        raise InputError(
            f"{len(missing)} parts of this world have not been downloaded:\n{lines}"
            f"`lookahead fetch{option}` downloads them (with a network; started again, it continues); "
            f"`lookahead doctor{option}` lists sizes and licences.\n"
            "The way back: `world: miniature` in params.yaml, which `dvc exp run -S world=...` leaves changed."
        )


def locate(found: Part) -> Path:
    """The folder that a part is opened from."""
    if found.missing():
        fault = "is neither a folder nor a hub id: check `checkpoints`, or run `git checkout -- models`"
        fault = fault if found.kind == "folder" else "is not downloaded: run `lookahead fetch`"
        raise InputError(f"checkpoints.{found.name}: {found.source} {fault}")
    return found.folder()


def find(name: str, checkpoints: Checkpoints) -> tuple[str, str | None]:
    """The folder that a part is opened from, and the variant of its weights."""
    found = part(name, checkpoints)
    assert found is not None, name
    if found.kind != "folder" and found.missing():
        require(checkpoints)
    return str(locate(found)), found.variant


def fetch(checkpoints: Checkpoints, report: Callable[[str], None]) -> None:
    """Download every part that is missing or damaged; started again, it continues, also within a file."""
    failed = []
    for found in (part for part in parts(checkpoints) if part.kind != "folder"):
        label = f"checkpoints.{found.name}: {found.source}"
        try:
            found.check()
            report(f"{label} is complete")
            continue
        except InputError as error:
            report(str(error))
        if constants.is_offline_mode():
            raise InputError("HF_HUB_OFFLINE is set: start again with HF_HUB_OFFLINE=0, where there is a network")
        try:
            found.download()
        except Exception as error:  # the hub, its transport and insightface share no class
            reason = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"  {label}: {reason[0]:.300}")
    if failed:
        raise InputError(f"{len(failed)} parts failed; run again to continue:\n" + "\n".join(failed))


@contextmanager
def opening(label: str, source: str) -> Iterator[None]:
    """Turn whatever a library raises on a bad checkpoint into one message, which names a truncated file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each library has exceptions of its own
        for path in [Path(source), *Path(source).rglob("*")]:
            if path.suffix == ".safetensors" and path.exists():
                check_weights(path)
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"the {label} cannot be opened from {source}: {reason[0]:.300} (check `checkpoints` in params.yaml)"
        ) from error
