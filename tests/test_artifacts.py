"""Files are whole or not there, equal contents are equal bytes, and a bad file is one error that names it."""

import errno
import os
import tempfile
from pathlib import Path

import pytest
import torch

from lookahead.artifacts import (
    atomic,
    digest_paths,
    load_tensors,
    local_paths,
    publish,
    read_json,
    save_tensors,
    write_json,
)
from lookahead.errors import InputError
from tests.project import largest_file


def test_json_is_sorted_and_json_and_tensors_survive_a_round_trip(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 0.1 + 0.2, "a": [1]})
    assert (tmp_path / "a.json").read_text() == '{\n  "a": [\n    1\n  ],\n  "b": 0.30000000000000004\n}\n'
    assert read_json(tmp_path / "a.json") == {"b": 0.1 + 0.2, "a": [1]}
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(7)}
    save_tensors(tmp_path / "deep" / "t.safetensors", tensors, {"run": "x"})
    loaded, metadata = load_tensors(tmp_path / "deep" / "t.safetensors")
    assert metadata == {"run": "x"}
    torch.testing.assert_close(loaded, tensors)


def test_a_block_that_fails_leaves_the_earlier_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("earlier")
    with pytest.raises(ValueError, match="stop"), atomic(path) as temporary:
        temporary.write_text("half")
        raise ValueError("stop")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_on_a_full_disk_are_one_error(tmp_path: Path) -> None:
    """Which safetensors reports by an error class of its own."""
    path = tmp_path / "t.safetensors"
    with largest_file(30_000), pytest.raises(InputError, match=f"{path} cannot be written"):
        save_tensors(path, {"a": torch.zeros(100_000)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 4, 40, -1])
def test_truncated_files_are_named(tmp_path: Path, keep: int) -> None:
    (tmp_path / "m.json").write_text('{"a": 1}'[: min(keep, 7)])
    with pytest.raises(InputError, match=r"m\.json is not valid JSON .*run the stage"):
        read_json(tmp_path / "m.json")
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"t\.safetensors is truncated or damaged"):
        load_tensors(path)


def test_a_digest_of_paths_knows_names_and_contents_and_not_the_place(tmp_path: Path) -> None:
    for root in ("one", "two"):
        (tmp_path / root / "data" / "deep").mkdir(parents=True)
        (tmp_path / root / "data" / "deep" / "x").write_text("same")
    one, two = tmp_path / "one" / "data", tmp_path / "two" / "data"
    assert digest_paths([one]) == digest_paths([two])
    (two / "deep" / "x").write_text("other")
    assert digest_paths([one]) != digest_paths([two])
    (one / "deep" / "x").rename(one / "deep" / "y")
    (two / "deep" / "x").write_text("same")
    assert digest_paths([one]) != digest_paths([two])
    with pytest.raises(InputError, match="none does not exist"):
        digest_paths([tmp_path / "none"])


def test_publishing_replaces_the_whole_directory(tmp_path: Path) -> None:
    work, out = tmp_path / "work", tmp_path / "runs" / "out"
    for name in ("old", "new"):
        work.mkdir()
        write_json(work / f"{name}.json", name)
        publish(work, out)
    assert [path.name for path in out.iterdir()] == ["new.json"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert not work.exists()


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_publishing_crosses_disks(tmp_path: Path) -> None:
    work, out = Path(tempfile.mkdtemp(dir="/dev/shm")), tmp_path / "out"
    write_json(work / "a.json", 1)
    assert work.stat().st_dev != tmp_path.stat().st_dev
    publish(work, out)
    assert read_json(out / "a.json") == 1 and not work.exists()


def test_what_cannot_be_published_leaves_the_earlier_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work, out, rename = tmp_path / "work", tmp_path / "out", Path.rename
    for folder, name in ((work, "new"), (out, "earlier")):
        folder.mkdir()
        (folder / name).write_text(name)

    def full(self: Path, target: Path) -> Path:
        if target == out and self.name.endswith(".new"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(InputError, match="out cannot be written"):
        publish(work, out)
    monkeypatch.undo()
    assert (out / "earlier").exists()
    assert (work / "new").exists()


def test_the_sub_folder_of_a_repository_is_no_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not list(local_paths({"adapter": {"source": "owner/name", "subfolder": "models"}}))
    assert list(local_paths({"base": "models"})) == [Path("models")]
