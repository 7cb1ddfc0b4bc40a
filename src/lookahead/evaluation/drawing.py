"""What an evaluation draws: every method's pictures, further ones, and the base model's; by one process or several."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from lookahead.config import Checkpoints, Evaluate
from lookahead.evaluation.methods import BASE, Encoder, encoders_of
from lookahead.evaluation.panel import Panel, draw_once, fill, open_base, open_panel, open_sampler
from lookahead.evaluation.plan import Plan
from lookahead.evaluation.spread import missing, spread_plan
from lookahead.evaluation.steering import aimed, steering, steering_key
from lookahead.evaluation.store import NO_ADAPTER, adapter_key
from lookahead.sampling.loop import Sampler
from lookahead.world import Pipeline, open_pipeline
from lookahead.world.processes import broadcast, launched

MORE = "spread"  # below it: pictures from further noises, and the base model's


@dataclass(frozen=True)
class Drawing:
    """The pictures of one sampler: their name, whom and what they show, their shelf, and what opens the sampler."""

    name: str
    panel: Panel
    place: Path
    ready: Callable[[], AbstractContextManager[Sampler]]


@dataclass(frozen=True)
class Opened:
    """What an evaluation is made of: methods, people with their judges, the further noises, and what is to be drawn."""

    encoders: dict[str, Encoder]
    panel: Panel
    spread: Plan
    drawings: list[Drawing]


def open_evaluation(
    checkpoints: Checkpoints, settings: Evaluate, variants: Mapping[str, Path | None], store: Path
) -> Opened:
    """Open everything; nothing is drawn yet.

    Raises:
        InputError: portraits, prompts or a checkpoint are missing or wrong, or a reference photo shows no face.
    """
    encoders, pipe = encoders_of(variants, settings.steering), open_pipeline(checkpoints)
    panel = open_panel(checkpoints, settings, pipe)
    panel = panel if settings.steering is None else aimed(panel, pipe)
    spread = spread_plan(panel.plan, settings)
    return Opened(encoders, panel, spread, _drawings(panel, pipe, encoders, spread, store))


def _drawings(
    panel: Panel, pipe: Pipeline, encoders: Mapping[str, Encoder], spread: Plan, store: Path
) -> list[Drawing]:
    made: list[Drawing] = []

    def add(name: str, shots: Plan, key: object, ready: Callable[[], AbstractContextManager[Sampler]]) -> None:
        part = replace(panel, plan=shots)
        made.append(Drawing(name, part, part.shelf(store, key), ready))

    for method, encoder in encoders.items():
        ready, key = partial(_sampler, panel, pipe, encoder), _key(panel.checkpoints, encoder)
        add(method, panel.plan, key, ready)
        if encoder.spread:
            add(f"{MORE}/{method}", missing(spread, panel.plan), key, ready)
    add(f"{MORE}/{BASE}", spread, NO_ADAPTER, lambda: nullcontext(open_base(pipe, panel.protocol)))
    return made


def _sampler(panel: Panel, pipe: Pipeline, encoder: Encoder) -> AbstractContextManager[Sampler]:
    sampler = open_sampler(panel.checkpoints, pipe, panel.protocol, encoder.folder, encoder.keys_values)
    return nullcontext(sampler) if encoder.steering is None else steering(sampler, panel.checkpoints, encoder.steering)


def _key(checkpoints: Checkpoints, encoder: Encoder) -> object:
    plain = adapter_key(checkpoints, encoder.folder, encoder.keys_values)
    return plain if encoder.steering is None else [plain, steering_key(checkpoints, encoder.steering)]


def tell(checkpoints: Checkpoints, settings: Evaluate, variants: Mapping[str, Path | None], store: Path) -> None:
    """Let the other processes of this launch begin with their share (`assist`).

    Raises:
        InputError: another process ended.
    """
    told = {
        "checkpoints": checkpoints.model_dump(),
        "settings": settings.model_dump(mode="json"),
        "variants": {name: folder and str(folder.resolve()) for name, folder in variants.items()},
        "store": str(store.resolve()),
    }
    broadcast(json.dumps(told), launched())


def assist() -> None:
    """Draw this process's share of the evaluation that the first process makes, as it tells.

    Raises:
        InputError: as `open_evaluation`, or another process ended.
    """
    told = json.loads(broadcast("", launched()))
    checkpoints, settings = Checkpoints.model_validate(told["checkpoints"]), Evaluate.model_validate(told["settings"])
    variants = {name: folder and Path(folder) for name, folder in told["variants"].items()}
    for drawing in open_evaluation(checkpoints, settings, variants, Path(told["store"])).drawings:
        fill(drawing.panel, drawing.ready, drawing.name, drawing.place)


def draw_all(drawings: list[Drawing], out: Path) -> None:
    """Put every drawing's pictures into a folder of its name below `out`; what the shelves hold is not drawn again.

    Raises:
        InputError: a shard is damaged, or the disk is full.
    """
    for drawing in drawings:
        draw_once(drawing.panel, drawing.ready, drawing.name, drawing.place, out / drawing.name)
