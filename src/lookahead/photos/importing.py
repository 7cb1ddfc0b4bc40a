"""The stage `photos`: every usable photo becomes a row of a dataset, every other file a line with its reason."""

from __future__ import annotations

import csv
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from unicodedata import normalize

import numpy as np
from insightface.app import FaceAnalysis
from PIL import Image
from tqdm import tqdm

from lookahead.artifacts import Log, atomic, keep_only, write_json
from lookahead.config import Checkpoints, Photos
from lookahead.dataset.faces import KEPT, Face, check_faces, find_face
from lookahead.dataset.prompts import Prompts, read_prompts
from lookahead.dataset.shards import Picture, encode_png, read_rows, shard_path, write_shard, write_table
from lookahead.dataset.summary import save_gallery, summarise
from lookahead.errors import InputError
from lookahead.portraits import SUFFIXES, Pixels, open_picture
from lookahead.world import open_faces, quiet_alignment

CAPTIONS, NOTES = "captions.csv", "README.md"  # allowed besides the people's folders
_HEADER = ["file", "caption"]
_WIDTH = 8  # pictures in a row of samples.png
Skipped = list[tuple[str, str]]  # files and reasons


@dataclass(frozen=True)
class Entry:
    """A file or folder: its name below the root, why it is skipped (empty: it is not), its path, and whose it is."""

    file: str
    reason: str
    path: Path
    identity: int = -1
    person: str = ""


def _text(name: str) -> str:
    """A file's name as text: composed as most systems do it, with bytes that are no UTF-8 replaced."""
    return normalize("NFC", os.fsencode(name).decode("utf-8", "replace"))


def _objection(path: Path) -> str:
    """Why a file of a person's folder is not opened; nothing if it may be."""
    try:
        mode = path.stat().st_mode  # of what a link points to: DVC links files
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    if stat.S_ISDIR(mode):
        return "a folder inside a person's folder"
    if not stat.S_ISREG(mode):
        return "no regular file"  # to open a pipe would wait for ever
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC: Pillow cannot read it; export it as JPEG"
    return "" if path.suffix.lower() in SUFFIXES else f"no photo: {', '.join(SUFFIXES)} are read"


def list_photos(root: Path) -> Iterator[Entry]:
    """Every entry of `<root>/<person>/`, in the order of the names, usable or not."""
    try:
        entries = sorted(root.iterdir(), key=os.fsencode)
    except OSError as error:
        raise InputError(f"the photo folder {root} cannot be read ({error.strerror}): name another one") from None
    identity = -1
    for path in entries:
        name = _text(path.name)
        if path.is_symlink():
            yield Entry(name, "a symbolic link: only links to files in a person's folder are followed", path)
        elif path.is_dir():
            identity += 1
            try:
                photos = sorted(path.iterdir(), key=os.fsencode)
            except OSError as error:
                yield Entry(name, f"cannot be read ({error.strerror})", path)
                continue
            yield from (Entry(f"{name}/{_text(p.name)}", _objection(p), p, identity, name) for p in photos)
        elif path.name not in (CAPTIONS, NOTES):
            yield Entry(name, "in no person's folder", path)


def read_captions(root: Path) -> dict[str, str]:
    """Captions by `<person>/<file>`; none if there is no `captions.csv`."""
    path, found = root / CAPTIONS, dict[str, str]()
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file) if row] or [[]]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} cannot be read ({error}): save it as CSV in UTF-8") from None
    if [name.strip().lower() for name in header] != _HEADER:
        raise InputError(f"{path} begins with {header!r:.80}: its first line has to be {','.join(_HEADER)}")
    for line, row in enumerate(rows, start=2):
        name = _text(row[0].strip().replace("\\", "/"))
        if len(row) != 2 or not row[1].strip() or name in found:
            raise InputError(f"{path}, line {line}: {row!r:.80} is not another file and its caption")
        found[name] = " ".join(row[1].split())
    return found


def _crop(pixels: Pixels, face: Face, margin: float, resolution: int) -> tuple[Pixels, Face]:
    """The square around a face, `margin` times as wide as its box where the photo allows it, scaled to (R, R, 3)."""
    height, width, _ = pixels.shape
    left, top, right, bottom = face.box.tolist()
    side = max(1, min(round(margin * max(right - left, bottom - top)), height, width))
    x = int(min(max(round((left + right) / 2 - side / 2), 0), width - side))
    y = int(min(max(round((top + bottom) / 2 - side / 2), 0), height - side))
    cut = Image.fromarray(pixels[y : y + side, x : x + side])
    sized = np.asarray(cut.resize((resolution, resolution), Image.Resampling.LANCZOS))
    scale, corner = resolution / side, np.array([x, y], dtype=np.float32)
    landmarks = ((face.landmarks - corner) * scale).astype(np.float32)
    box = ((face.box - np.tile(corner, 2)) * scale).astype(np.float32)
    return sized, Face(box, landmarks, face.embedding, face.second_face)


