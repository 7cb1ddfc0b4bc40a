"""Encodes the dataset and own photos once: `python stages/features.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/features.py` shares the shards out to N processes.
"""

from lookahead.artifacts import write_json
from lookahead.dataset.evaluated import leave_out
from lookahead.features.encode import encode
from lookahead.stage import Job, Stage, main
from lookahead.world.distributed import broadcast_object, is_main_process


def build(job: Job) -> None:
    """Encode the kept pictures and their prompts, but those of people whom the evaluation keeps for itself."""
    generated, photos = job.runs / "generate", job.runs / "photos"
    found = leave_out(job.world, generated, job.work) if is_main_process() else (set[int](), dict[str, float]())
    left_out, metrics = broadcast_object(found)
    encode(job.world.checkpoints, job.world.features, generated, photos, job.work, job.log, left_out)
    if is_main_process():
        write_json(job.work / "metrics.json", metrics)


CODE = ("artifacts.py", "portraits.py", "dataset", "features", "world")  # as in dvc.yaml
STAGES = {
    "": Stage("features", ("checkpoints", "features"), ("generate",), build, optional_inputs=("photos",), code=CODE)
}

if __name__ == "__main__":
    main(STAGES)
