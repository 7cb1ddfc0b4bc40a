"""Bad input anywhere in the chain: one error that names the value and the mend, and earlier results stay."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lookahead.artifacts import digest_paths
from tests.chain.conftest import PROTOCOL, RUN_ORDER, run_script
from tests.disk import largest_file
from tests.protocols import write_protocol

Change = Callable[[str, object], None]
WORLD = "worlds.tiny"


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
    return {name: digest_paths([root / "runs" / "tiny" / name]) for name in RUN_ORDER}


PARAMETERS = [
    ("train", "worlds.tiny.train.stepz", 3, ["stepz", "Extra inputs"]),
    ("train", "worlds.tiny.train.image_dropout", 2.0, ["image_dropout", "2.0", "less than or equal to 1"]),
    ("train", "worlds.tiny.train.lookahead.preview.model", "lcmm", ["preview", "'lcmm'", "'lcm' or 'naive'"]),
    ("train", "worlds.tiny.train.steps", "many", ["train.steps", "'many'"]),
    ("train", "worlds.tiny.checkpoints.precision", "float16", ["float16", "bfloat16 or float32"]),
    ("generate", "world", "minature", ["minature", "tiny"]),
    ("generate", "worlds.tiny.generate.prompts", "prompts/none.yaml", ["prompts/none.yaml"]),
    ("generate", "worlds.tiny.generate.min_photo_similarity", 1.0, ["min_photo_similarity (1.0)", "change"]),
    ("generate", "worlds.tiny.checkpoints.generator.scheduler", "FastScheduler", ["FastScheduler"]),
    ("generate", "worlds.tiny.checkpoints.generator.pipeline", "models/bsae", ["models/bsae"]),
    ("generate", "worlds.tiny.checkpoints.faces.select", "models/faces/models/none", ["models/faces/models/none"]),
    ("evaluate", "worlds.tiny.evaluate.protocol", "protocols/none.yaml", ["protocols/none.yaml", "evaluate.protocol"]),
]

PROTOCOLS = [
    ("sampler", "BestScheduler", ["BestScheduler"]),
    ("people", 90, ["90 people", "portraits/test holds only 3"]),
    ("people", 1, ["people", "greater than or equal to 2"]),
    ("split", "tets", ["split", "'search', 'validation' or 'test'", "'tets'"]),
    ("split", "search", ["portraits/search does not exist"]),
    ("stepz", 3, ["stepz", "Extra inputs"]),
    ("prompts", "prompts/none.yaml", ["prompts/none.yaml"]),
    ("groups", {"recontextualise": "plain"}, ["name one group `plain` and one `stylised`"]),
]

FILES = [
    ("generate", cut, "models/base/unet/diffusion_pytorch_model.safetensors", "truncated"),
    ("generate", cut, "models/lcm_lora/pytorch_lora_weights.safetensors", "truncated"),
    ("generate", remove, "models/base", "models/base"),
    ("generate", cut, "models/faces/models/select/recogniser.onnx", "select"),
    ("generate", scribble, "prompts/tiny.yaml", "prompts/tiny.yaml"),
    ("generate", scribble, "params.yaml", "params.yaml"),
    ("generate", remove, "params.yaml", "run from the repository's root"),
    ("features", cut, "models/image_encoder/model.safetensors", "truncated"),
    ("features", cut, "runs/tiny/generate/shards/00000.parquet", "00000.parquet"),
    ("features", scribble, "runs/tiny/generate/table.parquet", "table.parquet"),
    ("features", remove, "runs/tiny/generate", "lookahead generate"),
    ("train", cut, "models/adapter/ip-adapter.safetensors", "ip-adapter.safetensors"),
    ("train", remove, "models/preview_vae", "models/preview_vae"),
    ("train", cut, "runs/tiny/features/images/00000.safetensors", "00000.safetensors"),
    ("train", remove, "runs/tiny/features/prompts.safetensors", "prompts.safetensors is missing"),
    ("train", remove, "runs/tiny/features", "lookahead features"),
    ("evaluate", cut, "models/faces/models/report/detector.onnx", "report/detector.onnx"),
    ("evaluate", cut, "models/faces/models/report/recogniser.onnx", "report/recogniser.onnx"),
    ("evaluate", cut, "models/adapter/ip-adapter.safetensors", "ip-adapter.safetensors"),
    ("evaluate", remove, "portraits", "folder of portraits portraits/test does not exist"),
    ("evaluate", cut, "models/clip/open_clip_model.safetensors", "truncated"),
    ("evaluate", remove, "runs/tiny/train/lookahead/encoder/ip-adapter.safetensors", "lookahead/encoder"),
    ("evaluate", scribble, "portraits/test/000/0.jpg", "portraits/test/000/0.jpg"),
    ("evaluate", scribble, "protocols/tiny.yaml", "the protocol protocols/tiny.yaml is not valid"),
    ("evaluate", remove, "protocols/tiny.yaml", "the protocol protocols/tiny.yaml cannot be read"),
    ("evaluate", cut, "runs/tiny/train/noise_only/encoder/ip-adapter.safetensors", "noise_only/encoder"),
]


@pytest.mark.parametrize(("stage", "name", "value", "said"), PARAMETERS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_bad_parameter(
    repository: Path, change: Change, stage: str, name: str, value: object, said: list[str]
) -> None:
    before = results(repository)
    change(name, value)
    error = run_script(stage)
    assert error.startswith("error: ")
    assert all(words in error for words in said), error
    assert results(repository) == before


@pytest.mark.parametrize(("name", "value", "said"), PROTOCOLS, ids=lambda x: x if isinstance(x, str) else "")
def test_a_bad_protocol(repository: Path, name: str, value: object, said: list[str]) -> None:
    before = results(repository)
    write_protocol(repository / "protocols" / "tiny.yaml", "portraits", **PROTOCOL | {name: value})
    error = run_script("evaluate")
    assert error.startswith("error: ")
    assert all(words in error for words in said), error
    assert results(repository) == before


@pytest.mark.parametrize(("stage", "damage", "path", "said"), FILES, ids=lambda x: getattr(x, "__name__", x))
def test_a_bad_file(repository: Path, stage: str, damage: Callable[[str], None], path: str, said: str) -> None:
    damage(path)
    before = {name: digest_paths([Path("runs/tiny") / name]) for name in RUN_ORDER if Path("runs/tiny", name).exists()}
    error = run_script(stage)
    assert error.startswith("error: ")
    assert said in error
    assert before == {name: digest_paths([Path("runs/tiny") / name]) for name in before}


def test_an_unknown_world_on_the_command_line(repository: Path) -> None:
    assert "there is no world 'mars': params.yaml has tiny" in run_script("generate", "--world", "mars")


@pytest.mark.parametrize(("stage", "folder"), [("generate", "state"), ("features", "state"), ("train", "state")])
def test_a_folder_that_cannot_be_written(repository: Path, stage: str, folder: str) -> None:
    before = results(repository)
    make_file(folder)
    error = run_script(stage)
    assert error.startswith(f"error: {folder}/") and "cannot be written" in error
    assert results(repository) == before


@pytest.mark.parametrize("stage", RUN_ORDER)
def test_a_full_disk(repository: Path, stage: str) -> None:
    before = results(repository)
    with largest_file(30_000):  # enough for pytest's temporary files, too little for the output
        error = run_script(stage)
    assert error.startswith("error: ") and "free some disk space" in error, error
    assert results(repository) == before
    assert run_script(stage) == ""  # with space again, it goes on
    assert results(repository) == before


def test_an_output_that_cannot_be_published_and_a_damaged_resume_state(repository: Path) -> None:
    make_file("runs/tiny/train")
    error = run_script("train", "--variant", "noise_only")
    assert error.startswith("error: runs/tiny/train/noise_only cannot be written")
    (state,) = Path("state").rglob("step_*.safetensors")  # nothing of the training is lost
    cut(str(state))
    error = run_script("train", "--variant", "noise_only")
    assert str(state) in error and "truncated" in error and "remove it" in error


def test_a_broken_tracking_store_loses_nothing(
    repository: Path, change: Change, capfd: pytest.CaptureFixture[str]
) -> None:
    before = results(repository)
    change("tracking.enabled", True)
    Path("state").mkdir(exist_ok=True)
    scribble("state/mlflow.db")
    assert run_script("train") == ""
    assert "warning: not tracked" in capfd.readouterr().err
    assert results(repository) == before
