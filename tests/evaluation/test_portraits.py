"""Portrait folders: what is read, and how wrong ones are refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.evaluation.faces import PACKS, FaceReader, read_others, read_references, similarity
from lookahead.portraits import read_people, read_photo


@pytest.fixture(scope="module")
def reader(tiny: Checkpoints) -> FaceReader:
    return FaceReader(tiny.faces)


def test_people_and_photos_are_sorted(portraits: Path) -> None:
    people = read_people(portraits, 3)
    assert [person.name for person in people] == ["000", "001", "002"]
    assert people[0].reference == portraits / "000" / "0.jpg"
    assert people[0].others == (portraits / "000" / "1.jpg", portraits / "000" / "2.jpg")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_people(tmp_path / "nowhere", 2)


def test_too_few_people(portraits: Path) -> None:
    with pytest.raises(InputError, match=r"48 people are asked for, but .* holds only 5"):
        read_people(portraits, 48)


def test_person_without_photo(portraits: Path, tmp_path: Path) -> None:
    shutil.copytree(portraits, tmp_path / "p")
    (tmp_path / "p" / "000" / "notes.txt").write_text("no picture")
    for photo in (tmp_path / "p" / "001").iterdir():
        photo.unlink()
    assert len(read_people(tmp_path / "p", 1)[0].others) == 2
    with pytest.raises(InputError, match="001 holds no photo"):
        read_people(tmp_path / "p", 2)


@pytest.mark.parametrize("content", [b"", b"no picture at all", "cut"])
def test_damaged_photo(content: bytes | str, portraits: Path, tmp_path: Path) -> None:
    whole = (portraits / "000" / "0.jpg").read_bytes()
    path = tmp_path / "0.jpg"
    path.write_bytes(whole[: len(whole) // 2] if isinstance(content, str) else content)
    with pytest.raises(InputError, match=r"0\.jpg cannot be read as a picture"):
        read_photo(path)


def test_grey_and_transparent_photos_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "RGBA", "P"):
        Image.new(mode, (20, 30)).save(tmp_path / f"{mode}.png")
        assert read_photo(tmp_path / f"{mode}.png").shape == (30, 20, 3)


def test_embeddings_are_unit_and_packs_differ(reader: FaceReader, portraits: Path) -> None:
    face = reader.read(read_photo(portraits / "000" / "0.jpg"))
    assert face is not None and tuple(face) == PACKS
    for pack in PACKS:
        assert np.linalg.norm(face[pack]) == pytest.approx(1)
        assert similarity(face, face, pack) == pytest.approx(1)
    assert not np.allclose(face["report"], face["loss"])


def test_no_face_is_none(reader: FaceReader) -> None:
    assert reader.read(np.zeros((64, 64, 3), np.uint8)) is None


def test_reference_without_face_is_refused(reader: FaceReader, portraits: Path, tmp_path: Path) -> None:
    shutil.copytree(portraits, tmp_path / "p")
    Image.new("RGB", (64, 64)).save(tmp_path / "p" / "002" / "0.jpg")
    with pytest.raises(InputError, match=r"no face is found in the reference photo .*002"):
        read_references(reader, read_people(tmp_path / "p", 4))


def test_other_photo_without_face_is_left_out(reader: FaceReader, portraits: Path, tmp_path: Path) -> None:
    shutil.copytree(portraits, tmp_path / "p")
    Image.new("RGB", (64, 64)).save(tmp_path / "p" / "000" / "1.jpg")
    assert [len(photos) for photos in read_others(reader, read_people(tmp_path / "p", 2))] == [1, 2]
