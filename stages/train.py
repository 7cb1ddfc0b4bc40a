"""Tunes the encoder, with the lookahead loss and without: `python stages/train.py [--world W] [--variant V]`.

`accelerate launch --multi_gpu --num_processes N stages/train.py` shares each step's micro-batches out to N processes.
"""

from collections.abc import Mapping

from lookahead.config import with_overrides
from lookahead.stage import Job, Stage, main
from lookahead.training.fit import train

CODE = ("artifacts.py", "features", "method", "models", "sampling", "training", "world")  # as in dvc.yaml
CHANGES: Mapping[str, Mapping[str, object]] = {  # by variant
    "noise_only": {"lookahead.weight": 0.0},  # the loss counts 0 and its pass is not run
    "lookahead": {},
}


def stage(variant: str) -> Stage:
    """The stage that tunes one variant; all see the same numbers, its changes aside, the same seeds and batches."""
    changes = CHANGES[variant]

    def build(job: Job) -> None:
        train(job.world.checkpoints, with_overrides(job.world.train, changes), job.runs / "features", job.work, job.log)

    told = {f"train.{path}": value for path, value in changes.items()}
    return Stage(f"train/{variant}", ("checkpoints", "train"), ("features",), build, told, code=CODE)


STAGES = {variant: stage(variant) for variant in CHANGES}

if __name__ == "__main__":
    main(STAGES)
