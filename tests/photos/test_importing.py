"""Folders as people have them: whatever is in a file, it is read right or listed with a reason."""

import csv
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, Photos
from lookahead.dataset.shards import decode_png, list_shards, read_pictures
from lookahead.errors import InputError
from lookahead.features.encode import encode
from lookahead.features.store import open_features
from lookahead.photos.importing import import_photos
from lookahead.portraits import open_picture
from lookahead.training.data import Pairs
from tests.project import files_of
from tests.tiny import ENCODING, no_log

Write = Callable[[Path], None]


def bright(width: int = 80, height: int = 80, seed: int = 0) -> Image.Image:
    noise = np.random.default_rng(seed).integers(120, 250, size=(4, 4, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def put(data: bytes) -> Write:
    return lambda path: path.write_bytes(data) and None


def bomb(width: int, height: int) -> bytes:
    """A PNG of few bytes whose header promises many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 1000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose text unpacks to far more than anyone would write."""
    data = encoded(bright(), "PNG")
    body = b"zTXt" + b"note\0\0" + zlib.compress(b"a" * 80_000_000, 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:33] + chunk + data[33:]


JPEG, PNG = encoded(bright(), "JPEG"), encoded(bright(), "PNG")
SIXTEEN = Image.fromarray(np.full((80, 80), 50_000, dtype=np.uint16))
EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by a quarter

BAD: dict[str, tuple[Write, str]] = {
    "truncated.jpg": (put(JPEG[: len(JPEG) // 2]), "cannot be read"),
    "truncated.png": (put(PNG[: len(PNG) // 2]), "cannot be read"),
    "truncated.webp": (put(encoded(bright(), "WEBP")[:200]), ""),
    "zero.jpg": (put(b""), "no JPEG, PNG or WebP"),
    "text.jpg": (put(b"this is text, not a picture\n" * 20), "no JPEG, PNG or WebP"),
    "zeros.png": (put(b"\0" * 5000), "no JPEG, PNG or WebP"),
    "start_only.jpg": (put(b"\xff\xd8\xff\xe0"), ""),
    "script.svg.png": (put(b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "no JPEG, PNG or WebP"),
    "a_gif.jpg": (put(encoded(bright(), "GIF")), "no JPEG, PNG or WebP"),
    "a_tiff.jpg": (put(encoded(bright(), "TIFF")), "no JPEG, PNG or WebP"),
    "a_bmp.bmp": (put(encoded(bright(), "BMP")), "no photo: .jpg"),
    "notes.txt": (put(b"my notes"), "no photo: .jpg"),
    "phone.heic": (put(b"\0\0\0\x18ftypheic"), "HEIC"),
    "one.png": (put(encoded(bright(1, 1), "PNG")), "too small: 1 x 1"),
    "tiny.jpg": (put(encoded(bright(15, 15), "JPEG")), "too small: 15 x 15"),
    "line.png": (put(encoded(bright(20_000, 20), "PNG")), "too narrow: 20000 x 20"),
    "wide.jpg": (put(encoded(bright(20_000, 6_000), "JPEG", quality=5)), "too large"),
    "bomb.png": (put(bomb(60_000, 60_000)), "too large"),
    "small_bomb.png": (put(bomb(10_000, 9_000)), "too large: 10000 x 9000"),
    "text_bomb.png": (put(text_bomb()), "cannot be read"),
    "hollow.png": (put(bomb(80, 80)), "cannot be read"),
    "animated.webp": (
        put(encoded(bright(), "WEBP", save_all=True, append_images=[bright(seed=9)], duration=100)),
        "animated",
    ),
    "animated.png": (put(encoded(bright(), "PNG", save_all=True, append_images=[bright(seed=9)])), "animated"),
    "dark.jpg": (put(encoded(Image.new("RGB", (80, 80)), "JPEG")), "no face"),
    "loop.jpg": (lambda path: path.symlink_to(path), "cannot be read"),
    "dangling.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "cannot be read"),
    "up": (lambda path: path.symlink_to("..", target_is_directory=True), "a folder inside"),
    "album.jpg": (lambda path: path.mkdir(), "a folder inside"),
    "pipe.jpg": (os.mkfifo, "no regular file"),
    "twin.png": (put(encoded(bright(seed=1), "PNG")), "the same picture as anna/"),
}

GOOD: dict[str, Write] = {
    "0.png": put(encoded(bright(seed=1), "PNG")),  # the first of the names: its twin above comes later
    "cmyk.jpg": put(encoded(bright(seed=2).convert("CMYK"), "JPEG")),
    "grey.jpg": put(encoded(bright(seed=3).convert("L"), "JPEG")),
    "sixteen.png": put(encoded(SIXTEEN, "PNG")),
    "alpha.png": put(encoded(Image.new("RGBA", (80, 80), (0, 0, 0, 0)), "PNG")),  # white, once it lies on white
    "palette.png": put(encoded(bright(seed=4).quantize(16), "PNG", transparency=0)),
    "lossless.webp": put(encoded(bright(seed=5), "WEBP", lossless=True)),
    "a_png.jpg": put(encoded(bright(seed=6), "PNG")),  # wrong ending
    "LOUD.JPEG": put(encoded(bright(seed=7), "JPEG")),
    "turned.jpg": put(encoded(bright(90, 80, seed=8), "JPEG", exif=EXIF)),
    "bad_exif.jpg": put(encoded(bright(seed=10), "JPEG", exif=b"Exif\0\0nonsense")),
    "profile.jpg": put(encoded(bright(seed=11), "JPEG", icc_profile=b"no profile")),
    "übergröße 照片 🙂.jpg": put(encoded(bright(seed=12), "JPEG")),
    "..jpg.png": put(encoded(bright(seed=13), "PNG")),
    "a..b .. c.png": put(encoded(bright(seed=14), "PNG")),
    'two\nlines,"quoted".png': put(encoded(bright(seed=15), "PNG")),
    "trailing.jpg": put(encoded(bright(seed=16), "JPEG") + b"PK\3\4 and something behind it"),
    "phone.jpg": put(encoded(bright(seed=17), "MPO", save_all=True, append_images=[bright(seed=18)])),
    "progressive.jpg": put(encoded(bright(seed=19), "JPEG", progressive=True)),
}
BYTES = os.fsdecode(b"\xff\xfe.png")  # a name that is no UTF-8


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Anna's folder with all of the above, and around it what else lies in such folders."""
    root = tmp_path / "people"
    anna = root / "anna"
    anna.mkdir(parents=True)
    for name, write in (GOOD | {name: write for name, (write, _) in BAD.items()}).items():
        write(anna / name)
    (anna / BYTES).write_bytes(encoded(bright(seed=20), "PNG"))
    (tmp_path / "elsewhere.png").write_bytes(encoded(bright(seed=21), "PNG"))
    (anna / "linked.png").symlink_to(tmp_path / "elsewhere.png")  # as DVC links files
    (root / "berta").mkdir()
    (root / "berta" / "only.png").write_bytes(encoded(bright(seed=22), "PNG"))
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "loose.jpg").write_bytes(JPEG)
    return root


def skipped(work: Path) -> dict[str, str]:
    with (work / "skipped.csv").open(encoding="utf-8", newline="") as file:
        return {row["file"]: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def imported(tiny_world: Checkpoints, photos: Photos, folder: Path, tmp_path: Path) -> Path:
    import_photos(tiny_world, photos, folder, tmp_path / "work", no_log)
    return tmp_path / "work"


def test_every_bad_file_is_listed_with_its_reason_and_no_good_one(imported: Path) -> None:
    found = skipped(imported)
    for name, (_, reason) in BAD.items():
        assert reason in found[f"anna/{name}"] and found[f"anna/{name}"], name
    assert found["loose.jpg"] == "in no person's folder"
    assert "symbolic link" in found["loop"]
    assert set(found) == {f"anna/{name}" for name in BAD} | {"loose.jpg", "loop"}


def test_every_good_file_is_a_row(imported: Path) -> None:
    table = pq.read_table(imported / "table.parquet")
    assert len(table) == len(GOOD) + 3  # a name that is no UTF-8, a link, and berta's
    kept = table.filter(table["kept"])
    assert set(kept["name"].to_pylist()) == {"anna"}
    (berta,) = (row for row in table.to_pylist() if row["name"] == "berta")
    assert berta["reason"] == "too few pictures of the person"
    metrics = read_json(imported / "metrics.json")
    assert (metrics["images"], metrics["people"], metrics["skipped"]) == (len(GOOD) + 2, 1, len(BAD) + 2)


def test_the_same_folder_gives_the_same_bytes(
    tiny_world: Checkpoints, photos: Photos, folder: Path, imported: Path, tmp_path: Path
) -> None:
    import_photos(tiny_world, photos, folder, tmp_path / "again", no_log)
    assert files_of(tmp_path / "again") == files_of(imported)


def test_features_mixes_it_with_the_invented_people(
    tiny_world: Checkpoints, dataset: Path, features: Path, imported: Path, tmp_path: Path
) -> None:
    encode(
        tiny_world,
        ENCODING,
        dataset,
        imported,
        tmp_path / "features",
        no_log,
    )
    mixed, alone = open_features(tmp_path / "features"), open_features(features)
    table, invented = mixed.table, len(alone.table)
    assert table.own.tolist() == [False] * invented + [True] * (len(GOOD) + 2)
    assert set(table.identity[table.own].tolist()) & set(table.identity[~table.own].tolist()) == set()
    rows = torch.arange(invented)
    assert torch.equal(mixed.latents(rows), alone.latents(rows))
    kept = pq.read_table(imported / "table.parquet").filter(pc.field("kept"))
    assert torch.allclose(mixed.landmarks(torch.nonzero(table.own)[:, 0]), torch.tensor(kept["landmarks"].to_pylist()))
    targets, references = Pairs(table, own_share=0.75).draw(2000, torch.Generator().manual_seed(0))
    assert table.own[targets].float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert torch.equal(table.own[targets], table.own[references])


def test_pictures_are_square_and_landmarks_lie_on_the_face(imported: Path, photos: Photos) -> None:
    table = pq.read_table(imported / "table.parquet").to_pylist()
    pixels = [decode_png(png, path) for path in list_shards(imported) for _, png in read_pictures(path)]
    assert {p.shape for p in pixels} == {(64, 64, 3)}
    for row in table:
        left, top, right, bottom = row["box"]
        assert 0 <= left < right <= 64 and 0 <= top < bottom <= 64
        assert all(left <= x <= right and top <= y <= bottom for x, y in row["landmarks"])
        assert max(right - left, bottom - top) > 64 / photos.margin - 1.5  # less margin where the photo ends


def test_sixteen_bits_and_cmyk_keep_their_colours_transparency_is_white_and_exif_turns_upright() -> None:
    assert np.unique(np.asarray(open_picture(encoded(SIXTEEN, "PNG")))).tolist() == [round(50_000 / 257)]
    clear = Image.new("RGBA", (80, 80), (255, 0, 0, 0))
    assert np.asarray(open_picture(encoded(clear, "PNG"))).min() == 255
    pixels = np.asarray(open_picture(encoded(bright(90, 80), "JPEG", exif=EXIF)))
    assert pixels.shape == (90, 80, 3)
    assert np.abs(pixels.astype(int) - np.rot90(np.asarray(bright(90, 80)), -1)).max() < 20
    image = Image.new("RGB", (80, 80), (200, 40, 40)).convert("CMYK")
    pixels = np.asarray(open_picture(encoded(image, "JPEG")))
    assert np.abs(pixels.reshape(-1, 3).mean(0) - [200, 40, 40]).max() < 12


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_what_may_not_be_read_is_listed(tiny_world: Checkpoints, photos: Photos, folder: Path, tmp_path: Path) -> None:
    (folder / "anna" / "0.png").chmod(0)
    (folder / "berta").chmod(0)
    import_photos(tiny_world, photos, folder, tmp_path / "work", no_log)
    (folder / "berta").chmod(0o755)
    found = skipped(tmp_path / "work")
    assert "Permission denied" in found["anna/0.png"] and "Permission denied" in found["berta"]


def test_captions_are_used_and_those_of_no_file_listed(
    tiny_world: Checkpoints, photos: Photos, folder: Path, tmp_path: Path
) -> None:
    rows = "file,caption\nanna/0.png,a photo of a person in the snow\n../../etc/passwd,a photo\n"
    (folder / "captions.csv").write_text(rows, encoding="utf-8-sig")
    import_photos(tiny_world, photos, folder, tmp_path / "work", no_log)
    prompts = pq.read_table(tmp_path / "work" / "table.parquet")["neutral_prompt"].to_pylist()
    assert prompts.count("a photo of a person in the snow") == 1
    assert set(prompts) == {"a photo of a person in the snow", "a photo of a person"}
    assert skipped(tmp_path / "work")["../../etc/passwd"] == "named in captions.csv, but no such file"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"photo,text\n", "its first line has to be file,caption"),
        (b"", "its first line"),
        (b"file,caption\nanna/0.png\n", "line 2"),
        (b"file,caption\nanna/0.png, \n", "line 2"),
        (b"file,caption\na,b\na,c\n", "line 3"),
        (b"\xff\xfe\x00", "UTF-8"),
    ],
)
def test_bad_captions_are_one_error(
    tiny_world: Checkpoints, photos: Photos, folder: Path, tmp_path: Path, data: bytes, said: str
) -> None:
    (folder / "captions.csv").write_bytes(data)
    with pytest.raises(InputError, match=r"captions\.csv") as caught:
        import_photos(tiny_world, photos, folder, tmp_path / "work", no_log)
    assert said in str(caught.value)


def test_an_empty_folder_does_nothing_and_one_that_is_missing_or_without_a_photo_is_one_error(
    tiny_world: Checkpoints, photos: Photos, tmp_path: Path
) -> None:
    folder, work = tmp_path / "photos", tmp_path / "work"
    with pytest.raises(InputError, match="photos cannot be read"):
        import_photos(tiny_world, photos, folder, work, no_log)
    folder.mkdir()
    (folder / "README.md").write_text("notes")
    import_photos(tiny_world, photos, folder, work, no_log)
    assert read_json(work / "metrics.json") == {"images": 0, "people": 0, "skipped": 0}
    assert not (work / "shards").exists()
    (folder / "anna").mkdir()
    (folder / "anna" / "a.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"none of \d files .* no JPEG, PNG or WebP picture \(1\)"):
        import_photos(tiny_world, photos, folder, tmp_path / "other", no_log)
