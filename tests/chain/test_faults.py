"""Bad input anywhere in the chain: one error that names the value and the mend, and earlier results stay."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from lookahead.artifacts import digest_paths
from tests.chain.conftest import run_script
from tests.project import PROTOCOL, STAGES, WORLD, largest_file, write_protocol

Change = Callable[[str, object], None]


def cut(path: str) -> None:
    """Truncate a file to two thirds of its length."""
    file = Path(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])


def remove(path: str) -> None:
    shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def scribble(path: str) -> None:
    Path(path).write_bytes(b"this is not what it should be")


def make_file(path: str) -> None:
    """Put a file where a folder is needed: not even root may write below it."""
    if Path(path).is_dir():
        Path(path).rename(f"{path}.away")
    Path(path).write_text("in the way")


def results(root: Path) -> dict[str, str]:
    folders = {name: root / "runs" / WORLD / name for name in STAGES}
    return {name: digest_paths([folder]) for name, folder in folders.items() if folder.exists()}


PARAMETERS = [  # that no schema refuses
    ("generate", "world", "minature", ["minature", "tiny"]),
    ("generate", "worlds.tiny.generate.min_photo_similarity", 1.0, ["min_photo_similarity (1.0)"]),
    ("generate", "worlds.tiny.checkpoints.generator.scheduler", "FastScheduler", ["FastScheduler"]),
    ("generate", "worlds.tiny.checkpoints.generator.pipeline", "models/bsae", ["models/bsae"]),
    ("generate", "worlds.tiny.checkpoints.faces.select", "models/tiny/none", ["models/tiny/none"]),
    ("evaluate", "sampler", "BestScheduler", ["BestScheduler"]),  # and of the protocol
    ("evaluate", "people", 90, ["90 people", "portraits/test holds only 4"]),
    ("evaluate", "split", "search", ["portraits/search"]),
    ("evaluate", "prompts", "prompts/none.yaml", ["prompts/none.yaml"]),
]
PROTOCOL_FILE = "protocols/tiny.yaml"
FILES = [
    ("generate", cut, "models/tiny/base/unet/diffusion_pytorch_model.safetensors", "truncated"),
    ("generate", remove, "models/tiny/base", "models/tiny/base"),
    ("generate", cut, "models/tiny/faces/models/select/recogniser.onnx", "select"),
    ("generate", scribble, "prompts/tiny.yaml", "prompts/tiny.yaml"),
    ("generate", remove, "params.yaml", "run from the repository's root"),
    ("features", cut, "runs/tiny/generate/shards/00000.parquet", "00000.parquet"),
    ("features", remove, "runs/tiny/generate", "lookahead generate"),
    ("train", cut, "runs/tiny/features/images/00000.safetensors", "runs/tiny/features cannot be read"),
    ("train", remove, "runs/tiny/features/prompts.safetensors", "prompts.safetensors does not exist"),
    ("evaluate", cut, "models/tiny/faces/models/report/detector.onnx", "report/detector.onnx"),
    ("evaluate", cut, "models/tiny/clip/open_clip_model.safetensors", "truncated"),
    ("evaluate", remove, "runs/tiny/train/lookahead/encoder/ip-adapter.safetensors", "lookahead/encoder"),
    ("evaluate", scribble, "models/tiny/portraits/test/000/0.jpg", "portraits/test/000/0.jpg"),
    ("evaluate", scribble, "protocols/tiny.yaml", "protocols/tiny.yaml"),
    ("evaluate", cut, "runs/tiny/train/noise_only/encoder/ip-adapter.safetensors", "noise_only/encoder"),
]


def check_error(project: Path, stage: str, *said: str) -> None:
    """The stage refuses its input in one message, and every earlier output stays."""
    before = results(project)
    error = run_script(stage)
    assert error.startswith("error: ") and all(words in error for words in said), error
    assert results(project) == before


@pytest.mark.parametrize(("stage", "name", "value", "said"), PARAMETERS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_bad_parameter(project: Path, change: Change, stage: str, name: str, value: object, said: list[str]) -> None:
    if name in yaml.safe_load(Path(PROTOCOL_FILE).read_text()):
        write_protocol(Path(PROTOCOL_FILE), "models/tiny/portraits", **PROTOCOL | {name: value})
    else:
        change(name, value)
    check_error(project, stage, *said)


@pytest.mark.parametrize(("stage", "damage", "path", "said"), FILES, ids=lambda x: getattr(x, "__name__", x))
def test_a_bad_file(project: Path, stage: str, damage: Callable[[str], None], path: str, said: str) -> None:
    damage(path)
    check_error(project, stage, said)


def test_a_folder_that_cannot_be_written(project: Path) -> None:
    make_file("state")
    check_error(project, "features", "state/", "cannot be written")


@pytest.mark.parametrize("stage", ["generate", *(pytest.param(name, marks=pytest.mark.slow) for name in STAGES[1:])])
def test_a_full_disk(project: Path, stage: str) -> None:
    before = results(project)
    with largest_file(30_000):  # enough for pytest's temporary files, too little for the output
        check_error(project, stage, "free some disk space")
    assert run_script(stage) == ""  # with space again, it goes on
    assert results(project) == before


def test_an_output_that_cannot_be_published_and_a_damaged_resume_state(project: Path) -> None:
    make_file("runs/tiny/train")
    error = run_script("train", "--variant", "noise_only")
    assert error.startswith("error: runs/tiny/train/noise_only cannot be written")
    states = list(Path("state").rglob("step_*.safetensors"))  # nothing of the training is lost
    for state in states:
        cut(str(state))
    error = run_script("train", "--variant", "noise_only")
    assert states and "step_" in error and "truncated" in error and "remove it" in error
