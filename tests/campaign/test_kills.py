"""SIGKILL, SIGTERM and Ctrl-C at random moments: the same command ends with the bytes of an undisturbed run."""

import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lookahead.artifacts import recover, workspace
from tests.campaign.children import PATIENCE, Running, run
from tests.campaign.conftest import FIGURES, STUDY
from tests.campaign.publishing import __file__ as publishing
from tests.campaign.publishing import whole
from tests.project import WORLD, files_of

pytestmark = pytest.mark.campaign
Place = Callable[[], Path]
Share = Callable[[int], int]
REAL = 5  # of so many kills one is of a real process
PUBLISHED = "published"


@dataclass(frozen=True)
class Work:
    """A command, how often it is killed, the folder that it publishes, and what an earlier run has left for it."""

    words: tuple[str, ...]
    kills: int
    output: str
    earlier: str = "state/work"


WORKS = {
    "generate": Work(("generate",), 14, f"runs/{WORLD}/generate"),
    "features": Work(("features",), 14, f"runs/{WORLD}/features"),
    "train": Work(("train", "--variant", "lookahead"), 14, f"runs/{WORLD}/train/lookahead", "state/checkpoints"),
    "evaluate": Work(("evaluate",), 12, f"runs/{WORLD}/evaluate", "state/pictures"),
    "cell": Work(("stages/cell.py", "--variant", f"{STUDY}/tuned/0"), 12, f"runs/{WORLD}/{STUDY}/tuned/0"),
    "publish": Work((publishing, PUBLISHED), 16, PUBLISHED),
}
PARTS = {"generate": "shards", "features": "images"}  # which a run that continues does not make again


def fresh(place: Place, work: Work) -> Path:
    """A project in which the command has all to do."""
    root = place()
    shutil.rmtree(root / work.earlier, ignore_errors=True)
    return root


def undisturbed(place: Place, work: Work, log: Path, real: bool) -> tuple[dict[str, bytes], float]:
    """What the command publishes, and how long it takes."""
    root, begun = fresh(place, work), time.monotonic()
    done = run(root, work.words, log, real=real)
    assert done.code == 0, done.said[-3000:]
    return files_of(root / work.output), time.monotonic() - begun


def hit(place: Place, work: Work, log: Path, longest: float, chance: random.Random, number: int, real: bool) -> Path:
    """A project in which the command got a signal while it ran."""
    for _ in range(20):
        root, moment = fresh(place, work), chance.uniform(0, longest)
        log.unlink(missing_ok=True)
        running = Running(root, work.words, log, real=real)
        if running.wait(moment) is None:
            running.send(number)
            if running.wait(PATIENCE) != 0:
                return root
        longest *= 0.9  # it was faster than the undisturbed run
    raise AssertionError("it always ends before it is hit")


def times(folder: Path) -> dict[str, int]:
    """When the finished files below a folder were written, by their names."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.name: path.stat().st_mtime_ns for path in found}


def check_continued(root: Path, kind: str, expected: dict[str, bytes], log: Path, real: bool) -> None:
    """The same command ends with the same bytes, and keeps the parts that were finished."""
    work = WORKS[kind]
    if kind == "publish":
        check_whole(root)
    parts = {
        name: time
        for folder in (root / "state" / "work").rglob(PARTS.get(kind, "-"))
        for name, time in times(folder).items()
    }
    done = run(root, work.words, log, real=real)
    assert done.code == 0 and "Traceback" not in done.said, done.said[-3000:]
    found = files_of(root / work.output)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert parts.items() <= times(root / work.output).items()
    assert not list((root / work.output).parent.rglob(".*"))


def check_whole(root: Path) -> None:
    """What is published is whole at every moment, or comes back."""
    if not (root / PUBLISHED).exists():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            recover(workspace("campaign", "key"), Path(PUBLISHED))
    assert whole(root / PUBLISHED) or not (root / PUBLISHED).exists()  # before the first one


@pytest.mark.timeout(2400)
@pytest.mark.parametrize("kind", WORKS)
def test_a_killed_command_continues(kind: str, place: Place, log: Path, number: int, share: Share) -> None:
    work, chance = WORKS[kind], random.Random(f"{number} {kind}")
    count = share(work.kills)
    expected, longest = undisturbed(place, work, log, real=False)
    begun = undisturbed(place, work, log, real=True)[1] if count >= REAL else 0.0
    for attempt in range(count):
        real = attempt % REAL == REAL - 1
        root = hit(place, work, log, begun if real else longest, chance, signal.SIGKILL, real)
        FIGURES.update(["kills", f"kills of {kind}", *["kills of real processes"] * real])
        check_continued(root, kind, expected, log, real)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("kind", [kind for kind in WORKS if kind != "publish"])
def test_an_interrupted_command_says_so_and_continues(
    kind: str, stop: signal.Signals, place: Place, log: Path, number: int
) -> None:
    work, chance = WORKS[kind], random.Random(f"{number} {kind} {stop}")
    expected, longest = undisturbed(place, work, log, real=False)
    root = hit(place, work, log, longest, chance, stop, real=False)
    said = log.read_text(encoding="utf-8", errors="replace")
    assert said.strip().endswith("interrupted: the same command continues") and "Traceback" not in said, said[-3000:]
    FIGURES.update(["interruptions"])
    check_continued(root, kind, expected, log, real=False)
