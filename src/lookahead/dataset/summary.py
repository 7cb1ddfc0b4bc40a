"""What a dataset is like: metrics, a gallery, histograms, and a card that the hub and people read."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from lookahead.artifacts import atomic, write_json
from lookahead.config import Generate
from lookahead.dataset.faces import KEPT, REASONS, Array, check_faces
from lookahead.dataset.shards import decode_png, list_shards, read_pictures, read_rows, write_table
from lookahead.errors import InputError

_ROWS, _GREY = 8, 160.0  # of the gallery
_BLOCK = 256  # rows of a similarity matrix at a time


def _mean(values: pd.Series) -> float:
    known = values.dropna().to_numpy()
    return float(known.mean()) if len(known) else 0.0


def summarise(columns: pd.DataFrame) -> dict[str, Any]:
    """The metrics of a dataset: similarities over kept pictures, counts over all by reason, and both by style."""
    kept, counts, styles = columns[columns["reason"] == KEPT], columns["reason"].value_counts(), {}
    for style, own in columns.groupby("style", sort=False, observed=True):
        shares = own["reason"].value_counts(normalize=True)
        styles[style] = {
            "images": int((own["reason"] == KEPT).sum()),
            "same_person": _mean(own["similarity"]),
            "other_person": _mean(own["stranger"]),
            "kept": float(shares[KEPT]),
            "dropped": {reason: float(shares[reason]) for reason in REASONS[1:]},
        }
    return {
        "same_person": _mean(kept["similarity"]),
        "other_person": _mean(kept["stranger"]),
        "kept": len(kept) / len(columns),
        "images": len(kept),
        "people": int(kept["identity"].nunique()),
        "faces_found": 1 - int((~columns["found"]).sum()) / len(columns),
        "dropped": {reason: int(counts[reason]) for reason in REASONS[1:]},
        "styles": styles,
    }


def rank_one(columns: pd.DataFrame, embedding: Array) -> dict[str, float]:
    """Shares of kept photos and of kept stylised pictures whose nearest person, by mean photo, is their own.

    Each picture is held back in turn: a photo is left out of its own person's mean.
    """

    def unit(vectors: Array) -> Array:
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    kept, photo, identity = columns["reason"] == KEPT, columns["photo"], columns["identity"].to_numpy()
    photos = np.flatnonzero(kept & photo)
    people, owners = np.unique(identity[photos], return_inverse=True)
    sums = np.zeros((len(people), embedding.shape[1]), np.float32)
    np.add.at(sums, owners, embedding[photos])
    means, shares = unit(sums), {}
    for name, probes in (("photos", photos), ("stylised", np.flatnonzero(kept & ~photo))):
        hits = 0
        for block in (probes[start : start + _BLOCK] for start in range(0, len(probes), _BLOCK)):
            faces, person = embedding[block], np.searchsorted(people, identity[block])
            scores, own = faces @ means.T, (np.arange(len(block)), person)  # (B, people)
            right = (faces * unit(sums[person] - faces)).sum(1) if name == "photos" else scores[own]
            scores[own] = -np.inf
            hits += int((right > scores.max(1)).sum())
        shares[name] = hits / max(len(probes), 1)
    return shares


def save_gallery(folder: Path, kept: NDArray[np.bool_], width: int) -> None:
    """Save `samples.png`: the first people of a dataset, a row each of `width` pictures, dropped ones dimmed."""
    every = (decode_png(png, path) for path in list_shards(folder) for _, png in read_pictures(path))
    pairs = islice(zip(every, kept, strict=False), _ROWS * width)
    shown = [pixels if keep else (0.25 * pixels + 0.75 * _GREY).astype(np.uint8) for pixels, keep in pairs]
    if len(shown) > width:  # own photos need not fill the last row
        shown += [np.full_like(shown[0], int(_GREY))] * (-len(shown) % width)
    rows = [np.concatenate(shown[start : start + width], axis=1) for start in range(0, len(shown), width)]
    with atomic(folder / "samples.png") as path:
        Image.fromarray(np.concatenate(rows)).save(path, format="PNG")


def _save_histograms(path: Path, columns: pd.DataFrame) -> None:
    figure, bins = Figure(figsize=(9, 3.2), layout="constrained"), np.linspace(-1, 1, 81).tolist()
    for axis, photo in zip(figure.subplots(1, 2, sharex=True), (True, False), strict=True):
        own = columns[columns["photo"] == photo]
        for name, label in (("similarity", "same person"), ("stranger", "another person")):
            axis.hist(own[name].dropna(), bins=bins, alpha=0.6, label=label)
        axis.set(title="photos" if photo else "stylised", xlabel="cosine similarity", ylabel="pictures")
        axis.legend(loc="upper left")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def card_text(metrics: dict[str, Any], licences: dict[str, str]) -> str:
    templates = Environment(loader=PackageLoader("lookahead.dataset"), undefined=StrictUndefined, autoescape=False)
    return templates.get_template("card.md.j2").render(metrics, licences=licences) + "\n"


def summarise_dataset(work: Path, settings: Generate, plain: str) -> None:
    """Check all faces, and write everything but the shards."""
    table, columns, embedding = read_rows(work, plain)
    columns = check_faces(columns, embedding, settings)
    metrics = summarise(columns) | {"rank_1": rank_one(columns, embedding)}
    if not metrics["images"]:
        limits = ("min_photo_similarity", "min_stylised_similarity", "min_images")
        raise InputError(
            f"none of {len(table)} pictures is kept: their median similarity is {columns['similarity'].median():.2f}; "
            f"look at the generator, or change {', '.join(f'{name} ({getattr(settings, name)})' for name in limits)}"
        )
    write_table(work, table, columns)
    write_json(work / "metrics.json", metrics)
    _save_histograms(work / "histograms.png", columns)
    with atomic(work / "README.md") as path:
        path.write_text(card_text(metrics, settings.licences), encoding="utf-8")
    save_gallery(work, (columns["reason"] == KEPT).to_numpy(), settings.photos + settings.stylised)
