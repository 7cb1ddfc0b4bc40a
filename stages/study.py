"""Tables, figures and the page of a study from its cells: `python stages/study.py --variant STUDY [--world W]`."""

from pathlib import Path

from lookahead.artifacts import write_json
from lookahead.config import Study, read_params
from lookahead.evaluation.evaluate import as_intervals
from lookahead.evaluation.study import cell_folders, picture_folders, read_study, study_tables
from lookahead.portraits import read_people
from lookahead.report.studies import write_study_report
from lookahead.stage import Job, Stage, main

CODE = ("artifacts.py", "portraits.py", "evaluation", "report")  # as in the studies' dvc.yaml


def stage(name: str, study: Study) -> Stage:
    """The stage that reads every cell of a study and writes `results/<world>/<study>`."""

    def build(job: Job) -> None:
        settings, folder = study.evaluation(job.world.evaluation()), job.runs / name
        table = read_study(study, folder)
        summary, contrasts = study_tables(study, table, settings)
        write_json(job.work / "metrics.json", as_intervals(summary, contrasts))
        people = read_people(Path(settings.portraits), settings.people)
        pictures = picture_folders(study, folder)
        write_study_report(name, study, table, summary, contrasts, people, pictures, job.work)

    cells = tuple(path.as_posix() for path in cell_folders(study, name))
    return Stage(name, ("evaluate",), cells, build, study.model_dump(mode="json"), Path("results"), code=CODE)


STAGES = {name: stage(name, study) for name, study in read_params().studies.cells.items()}

if __name__ == "__main__":
    main(STAGES)
