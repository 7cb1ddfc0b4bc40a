"""Where a world's parts come from (folders, the hub, insightface), which are missing, and how they are downloaded."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal

from diffusers import DiffusionPipeline
from filelock import FileLock, Timeout
from huggingface_hub import constants, model_info, snapshot_download
from huggingface_hub.file_download import repo_folder_name

from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from lookahead.world.published import GB, SHA256, fault_of, scorer_weights

UNUSED = ("safety_checker", "feature_extractor", "image_encoder")  # components of pipelines that are not opened there
CHAIN = (
    *("base", "vae", "preview_vae", "fast_child", "generator.pipeline", "generator.lora", "adapter"),
    *("image_encoder", "scorer", "faces.loss", "faces.select", "faces.report"),
)  # the parts that the stages open
PARTS = (*CHAIN, "safety_checker", "published_encoder")
PICTURES = ("base", "vae", "preview_vae", "fast_child", "adapter", "image_encoder", "faces.loss", "safety_checker")
_CHECKER = ("safety_checker/config.json", "feature_extractor/preprocessor_config.json")
_HUB_ID = re.compile(r"(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[0-9a-f]{40}))?(:(?P<variant>\w+))?")


def _world(fits: Callable[[list[Part]], bool]) -> str:
    """The first world of params.yaml, the active one before others, with such parts: for a command to copy."""
    try:
        params = read_params()
        names = sorted(params.worlds, key=lambda name: name != params.world)
        return next((name for name in names if fits(parts(params.worlds[name].checkpoints))), "WORLD")
    except InputError:
        return "WORLD"


def _mend(path: Path, world: str | None = None) -> str:
    """What replaces a damaged file."""
    if not any(path.is_relative_to(root) for root in (constants.HF_HUB_CACHE, Path.home() / ".insightface")):
        return "copy it again, or run `git checkout -- models` (or `make miniature`)"
    world = world or _world(lambda found: any(path.is_relative_to(part.kept) for part in found))
    return f"`lookahead fetch --world {world}` replaces it"


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

    @property
    def kept(self) -> Path:
        """The folder that all its files lie below: the given one, or one of the hub's or insightface's cache."""
        if self.kind == "pack":
            return Path.home() / ".insightface" / "models" / self.source
        if self.kind == "repository":
            return Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=self.source, repo_type="model"))
        return Path(self.source.removeprefix("local-dir:"))

    @property
    def size(self) -> float:
        """GB to download; 0 where it is not known."""
        return sum(GB.get(f"{self.source}/{file}", 0.0) for file in self.files) or GB.get(self.source, 0.0)

    def folder(self, local_files_only: bool = True) -> Path:
        """The folder that it is opened from (of a repository the hub's snapshot); OSError where a file is missing."""
        found = self.kept
        if self.kind == "pack":
            inner = found / self.source  # the archive of antelopev2 holds a folder of its own name
            found = next((folder for folder in (inner, found) if any(folder.glob("*.onnx"))), inner)
        elif self.kind == "repository":
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

    def faults(self, contents: bool = False) -> dict[Path, str]:
        """What is wrong with which file; `contents` compares large weights too with their SHA-256."""
        folder, found = locate(self).absolute(), {}
        names = self.files if self.kind == "repository" and self.files else [""]
        for path in sorted(path for name in names for path in [folder / name, *(folder / name).rglob("*")]):
            sha256 = SHA256.get(f"{self.source}/{path.relative_to(folder).as_posix()}")
            if path.is_file() and (fault := fault_of(path, sha256, contents)) is not None:
                found[path] = fault
        return found

    def check(self, contents: bool = False, world: str | None = None) -> None:
        """Raise an error that names the first damaged file, and what replaces it."""
        for path, fault in self.faults(contents).items():
            raise InputError(f"{path} {fault}: {_mend(path, world)}")

    def download(self) -> None:
        """Download what is missing, a face pack as a whole."""
        if self.kind != "pack":
            try:
                self.folder(local_files_only=False)
            except FileNotFoundError as error:
                held = model_info(self.source, revision=self.revision).siblings or []
                raise FileNotFoundError(f"{error}; it has {', '.join(file.rfilename for file in held)}") from None
            return
        from insightface.utils import ensure_available  # only here: training runs without it

        shutil.rmtree(self.kept, ignore_errors=True)
        try:
            ensure_available("models", self.source)
        finally:
            Path(f"{self.kept}.zip").unlink(missing_ok=True)

    def remove_unfinished(self, report: Callable[[str], None]) -> None:
        """Remove what killed downloads left in the hub's cache, which no later download would use."""
        locks = Path(constants.HF_HUB_CACHE, ".locks", self.kept.name)
        for path in (self.kept / "blobs").glob("*.incomplete") if self.kind == "repository" else ():
            locks.mkdir(parents=True, exist_ok=True)  # each held while a process downloads the file
            with suppress(Timeout), FileLock(locks / f"{path.name.split('.')[0]}.lock", timeout=0):
                path.unlink(missing_ok=True)
                report(f"removed {path.name}, an unfinished download")


def face_pack(name: str, pack: str) -> Part:
    """A face pack: a folder, a repository of the hub with its commit, or a name that insightface knows."""
    match = _HUB_ID.fullmatch(pack)
    source = match["repository"] if match is not None and match["revision"] else pack
    files = tuple(file.removeprefix(f"{source}/") for file in SHA256 if file.startswith(f"{source}/"))
    if match is not None and match["revision"] and files:
        return Part(name, "repository", source, match["revision"], files=files)
    return Part(name, "folder", pack) if "/" in pack or Path(pack).is_dir() else Part(name, "pack", pack, files=files)


def _source(name: str, checkpoints: Checkpoints) -> str | None:
    value = attrgetter(name)(checkpoints)
    if name != "scorer":
        return value if value is None or isinstance(value, str) else str(value.source)
    if value.pretrained is None:
        return str(value.model)
    settings, commit = scorer_weights(value)
    return str(settings["hf_hub"]).strip("/") + (f"@{commit}" if commit else "")


def _files(name: str, variant: str | None, checkpoints: Checkpoints) -> tuple[str, ...]:
    suffix = ".safetensors" if variant is None else f".{variant}.safetensors"
    adapter, image_encoder = checkpoints.adapter, Path(checkpoints.image_encoder.subfolder)
    lora, published = checkpoints.generator.lora, checkpoints.published_encoder
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
        "published_encoder": () if published is None else (published.weight_name,),
        "safety_checker": (f"safety_checker/model{suffix}", *_CHECKER),
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


def downloads(checkpoints: Checkpoints) -> list[Part]:
    """What a world downloads: parts that are the same files are one, with all their names."""
    found: dict[Part, Part] = {}
    for each in (part for part in parts(checkpoints) if part.kind != "folder"):
        files = replace(each, name="", replaced=())
        if (same := found.get(files)) is not None:
            kept = tuple(name for name in same.replaced if name in each.replaced)
            each = replace(each, name=f"{same.name}, {each.name}", replaced=kept)
        found[files] = each
    return list(found.values())


def require(checkpoints: Checkpoints, world: str | None = None, needed: Collection[str] = CHAIN) -> None:
    """Return if no part that is needed has to be downloaded; the error names all parts that are missing."""
    missing = [found for found in downloads(checkpoints) if found.missing()]
    if not any(name in needed for found in missing for name in found.name.split(", ")):
        return
    sources = {found.source for found in missing}
    world = world or _world(lambda found: sources <= {part.source for part in found})
    lines = "".join(f"  checkpoints.{found.name}: {found.source}, {found.size:.2g} GB\n" for found in missing)
    raise InputError(
        f"{len(missing)} parts of this world have not been downloaded, {sum(each.size for each in missing):.2g} GB:\n"
        f"{lines}`lookahead fetch --world {world}` downloads them (with a network; started again, it keeps whole "
        f"files); `lookahead doctor --world {world}` lists their licences.\n"
        "The way back: `world: miniature` in params.yaml, which `dvc exp run -S world=...` leaves changed."
    )


def locate(found: Part) -> Path:
    """The folder that a part is opened from."""
    try:
        return found.folder()
    except OSError:
        fault = "is neither a folder nor a hub id: check `checkpoints`, or run `git checkout -- models`"
        if found.kind != "folder":
            world = _world(lambda every: found.source in {part.source for part in every})
            fault = f"is not downloaded: run `lookahead fetch --world {world}`"
        raise InputError(f"checkpoints.{found.name}: {found.source} {fault}") from None


def find(name: str, checkpoints: Checkpoints) -> tuple[str, str | None]:
    """The folder that a part is opened from, and the variant of its weights."""
    found = part(name, checkpoints)
    assert found is not None, name
    try:
        return str(locate(found)), found.variant
    except InputError:
        require(checkpoints)  # its error names all that is missing
        raise


def _complete(found: Part, report: Callable[[str], None]) -> None:
    """Download what is missing or differs from its SHA-256, twice at most."""
    for attempt in range(3):
        missing = found.missing()
        faults = {} if missing else found.faults(contents=True)
        if not missing and not faults:
            return
        if constants.is_offline_mode():
            raise InputError("HF_HUB_OFFLINE is set: start again with HF_HUB_OFFLINE=0, where there is a network")
        for path, fault in faults.items():
            report(f"{path} {fault}, and was removed")
            for file in (path.resolve(), *([path.readlink()] if path.is_symlink() else []), path):
                (path.parent / file).unlink(missing_ok=True)  # the file that a snapshot's link names may be one too
        if attempt == 2:
            raise InputError("; ".join(f"{path.name} {fault}, and was removed" for path, fault in faults.items()))
        found.download()


def fetch(checkpoints: Checkpoints, report: Callable[[str], None]) -> None:
    """Download what is missing or damaged: whole files are kept, the hub starts unfinished ones anew."""
    failed = []
    for found in downloads(checkpoints):
        label = f"checkpoints.{found.name}: {found.source}"
        found.remove_unfinished(report)
        try:
            _complete(found, report)
            report(f"{label} is complete")
        except Exception as error:  # the hub, its transport and insightface share no class
            if constants.is_offline_mode():
                raise
            reason = str(error).strip().splitlines() or [type(error).__name__]
            failed.append(f"  {label}: {reason[0]:.300}")
    if failed:
        raise InputError(f"{len(failed)} parts failed; run again to continue:\n" + "\n".join(failed))


def verify(checkpoints: Checkpoints, world: str, report: Callable[[str], None]) -> None:
    """Compare every downloaded file with its SHA-256, without a network."""
    require(checkpoints, world)
    damaged = []
    for found in downloads(checkpoints):
        faults = found.faults(contents=True)
        damaged += [f"  {path} {fault}\n" for path, fault in faults.items()]
        report(f"checkpoints.{found.name}: {found.source} {'is damaged' if faults else 'is complete'}")
    if damaged:
        raise InputError(f"damaged files:\n{''.join(damaged)}`lookahead fetch --world {world}` replaces them")


@contextmanager
def opening(label: str, source: str) -> Iterator[None]:
    """Turn whatever a library raises on a bad checkpoint into one message, which names a truncated file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # each library has exceptions of its own
        for path in [Path(source), *Path(source).rglob("*")]:
            if path.suffix == ".safetensors" and path.exists() and (fault := fault_of(path)) is not None:
                raise InputError(f"{path} {fault}: {_mend(path)}") from None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        reason = ["weights are missing"] if "meta tensor" in reason[0] else reason
        raise InputError(
            f"the {label} cannot be opened from {source}: {reason[0]:.300} (check `checkpoints` in params.yaml)"
        ) from error
