"""The ablation's table, figure and page from its cells: `python stages/ablation_table.py [--world W]`."""

from pathlib import Path

from lookahead.ablation.report import write_ablation
from lookahead.config import read_evaluate, read_params
from lookahead.stage import Job, Stage, main


def stage() -> Stage:
    """The stage that reads every cell and writes `results/<world>/ablation`."""
    study = read_params().studies.ablation

    def build(job: Job) -> None:
        write_ablation(study, read_evaluate(job.world.evaluate), job.runs / "ablation", job.work)

    cells = tuple(f"ablation/{row}/{seed}" for row in study.rows for seed in study.seeds)
    return Stage("ablation", ("evaluate",), cells, build, study.model_dump(mode="json"), Path("results"))


if __name__ == "__main__":
    main({"": stage()})
