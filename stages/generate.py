"""Draws the dataset of invented people, checked by their faces: `python stages/generate.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/generate.py` draws with N processes; the dataset is the same.
"""

from lookahead.dataset.drawing import synthesise
from lookahead.dataset.evaluated import check_evaluation
from lookahead.stage import Job, Stage, main
from lookahead.world.distributed import is_main_process


def build(job: Job) -> None:
    """Draw, check and describe the pictures, if what follows can be done with them; portraits decide on none."""
    if is_main_process():
        check_evaluation(job.world)
    synthesise(job.world.checkpoints, job.world.generate, job.work, job.log)


CODE = ("artifacts.py", "portraits.py", "dataset", "world")  # as in dvc.yaml
STAGES = {"": Stage("generate", sections=("checkpoints", "generate"), inputs=(), build=build, code=CODE)}

if __name__ == "__main__":
    main(STAGES)
