"""Files that are whole or not there: atomic writes, digests, and the folders that stages build in and publish from."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lookahead.errors import FULL, InputError

Log = Callable[[Mapping[str, float], int], None]  # metrics by name, and their step
STATE = Path("state")  # resume state and stores: ignored by git and by DVC


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn whatever the operating system or safetensors says about a write into one message."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        code = getattr(error, "errno", None)
        full = code in FULL or any(os.strerror(number) in str(error) for number in FULL)
        mend = "free some disk space" if full else "check that its folder exists and may be written to"
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"{path} cannot be written ({reason}): {mend}, then run again; finished work is kept"
        ) from error


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well, and vanishes otherwise."""
    with writing(path):
        if path.exists() and not path.is_file():  # as root one would replace /dev/null
            raise FileExistsError(errno.EEXIST, "it is no regular file")
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}.", path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o644)  # mkstemp's files are private
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys, so that equal contents are equal bytes."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): run the stage that writes it") from None
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): remove it and run the stage that writes it") from None


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write a table; equal tables are equal bytes."""
    with atomic(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write contiguous tensors as safetensors; equal bytes up to one metadata key, several come in any order."""
    with atomic(path) as temporary:
        save_file(dict(tensors), temporary, dict(metadata))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a safetensors file, on the CPU, and its metadata."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: check the path, or run what writes it")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is truncated or damaged ({error}): remove it and run what writes it") from None


def digest(*contents: Any) -> str:
    """SHA-256, in hexadecimal, of the contents as canonical JSON."""
    return hashlib.sha256(json.dumps(contents, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check the path") from None


def files_below(path: Path) -> list[Path]:
    """The files of a folder in the order of their names, or the file itself."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path} does not exist: check the path, or run the stage that writes it")
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def digest_paths(paths: Iterable[Path]) -> str:
    """SHA-256 of files, and of folders with the names in them; where they lie does not matter."""
    files = ((file.relative_to(path.parent).as_posix(), file) for path in paths for file in files_below(path))
    return digest([(name, digest_file(file)) for name, file in files])


def local_paths(settings: object) -> Iterator[Path]:
    """The files and folders that parameters name; hub ids name none, nor do sub-folders of a repository."""
    if isinstance(settings, dict):
        for value in (value for name, value in settings.items() if name != "subfolder"):
            yield from local_paths(value)
    elif isinstance(settings, str) and settings:
        path = Path(settings.removeprefix("local-dir:"))
        if path.exists():
            yield path


def code_digest(*parts: str) -> str:
    """SHA-256 of the package's code in these folders and files, such as "method" or "world/faces.py".

    They are those that `deps` of dvc.yaml name: what must be done again together lies together.
    """
    package = Path(__file__).parent
    files = [file for part in parts for file in files_below(package / part) if file.suffix in (".py", ".j2")]
    return digest([(file.relative_to(package).as_posix(), digest_file(file)) for file in files])


def workspace(stage: str, key: str) -> Path:
    """The folder that a stage builds in: a killed run with the same key finds what it had built."""
    path = STATE / "work" / stage / key
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def _beside(work: Path, out: Path) -> tuple[Path, Path]:
    """Where an earlier and a new output lie while they change places; the key in the name says whose the new one is."""
    return out.with_name(f".{out.name}.old"), out.with_name(f".{out.name}.{work.name}.new")


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` when the block ends well; before it, `out` must be free and writable."""
    with writing(out):
        taken = os.path.lexists(out) and not (out.is_dir() and not any(out.iterdir()))
        if not taken:
            out.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    if taken:
        raise InputError(f"{out} exists already and is not empty: choose another folder")
    try:
        yield work
        work.chmod(0o755)  # temporary folders are private
        publish(work, out)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def recover(work: Path, out: Path) -> None:
    """Undo a `publish` that was killed halfway: finished work is in `work` again, the earlier output in `out`."""
    old, new = _beside(work, out)
    with writing(out):
        if new.is_dir():
            shutil.rmtree(work, ignore_errors=True)
            new.rename(work)
        if old.is_dir() and not out.exists():
            old.rename(out)
        for left in out.parent.glob(f".{out.name}.*.new"):  # finished, but of other parameters
            shutil.rmtree(left, ignore_errors=True)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Delete every file in `folder` but those named, such as what a killed run had half written."""
    for path in folder.glob("*"):
        if path.is_file() and path.name not in names:
            path.unlink()


def publish(work: Path, out: Path) -> None:
    """Put `work` in the place of `out`, never a part of it."""
    old, new = _beside(work, out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        for part in work.rglob(".*"):  # by a write that was killed
            part.unlink()
        try:
            work.rename(new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            copy = out.with_name(f".{out.name}.copy")  # `state` and `runs` lie on two disks
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(work, copy)
            copy.rename(new)  # whole before it gets its name
        shutil.rmtree(old, ignore_errors=True)
        with suppress(FileNotFoundError):
            out.rename(old)
        try:
            new.rename(out)
        except OSError:  # the earlier output comes back; the next run publishes the new one
            with suppress(OSError):
                recover(work, out)
            raise
    for left in (old, work):
        shutil.rmtree(left, ignore_errors=True)
