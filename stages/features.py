"""Encodes the dataset and own photos once: `python stages/features.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/features.py` shares the shards out to N processes.
"""

from lookahead.data.features import assist, encode
from lookahead.stage import Job, Stage, main


def build(job: Job) -> None:
    """Encode the kept pictures and their prompts."""
    datasets = (job.runs / "generate", job.runs / "photos")
    encode(job.world.checkpoints, job.world.features, *datasets, job.work, job.log)


STAGES = {"": Stage("features", ("checkpoints", "features"), ("generate",), build, reads_if_there=("photos",))}

if __name__ == "__main__":
    main(STAGES, assist)
