"""Encodes the dataset once: `python stages/features.py [--world W]`."""

from lookahead.data.features import encode
from lookahead.stage import Job, Stage, main


def build(job: Job) -> None:
    """Encode the kept pictures and their prompts."""
    encode(job.world.checkpoints, job.world.features, job.runs / "generate", job.work, job.log)


STAGES = {"": Stage("features", sections=("checkpoints", "features"), reads=("generate",), build=build)}

if __name__ == "__main__":
    main(STAGES)
