"""Draws the dataset of invented people, checked by their faces: `python stages/generate.py [--world W]`.

`accelerate launch --multi_gpu --num_processes N stages/generate.py` draws with N processes; the dataset is the same.
"""

from collections.abc import Iterator
from pathlib import Path

from lookahead.config import Splits
from lookahead.dataset.drawing import synthesise
from lookahead.portraits import Pixels, read_people, read_photo
from lookahead.stage import Job, Stage, main


def evaluated(splits: Splits) -> Iterator[tuple[Path, Pixels]]:
    """Folder and reference photo of everybody in the splits; a split without a folder holds nobody."""
    for split in map(Path, splits.model_dump().values()):
        count = sum(path.is_dir() for path in split.iterdir()) if split.is_dir() else 0
        for person in read_people(split, count) if count else []:
            yield person.reference.parent, read_photo(person.reference)


def build(job: Job) -> None:
    """Draw, check and describe the pictures."""
    portraits = evaluated(job.world.evaluation().splits)
    synthesise(job.world.checkpoints, job.world.generate, portraits, job.work, job.log)


CODE = ("artifacts.py", "portraits.py", "dataset", "world")  # as in dvc.yaml
STAGES = {"": Stage("generate", sections=("checkpoints", "generate"), inputs=(), build=build, code=CODE)}

if __name__ == "__main__":
    main(STAGES)
