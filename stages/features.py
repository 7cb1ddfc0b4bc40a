"""Encodes the dataset and own photos once: `python stages/features.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/features.py` shares the shards out to N processes.
"""

from lookahead.features.encode import encode
from lookahead.stage import Job, Stage, main


def build(job: Job) -> None:
    """Encode the kept pictures and their prompts."""
    datasets = (job.runs / "generate", job.runs / "photos")
    encode(job.world.checkpoints, job.world.features, *datasets, job.work, job.log)


CODE = ("artifacts.py", "portraits.py", "dataset", "features", "world")  # as in dvc.yaml
STAGES = {
    "": Stage("features", ("checkpoints", "features"), ("generate",), build, optional_inputs=("photos",), code=CODE)
}

if __name__ == "__main__":
    main(STAGES)
