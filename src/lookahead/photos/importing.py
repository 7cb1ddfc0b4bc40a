"""The stage `photos`: every usable photo becomes a row of a dataset, every other file a line with its reason."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from insightface.app import FaceAnalysis
from tqdm import tqdm

from lookahead.artifacts import Log, atomic, write_json, write_parquet
from lookahead.config import Checkpoints, Photos
from lookahead.dataset.consistency import Face, find_face, judge, summarise
from lookahead.dataset.gallery import save_gallery
from lookahead.dataset.plan import Picture
from lookahead.dataset.prompts import Prompts, read_prompts
from lookahead.dataset.shards import Pixels, encode_png, keep_only, read_rows, shard_path, write_shard
from lookahead.dataset.table import TABLE, judged_table, sights_of
from lookahead.errors import InputError
from lookahead.photos.captions import plain_caption, read_captions
from lookahead.photos.crop import check_face, crop_face
from lookahead.photos.folders import CAPTIONS, PhotoFile, Skipped, list_photos
from lookahead.photos.pictures import UnusableError, read_picture
from lookahead.world import open_faces, quiet_alignment

SKIPPED = "skipped.csv"
WIDTH = 8  # pictures in a row of samples.png


@dataclass(frozen=True)
class Source:
    """What the reading of a folder needs: the detector, the numbers, captions, and the world's resolution."""

    faces: FaceAnalysis
    settings: Photos
    prompts: Prompts
    captions: dict[str, str]
    resolution: int


@dataclass
class Batch:
    """Rows on their way into a shard, and those that are left out."""

    pictures: list[Picture] = field(default_factory=list)
    pixels: list[Pixels] = field(default_factory=list)
    faces: list[Face | None] = field(default_factory=list)


def _row(source: Source, photo: PhotoFile, index: int) -> Picture:
    caption = source.captions.get(photo.file, plain_caption(source.prompts))
    return Picture(index, photo.identity, photo.person, source.prompts.plain, "", caption, caption, seed=0)


def _read(source: Source, photo: PhotoFile) -> tuple[Pixels, Face]:
    pixels = read_picture(photo.path, source.settings)
    face = check_face(find_face(source.faces, pixels), source.settings)
    return crop_face(pixels, face, source.settings, source.resolution)


def _twin(pixels: Pixels, photo: PhotoFile, seen: dict[str, str]) -> None:
    """Refuse a picture's copy: as reference of its own twin it would teach the encoder to copy."""
    first = seen.setdefault(f"{photo.identity} {hashlib.sha256(pixels.tobytes()).hexdigest()}", photo.file)
    if first != photo.file:
        raise UnusableError(f"the same picture as {first}")


def _import_rows(
    source: Source, entries: Sequence[PhotoFile | Skipped], save: Callable[[Batch], None]
) -> Iterator[Skipped]:
    """Hand full batches to `save`; yield what is skipped."""
    batch, count, seen = Batch(), 0, dict[str, str]()
    for entry in tqdm(entries, desc="reading photos", unit="file"):
        if isinstance(entry, Skipped):
            yield entry
            continue
        try:
            pixels, face = _read(source, entry)
            _twin(pixels, entry, seen)
        except UnusableError as reason:
            yield Skipped(entry.file, str(reason))
            continue
        batch.pictures.append(_row(source, entry, count))
        batch.pixels.append(pixels)
        batch.faces.append(face)
        count += 1
        if len(batch.pictures) == source.settings.shard:
            save(batch)
            batch = Batch()
    if batch.pictures:
        save(batch)


def _unmatched(captions: dict[str, str], entries: Sequence[PhotoFile | Skipped]) -> list[Skipped]:
    files = {entry.file for entry in entries}
    return [Skipped(file, f"named in {CAPTIONS}, but not there") for file in captions if file not in files]


def write_skipped(path: Path, skipped: Sequence[Skipped]) -> None:
    """Write the files that are not used, with their reasons, as CSV.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file", "reason"])
        writer.writerows((each.file, each.reason) for each in skipped)


def _describe(source: Source, work: Path, skipped: Sequence[Skipped]) -> None:
    rows, plain = read_rows(work), source.prompts.plain
    sights = sights_of(rows)
    verdicts = judge(sights, source.settings, plain)
    write_parquet(work / TABLE, judged_table(rows, verdicts, plain))
    write_json(work / "metrics.json", {**summarise(sights, verdicts), "skipped": len(skipped)})
    save_gallery(work, verdicts, min(WIDTH, len(verdicts)))


def _check_any(work: Path, folder: Path, skipped: Sequence[Skipped]) -> None:
    if list((work / "shards").glob("*.parquet")):
        return
    reasons = Counter(each.reason.split(":")[0].split(" (")[0] for each in skipped)
    told = ", ".join(f"{reason} ({number})" for reason, number in reasons.most_common(3))
    raise InputError(f"none of {len(skipped)} files in {folder} can be used: {told}; see docs/own-photos.md")


def import_photos(checkpoints: Checkpoints, settings: Photos, folder: Path, work: Path, log: Log) -> None:
    """Read the photos of `<folder>/<person>/` into `work`, in the format of `generate`, with `skipped.csv` beside it.

    A folder without people gives no dataset: an empty `skipped.csv` and metrics of zero.

    Raises:
        InputError: the folder, its captions or the prompts file cannot be read, or not one photo can be used.
    """
    keep_only(work, [])
    keep_only(work / "shards", [])
    captions, prompts, entries = read_captions(folder), read_prompts(settings.prompts), list(list_photos(folder))
    if not entries:
        write_skipped(work / SKIPPED, [])
        write_json(work / "metrics.json", {"images": 0, "people": 0, "skipped": 0})
        return
    faces = open_faces(checkpoints.faces.select, checkpoints.faces.detection_size)
    source = Source(faces, settings, prompts, captions, checkpoints.resolution)
    written: list[int] = []

    def save(batch: Batch) -> None:
        write_shard(
            shard_path(work, len(written)), batch.pictures, [encode_png(pixels) for pixels in batch.pixels], batch.faces
        )
        written.append(len(batch.pictures))
        log({"images": float(sum(written))}, len(written) - 1)

    with quiet_alignment():
        skipped = [*_import_rows(source, entries, save), *_unmatched(captions, entries)]
    write_skipped(work / SKIPPED, skipped)
    _check_any(work, folder, skipped)
    _describe(source, work, skipped)
