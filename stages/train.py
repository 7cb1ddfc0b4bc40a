"""Tunes the encoder, with the lookahead loss and without: `python stages/train.py [--world W] [--variant V]`.

`accelerate launch --multi_gpu --num_processes N stages/train.py` shares each step's micro-batches out to N processes.
"""

from collections.abc import Callable
from typing import get_args

from lookahead.config import Train, Variant
from lookahead.stage import Job, Stage, main
from lookahead.training.fit import assist, train


def settings_of(variant: Variant, settings: Train) -> Train:
    """The numbers of a variant: without the lookahead loss, it counts 0 and its pass is not run."""
    if variant == "lookahead":
        return settings
    return settings.model_copy(update={"lookahead": settings.lookahead.model_copy(update={"weight": 0.0})})


def build(variant: Variant) -> Callable[[Job], None]:
    """The function that tunes one variant; both see the same numbers, seeds and batches."""

    def tune(job: Job) -> None:
        train(job.world.checkpoints, settings_of(variant, job.world.train), job.runs / "features", job.work, job.log)

    return tune


STAGES = {
    variant: Stage(f"train/{variant}", sections=("checkpoints", "train"), reads=("features",), build=build(variant))
    for variant in get_args(Variant)
}

if __name__ == "__main__":
    main(STAGES, assist)
