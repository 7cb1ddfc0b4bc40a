"""The ablation's cells, a training and an evaluation each: `python stages/ablation.py --variant ROW-SEED`."""

from lookahead.ablation.cell import build_cell, settings_of
from lookahead.config import Ablation, read_evaluate, read_params
from lookahead.evaluation.store import STORE
from lookahead.stage import Job, Stage, main


def cell(study: Ablation, row: str, seed: int) -> Stage:
    """The stage of one cell."""

    def build(job: Job) -> None:
        world, features = job.world, job.runs / "features"
        settings, protocol = settings_of(study, row, seed, world.train), read_evaluate(world.evaluate)
        build_cell(world.checkpoints, study, row, settings, protocol, features, job.work, job.log, STORE)

    told = {"row": row, "tuned": study.rows[row].tuned, "train.seed": seed}
    told |= {f"train.{path}": value for path, value in study.changes(row).items()}
    told |= study.model_dump(mode="json", include={"people", "photo_prompts", "steps", "fast_steps"})
    return Stage(f"ablation/{row}/{seed}", ("checkpoints", "train", "evaluate"), ("features",), build, told)


def stages() -> dict[str, Stage]:
    """Every cell by row and seed."""
    study = read_params().studies.ablation
    return {f"{row}-{seed}": cell(study, row, seed) for row in study.rows for seed in study.seeds}


if __name__ == "__main__":
    main(stages())
