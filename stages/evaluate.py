"""Compares the encoders on people never seen, by faces and by text: `python stages/evaluate.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/evaluate.py` shares the drawing out to N processes.
"""

from lookahead.config import read_evaluate
from lookahead.evaluation.evaluate import evaluate
from lookahead.evaluation.store import STORE
from lookahead.stage import Job, Stage, main

# The method's name in `metrics.json`: the training stage it comes from; the untuned adapter comes from none.
TUNED = {"noise_only": "train/noise_only", "tuned": "train/lookahead"}


def build(job: Job) -> None:
    """Draw and judge everybody by every method."""
    encoders = {method: job.runs / stage / "encoder" for method, stage in TUNED.items()}
    evaluate(
        job.world.checkpoints,
        read_evaluate(job.world.evaluate),
        {"adapter": None, **encoders},
        job.work,
        job.log,
        STORE,
    )


CODE = ("artifacts.py", "portraits.py", "dataset", "evaluation", "method", "models", "report", "sampling", "world")
STAGES = {
    "": Stage("evaluate", sections=("checkpoints", "evaluate"), inputs=tuple(TUNED.values()), build=build, code=CODE)
}

if __name__ == "__main__":
    main(STAGES)
