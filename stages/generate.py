"""Draws the dataset of invented people, checked by their faces: `python stages/generate.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/generate.py` draws with N processes; the dataset is the same.
"""

from lookahead.data.synthesis import assist, synthesise
from lookahead.stage import Job, Stage, main


def build(job: Job) -> None:
    """Draw, check and describe the pictures."""
    synthesise(job.world.checkpoints, job.world.generate, job.work, job.log)


STAGES = {"": Stage("generate", sections=("checkpoints", "generate"), reads=(), build=build)}

if __name__ == "__main__":
    main(STAGES, assist)
