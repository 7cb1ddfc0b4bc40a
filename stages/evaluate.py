"""Compares the encoders on people never seen, by faces and by text: `python stages/evaluate.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/evaluate.py` shares drawing and scoring out to N processes.
"""

from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.evaluator import CACHE
from lookahead.report.evaluation import write_evaluation_report
from lookahead.stage import Job, Stage, main
from lookahead.world.distributed import is_main_process

# The cell's name: the training stage that its encoder comes from.
TRAININGS = {"noise_only": "train/noise_only", "tuned": "train/lookahead"}


def build(job: Job) -> None:
    """Draw and score everybody in every cell, then write the report."""
    world, settings = job.world, job.world.evaluation()
    encoders = {name: job.runs / stage / "encoder" for name, stage in TRAININGS.items()}
    found = evaluate(world.checkpoints, settings, encoders, world.train.seed, job.work, job.log, CACHE)
    if is_main_process():
        write_evaluation_report(found, job.work, settings.grid_people)


CODE = ("artifacts.py", "portraits.py", "dataset", "evaluation", "method", "models", "report", "sampling", "world")
STAGES = {"": Stage("evaluate", ("checkpoints", "evaluate"), inputs=tuple(TRAININGS.values()), build=build, code=CODE)}

if __name__ == "__main__":
    main(STAGES)
