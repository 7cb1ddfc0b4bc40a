"""Tunes the encoder, with the lookahead loss and without: `python stages/train.py [--world W] [--variant V]`.

With `accelerate launch --multi_gpu --num_processes N stages/train.py` N processes share each step's micro-batches.
"""

import shutil
from collections.abc import Mapping

from lookahead.artifacts import STATE
from lookahead.config import with_overrides
from lookahead.stage import Job, Stage, main
from lookahead.training.checkpoint import NOT_IN_KEY
from lookahead.training.loop import train
from lookahead.world.distributed import is_main_process

CODE = ("artifacts.py", "features", "method", "models", "sampling", "training", "world")  # as in dvc.yaml
CHANGES: Mapping[str, Mapping[str, object]] = {  # by variant
    "noise_only": {"lookahead.weight": 0.0},  # the loss is not computed
    "lookahead": {},
}


def stage(variant: str) -> Stage:
    """The stage that tunes one variant; all have the same numbers, its changes aside, the same seeds and batches.

    The last checkpoint stays in `state/checkpoints`, so that more `steps` continue from it (docs/training.md).
    """
    changes = CHANGES[variant]

    def build(job: Job) -> None:
        kept = STATE / "checkpoints" / job.runs.name
        resume = kept / f"{variant}-{job.work.name}"  # a workspace's name is the key of what decides the weights
        settings = with_overrides(job.world.train, changes)
        features = job.runs / "features"
        train(job.world.checkpoints, settings, features, job.work, job.log, resume, name=f"train/{variant}")
        for other in kept.glob(f"{variant}-*"):
            if is_main_process() and other != resume:
                shutil.rmtree(other, ignore_errors=True)

    overrides = {f"train.{path}": value for path, value in changes.items()}
    irrelevant = tuple(f"train.{name}" for name in NOT_IN_KEY)
    sections, inputs = ("checkpoints", "train"), ("features",)
    return Stage(f"train/{variant}", sections, inputs, build, overrides, code=CODE, irrelevant=irrelevant)


STAGES = {variant: stage(variant) for variant in CHANGES}

if __name__ == "__main__":
    main(STAGES)