def _read_face(faces: FaceAnalysis, path: Path, settings: Photos, resolution: int) -> tuple[Pixels, Face]:
    """The square around the one face of a photo, and the face in it; `InputError` says why a photo is not used."""
    pixels = np.asarray(open_picture(path, settings.max_pixels, settings.min_face_size))
    face = find_face(faces, pixels)
    if face is None:
        raise InputError("no face")
    if face.second_face > settings.max_second_face:
        raise InputError("several faces")
    size = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
    if size < settings.min_face_size:
        raise InputError(f"too small a face: {size:.0f} pixels, {settings.min_face_size} are needed")
    return _crop(pixels, face, settings.margin, resolution)


def _read_photos(
    entries: Sequence[Entry], checkpoints: Checkpoints, settings: Photos, skipped: Skipped
) -> Iterator[tuple[Entry, bytes, Face]]:
    """The usable photos, cropped, as PNG; the others are appended to `skipped`."""
    faces, seen = open_faces(checkpoints.faces.select, checkpoints.faces.detection_size), dict[tuple[int, bytes], str]()
    for entry in tqdm(entries, desc="reading photos", unit="file"):
        try:
            if entry.reason:
                raise InputError(entry.reason)
            pixels, face = _read_face(faces, entry.path, settings, checkpoints.resolution)
            # A copy as the reference of its own twin would teach the encoder to copy.
            first = seen.setdefault((entry.identity, hashlib.sha256(pixels.tobytes()).digest()), entry.file)
            if first != entry.file:
                raise InputError(f"the same picture as {first}")
        except InputError as error:
            skipped.append((entry.file, str(error).removeprefix(f"{entry.path} ")))
        else:
            yield entry, encode_png(pixels), face


def _picture(index: int, photo: Entry, captions: dict[str, str], prompts: Prompts) -> Picture:
    """The row of a photo; without a caption it is a plain photo of no one in particular, nowhere in particular."""
    caption = captions.get(photo.file, prompts.caption(prompts.nobody, {"style": prompts.plain}))
    return Picture(index, photo.identity, photo.person, prompts.plain, "", caption, caption, seed=0)


def import_photos(checkpoints: Checkpoints, settings: Photos, folder: Path, work: Path, log: Log) -> None:
    """Read the photos of `<folder>/<person>/` into `work`, in the format of `generate`, and a list `skipped.csv`.

    A folder without people gives no dataset: an empty `skipped.csv` and metrics of zero.
    """
    keep_only(work, [])
    keep_only(work / "shards", [])
    captions, prompts, entries = read_captions(folder), read_prompts(settings.prompts), list(list_photos(folder))
    count, skipped = 0, Skipped()
    photos = _read_photos(entries, checkpoints, settings, skipped) if entries else iter(())
    with quiet_alignment():
        while batch := list(islice(photos, settings.shard_size)):
            number = count // settings.shard_size
            pictures = [_picture(count + i, photo, captions, prompts) for i, (photo, _, _) in enumerate(batch)]
            write_shard(shard_path(work, number), pictures, [png for _, png, _ in batch], [face for *_, face in batch])
            count += len(batch)
            log({"images": float(count)}, number)
    if entries:
        files = {entry.file for entry in entries}
        skipped += [(file, f"named in {CAPTIONS}, but no such file") for file in captions if file not in files]
    with atomic(work / "skipped.csv") as path, path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "reason"), *skipped])
    if entries and not count:
        reasons = Counter(reason.split(":")[0].split(" (")[0] for _, reason in skipped).most_common(3)
        names = ", ".join(f"{reason} ({number})" for reason, number in reasons)
        raise InputError(f"none of {len(skipped)} files in {folder} can be used: {names}; see docs/own-photos.md")
    metrics: dict[str, object] = {"images": 0, "people": 0}
    if count:
        table, columns, embedding = read_rows(work, prompts.plain)
        columns = check_faces(columns, embedding, settings)
        write_table(work, table, columns)
        metrics = summarise(columns)
        save_gallery(work, (columns["reason"] == KEPT).to_numpy(), min(_WIDTH, count))
    write_json(work / "metrics.json", metrics | {"skipped": len(skipped)})
