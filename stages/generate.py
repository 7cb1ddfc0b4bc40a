"""Draws the dataset of invented people, checked by their faces: `python stages/generate.py [--world W]`."""

from lookahead.data.synthesis import synthesise
from lookahead.stage import Job, Stage, main


def build(job: Job) -> None:
    """Draw, check and describe the pictures."""
    synthesise(job.world.checkpoints, job.world.generate, job.work, job.log)


STAGES = {"": Stage("generate", sections=("checkpoints", "generate"), reads=(), build=build)}

if __name__ == "__main__":
    main(STAGES)
