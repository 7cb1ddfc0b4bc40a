"""The curves' cells, a method at a strength of its adapter each: `python stages/curves.py --variant tuned-0.5`."""

from lookahead.config import Curves, read_evaluate, read_params
from lookahead.curves.cell import Cell, build_cell, cells_of
from lookahead.evaluation.methods import TUNED
from lookahead.evaluation.store import STORE
from lookahead.stage import Job, Stage, main


def stage(study: Curves, cell: Cell) -> Stage:
    """The stage of one cell."""
    tuned = cell.method == TUNED

    def build(job: Job) -> None:
        encoder = job.runs / "train" / "lookahead" / "encoder" if tuned else None
        settings = read_evaluate(job.world.evaluate)
        build_cell(job.world.checkpoints, study, cell, settings, encoder, job.work, job.log, STORE)

    told = {"cell": cell.name} | study.model_dump(mode="json", include={"people", "photo_prompts", "steps"})
    reads = ("train/lookahead",) if tuned else ()
    return Stage(f"curves/{cell.name}", ("checkpoints", "evaluate"), reads, build, told)


def stages() -> dict[str, Stage]:
    """Every cell by its name."""
    study = read_params().studies.curves
    return {cell.name: stage(study, cell) for cell in cells_of(study)}


if __name__ == "__main__":
    main(stages())
