"""One cell of the curves: a method's pictures at one strength of its adapter, judged."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from lookahead.artifacts import Log, write_json
from lookahead.config import Checkpoints, Curves, Evaluate, with_overrides
from lookahead.evaluation.methods import BASE, TUNED, UNTUNED
from lookahead.evaluation.panel import draw_once, judged, open_base, open_panel, open_sampler
from lookahead.evaluation.store import NO_ADAPTER, adapter_key
from lookahead.evaluation.tables import PER_IMAGE, save_rows
from lookahead.sampling.loop import Sampler
from lookahead.world import open_pipeline

METHODS = (UNTUNED, TUNED)


@dataclass(frozen=True)
class Cell:
    """A method and the strength of its adapter's image tokens; of the base model, which has no adapter, 0."""

    method: str
    scale: float

    @property
    def name(self) -> str:
        """The name of its folder, and its key in `metrics.json`."""
        return BASE if self.method == BASE else f"{self.method}-{self.scale}"


def cells_of(study: Curves) -> list[Cell]:
    """The base model, and each method at each strength."""
    return [Cell(BASE, 0.0), *(Cell(method, scale) for method in METHODS for scale in study.scales)]


def build_cell(
    checkpoints: Checkpoints,
    study: Curves,
    cell: Cell,
    settings: Evaluate,
    encoder: Path | None,
    work: Path,
    log: Log,
    store: Path,
) -> None:
    """Draw and judge one cell into `work`: `pictures/`, `per_image.parquet`, `metrics.json`.

    Pictures that `store` holds are not drawn again.

    Args:
        checkpoints: the world.
        study: people and prompts.
        cell: which one.
        settings: the world's evaluation.
        encoder: the tuned encoder's folder; None for the untuned adapter and for the base model.
        work: the folder to write to.
        log: receives the means.
        store: where pictures are kept.

    Raises:
        InputError: portraits, prompts, a checkpoint or the encoder are missing or wrong.
    """
    protocol = with_overrides(study.protocol(settings), {"adapter_scale": cell.scale})
    pipe = open_pipeline(checkpoints)
    panel = open_panel(checkpoints, protocol, pipe)
    base, folder = cell.method == BASE, work / "pictures"

    def ready() -> AbstractContextManager[Sampler]:
        return nullcontext(open_base(pipe, protocol) if base else open_sampler(checkpoints, pipe, protocol, encoder))

    key = NO_ADAPTER if base else adapter_key(checkpoints, encoder)
    draw_once(panel, ready, cell.name, panel.shelf(store, key), folder)
    table = save_rows(judged(panel, cell.name, folder), work / PER_IMAGE)
    means = table[["identity", "prompt_right", "detected"]].mean()
    metrics = {str(name): float(value) for name, value in means.items()}
    write_json(work / "metrics.json", metrics)
    log(metrics, 0)
