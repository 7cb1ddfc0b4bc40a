"""What the machine does to commands: a full disk, no permission, a clock that jumps back, two commands at once."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.campaign.children import NOBODY, Running, run
from tests.campaign.conftest import FIGURES
from tests.campaign.inputs import OUT, drawing, own_photos, tracked
from tests.campaign.test_inputs import kept, left_behind, messages
from tests.campaign.test_kills import WORKS, fresh
from tests.project import WORLD, files_of, largest_file

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]
Place = Callable[[], Path]
STAGES = [kind for kind in WORKS if kind != "publish"]
DRAWING = {
    "personalize": drawing("--images=12"),  # a grid that is larger than the disk
    "export": ("export", OUT),
    "import": ("import", "photos"),
    "search": ("search",),
    "cell": WORKS["cell"].words,
}  # the stages' full disk is in tests/chain/test_faults.py


@pytest.mark.parametrize("name", DRAWING)
def test_a_full_disk_is_one_message_and_leaves_nothing_half_built(name: str, place: Place, log: Path) -> None:
    root = place()
    own_photos(root)
    before = kept(root)
    with largest_file(30_000):  # enough for what is written, too little for the output
        done = run(root, DRAWING[name], log)
    assert done.code == 1 and "Traceback" not in done.said, done.said[-3000:]
    assert "disk" in messages(done.said), done.said[-3000:]
    assert kept(root) == before and not left_behind(root)
    again = run(root, DRAWING[name], log)
    assert again.code == 0, again.said[-3000:]
    FIGURES.update(["faults of the machine"])


@pytest.fixture
def locked(world_of_results: Path) -> Iterator[Path]:
    """A project that others can read, but not write."""
    folder = Path(tempfile.mkdtemp())
    shutil.copytree(world_of_results, folder / "project")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder / "project"
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["personalize", "export", "features", "train", "headline", "search", "compare"])
def test_without_permission_to_write_it_is_one_message(name: str, locked: Path, log: Path) -> None:
    same = [f"runs/{WORLD}/evaluate"] * 2
    words = {"compare": ("compare", *same, "--label=a", "--label=b")} | DRAWING
    before = kept(locked)
    log.touch()
    log.chmod(0o666)
    done = Running(locked, words.get(name, (name,)), log, user=0 if os.getuid() else NOBODY).finish()
    message = messages(done.said)
    assert done.code == (0 if name == "headline" else 1) and "Traceback" not in done.said, done.said[-3000:]
    assert name == "headline" or "ermission" in message or "readonly" in message, done.said[-3000:]
    assert kept(locked) == before
    FIGURES.update(["faults of the machine"])


@pytest.mark.parametrize("kind", STAGES)
def test_files_from_the_future_change_nothing(kind: str, place: Place, log: Path) -> None:
    """What a clock leaves that was ahead, and then jumped back."""
    root = fresh(place, WORKS[kind])
    first = run(root, WORKS[kind].words, log)
    assert first.code == 0, first.said[-3000:]
    expected = files_of(root / WORKS[kind].output)
    for path in root.rglob("*"):
        stat = path.stat()
        os.utime(path, (stat.st_atime + 86_400, stat.st_mtime + 86_400))
    done = run(root, WORKS[kind].words, log)
    assert done.code == 0 and files_of(root / WORKS[kind].output) == expected, done.said[-3000:]
    FIGURES.update(["faults of the machine"])


@pytest.mark.parametrize("move", [Path.rename, shutil.copytree], ids=["renamed", "copied"])
def test_artifacts_follow_a_folder(move: Callable[[Path, Path], object], place: Place, log: Path) -> None:
    first = place()
    second = first.with_name("elsewhere")
    tracked(first)
    (first / "state" / "mlflow.db").unlink()
    assert run(first, ["features"], log).code == 0
    move(first, second)
    before = files_of(first) if first.exists() else {}
    done = run(second, ["features"], log)
    assert done.code == 0 and "not tracked" not in done.said, done.said[-3000:]
    assert (files_of(first) if first.exists() else {}) == before
    client = MlflowClient(f"sqlite:///{second}/state/mlflow.db")
    experiment = client.get_experiment_by_name("lookahead")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], "tags.`lookahead.stage` = 'features'")
    assert [len(client.list_artifacts(one.info.run_id)) > 0 for one in runs] == [True, True]
    FIGURES.update(["faults of the machine"])


@pytest.mark.parametrize("kind", STAGES)
def test_of_two_at_once_one_works_and_the_other_says_so(kind: str, place: Place, tmp_path: Path, log: Path) -> None:
    root = fresh(place, WORKS[kind])
    logs = [tmp_path / "first", tmp_path / "second"]
    both = [one.finish() for one in [Running(root, WORKS[kind].words, log) for log in logs]]
    refused = [done.said for done in both if done.code]
    assert [done.code for done in both].count(0) >= 1 and not any("Traceback" in done.said for done in both)
    assert all("another process is running this stage" in said for said in refused), refused
    expected, left = files_of(root / WORKS[kind].output), left_behind(root)
    alone = fresh(place, WORKS[kind])
    assert run(alone, WORKS[kind].words, log).code == 0
    assert expected == files_of(alone / WORKS[kind].output) and not left
    FIGURES.update(["faults of the machine"])
