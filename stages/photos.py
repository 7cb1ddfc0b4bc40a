"""Reads own photos from the folder `own_photos` of params.yaml: `python stages/photos.py [--world W]`."""

from pathlib import Path

from lookahead.config import read_params
from lookahead.photos.importing import import_photos
from lookahead.stage import Job, Stage, main
from lookahead.world.distributed import is_main_process

CODE = ("artifacts.py", "portraits.py", "dataset", "photos", "world")  # as in dvc.yaml


def stage_of(folder: Path, name: str) -> Stage:
    """The stage that reads a folder of photos into `runs/<world>/<name>`."""

    def build(job: Job) -> None:
        if is_main_process():  # the others of a launch have nothing to do
            import_photos(job.world.checkpoints, job.world.photos, folder, job.work, job.log)

    return Stage(name, ("checkpoints", "photos"), inputs=(), build=build, settings={"folder": str(folder)}, code=CODE)


if __name__ == "__main__":
    main({"": stage_of(Path(read_params().own_photos), "photos")})
