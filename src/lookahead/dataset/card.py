"""The dataset's card: a README that the hub and people read, with histograms of the face check."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lookahead.artifacts import atomic
from lookahead.dataset.consistency import Sight, Verdict

ENOUGH = 0.6  # share of drawn pictures that a good generator's dataset keeps
_HEAD = """---
pretty_name: Invented people
task_categories: [text-to-image]
configs:
- config_name: default
  data_files: shards/*.parquet
---

# Invented people

"""


def save_histograms(path: Path, sights: Sequence[Sight], verdicts: Sequence[Verdict], plain: str) -> None:
    """Draw how similar pictures are to their own person's photos and to a stranger's, photos apart from the others.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axis, photos in zip(figure.subplots(1, 2, sharex=True), (True, False), strict=True):
        own = [v for s, v in zip(sights, verdicts, strict=True) if (s.style == plain) == photos]
        for label, values in (
            ("same person", [v.similarity for v in own if v.similarity is not None]),
            ("another person", [v.stranger for v in own if v.stranger is not None]),
        ):
            axis.hist(values, bins=np.linspace(-1, 1, 81).tolist(), alpha=0.6, label=label)
        axis.set(title="photos" if photos else "stylised", xlabel="cosine similarity", ylabel="pictures")
        axis.legend(loc="upper left")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100, metadata={"Software": None})


def _styles(metrics: Mapping[str, Any]) -> list[str]:
    rows = ["| style | kept pictures | kept | same person | other person |", "|---|---:|---:|---:|---:|"]
    for style, told in metrics["styles"].items():
        shares = (told["kept"], told["same_person"], told["other_person"])
        rows.append(f"| {style} | {told['images']} | " + " | ".join(f"{share:.2f}" for share in shares) + " |")
    return rows


def _lack(metrics: Mapping[str, Any]) -> list[str]:
    if metrics["kept"] >= ENOUGH:
        return []
    style = min(metrics["styles"], key=lambda name: metrics["styles"][name]["kept"])
    reason = max(metrics["dropped"], key=lambda name: metrics["dropped"][name])
    return [
        f"Only {metrics['kept']:.0%} of the drawn pictures are kept. The generator lacks most in the style {style} "
        f"({metrics['styles'][style]['kept']:.0%} kept); the commonest reason is: {reason}.",
        "",
    ]


def _evaluation(metrics: Mapping[str, Any]) -> str:
    compared, nearest = metrics["evaluation_people"], metrics["nearest_evaluation_person"]
    if nearest is None:
        return "Nobody was kept apart from it: the evaluation's folders of portraits were empty."
    return (
        f"Nobody here is a person of the evaluation: the faces of its {compared} people were compared with everybody's "
        f"mean photo, and the nearest pair has a similarity of {nearest:.3f}."
    )


def card_text(metrics: Mapping[str, Any], licences: Mapping[str, str]) -> str:
    """The card in Markdown."""
    rank, dropped = metrics["rank_1"], metrics["dropped"]
    lines = [
        f"{metrics['images']} pictures of {metrics['people']} people who do not exist, each in photos and other styles "
        "drawn by a text-to-image model and kept where a face recogniser sees the same person.",
        "",
        "![A row a person; dimmed pictures were dropped](samples.png)",
        "",
        *_styles(metrics),
        "",
        f"Kept: {metrics['kept']:.0%}. Dropped: {', '.join(f'{reason} {n}' for reason, n in dropped.items())}; each "
        "with its reason in `table.parquet`.",
        "",
        *_lack(metrics),
        f"Similarity of kept pictures to their person's photos {metrics['same_person']:.2f}, to another's "
        f"{metrics['other_person']:.2f}. A held-back picture finds its person first: photos {rank['photos']:.0%}, "
        f"stylised {rank['stylised']:.0%}.",
        "",
        _evaluation(metrics),
        "",
        "![Similarities](histograms.png)",
        "",
        "Licences of the models that drew and judged it:",
        "",
        *(f"- {model}: {licence}" for model, licence in licences.items()),
    ]
    return _HEAD + "\n".join(lines) + "\n"


def write_card(path: Path, metrics: Mapping[str, Any], licences: Mapping[str, str]) -> None:
    """Write the card.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    with atomic(path) as temporary:
        temporary.write_text(card_text(metrics, licences), encoding="utf-8")
