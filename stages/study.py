"""Tables, figures and the page of a study from its cells: `python stages/study.py --variant STUDY [--world W]`."""

from pathlib import Path

from lookahead.artifacts import write_json
from lookahead.config import Study, read_params
from lookahead.evaluation.evaluate import as_intervals, gathered_pictures, read_study, runs_of, study_tables
from lookahead.portraits import read_people
from lookahead.report.study import Study as Shown
from lookahead.report.study import StudyCell, write_study_report
from lookahead.stage import Job, Stage, main

CODE = ("artifacts.py", "portraits.py", "evaluation", "report")  # as in the studies' dvc.yaml
SAMPLERS = {"full": "full sampling", "fast": "few steps of the fast child"}


def shown(name: str, study: Study) -> Shown:
    """What the report says of a study; cells that differ in the adapter's strength are points of one line."""
    cells = []
    for key, cell in study.cells.items():
        strength = cell.sampling.get("adapter_scale")
        line = cell.label.split(" at ")[0]
        cells.append(StudyCell(key, cell.label, *(() if strength is None else (line, f"{strength:g}"))))
    return Shown(name, study.question, cells, {sampler: SAMPLERS.get(sampler, sampler) for sampler in study.samplers})


def stage(name: str, study: Study) -> Stage:
    """The stage that reads every cell of a study and writes `results/<world>/<study>`."""

    def build(job: Job) -> None:
        settings, folder = study.evaluation(job.world.evaluation()), job.runs / name
        table = read_study(study, folder)
        summary, contrasts = study_tables(study, table, settings)
        write_json(job.work / "metrics.json", as_intervals(summary, contrasts))
        people = read_people(Path(settings.portraits), settings.people)
        with gathered_pictures(study, folder) as pictures:
            write_study_report(
                shown(name, study),
                table,
                summary,
                contrasts,
                job.work,
                people=people,
                pictures=pictures,
                grid_people=study.grid_people,
            )

    cells = tuple(f"{name}/{cell}/{seed}" for cell, seed in runs_of(study))
    return Stage(name, ("evaluate",), cells, build, study.model_dump(mode="json"), Path("results"), code=CODE)


STAGES = {name: stage(name, study) for name, study in read_params().studies.cells.items()}

if __name__ == "__main__":
    main(STAGES)
