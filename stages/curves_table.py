"""The curves' figure, table and page from their cells: `python stages/curves_table.py [--world W]`."""

from pathlib import Path

from lookahead.config import read_evaluate, read_params
from lookahead.curves.cell import cells_of
from lookahead.curves.report import write_curves
from lookahead.stage import Job, Stage, main


def stage() -> Stage:
    """The stage that reads every cell and writes `results/<world>/curves`."""
    study = read_params().studies.curves

    def build(job: Job) -> None:
        write_curves(study, read_evaluate(job.world.evaluate), job.runs / "curves", job.work)

    cells = tuple(f"curves/{cell.name}" for cell in cells_of(study))
    return Stage("curves", ("evaluate",), cells, build, study.model_dump(mode="json"), Path("results"))


if __name__ == "__main__":
    main({"": stage()})
