import multiprocessing
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.plan import plan_pictures
from lookahead.dataset.prompts import read_prompts
from lookahead.dataset.shards import list_shards, read_pictures, shard_path
from lookahead.dataset.synthesis import draw_pictures, synthesise
from lookahead.errors import InputError
from lookahead.world import open_generator
from tests.dataset.conftest import no_log


def _bytes(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_the_table_tells_what_was_drawn_found_and_kept(dataset: Path) -> None:
    table = pq.read_table(dataset / "table.parquet").to_pydict()
    assert table["index"] == list(range(15))
    assert all(np.shape(points) == (5, 2) for points in table["landmarks"])
    assert table["photo"] == [style == "photo" for style in table["style"]]
    assert all(table["kept"])
    assert set(table["reason"]) == {""}


def test_the_metrics_and_the_gallery_are_written(dataset: Path, settings: Generate) -> None:
    metrics = read_json(dataset / "metrics.json")
    assert {"same_person", "other_person", "kept", "styles"} <= set(metrics)
    with Image.open(dataset / "samples.png") as gallery:
        assert gallery.size == (64 * (settings.photos + settings.stylised), 64 * settings.people)


def test_the_same_settings_give_the_same_bytes(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path
) -> None:
    synthesise(tiny_world, settings, (), tmp_path, no_log)
    assert _bytes(tmp_path) == _bytes(dataset)


def test_a_run_continues_at_the_missing_shard_only(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path
) -> None:
    for number in (0, 2):
        shard_path(tmp_path, number).parent.mkdir(exist_ok=True)
        shard_path(tmp_path, number).write_bytes(shard_path(dataset, number).read_bytes())
    drawn: list[int] = []
    synthesise(tiny_world, settings, (), tmp_path, lambda _metrics, number: drawn.append(number))
    assert drawn == [1]
    assert _bytes(tmp_path) == _bytes(dataset)


def _run(world: Checkpoints, settings: Generate, work: Path) -> None:
    synthesise(world, settings, (), work, no_log)


def test_a_killed_run_continues_to_the_same_bytes(tiny_world: Checkpoints, settings: Generate, tmp_path: Path) -> None:
    """Also what the killed process had half written is gone."""
    many = settings.model_copy(update={"people": 12})
    synthesise(tiny_world, many, (), tmp_path / "whole", no_log)
    killed = tmp_path / "killed"
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(tiny_world, many, killed))
    process.start()
    while process.is_alive() and not list(killed.glob("shards/*.parquet")):
        time.sleep(0.005)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    for half in (killed / "shards" / ".00003.x1.parquet", killed / ".table.x2.parquet"):
        half.write_text("half")
    synthesise(tiny_world, many, (), killed, no_log)
    assert _bytes(killed) == _bytes(tmp_path / "whole")


def test_a_picture_does_not_depend_on_its_batch(tiny_world: Checkpoints, settings: Generate) -> None:
    pictures = plan_pictures(read_prompts(settings.prompts), settings)[:4]
    pipe = open_generator(tiny_world)
    together = draw_pictures(pipe, pictures, tiny_world)
    apart = [draw_pictures(pipe, [picture], tiny_world)[0] for picture in pictures]
    # One step of rounding is what torch's kernels for different batch sizes may differ by.
    assert max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(together, apart, strict=True)) <= 1


def test_shards_of_other_prompts_are_drawn_anew(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path
) -> None:
    shard_path(tmp_path, 0).parent.mkdir()
    shard_path(tmp_path, 0).write_bytes(shard_path(dataset, 0).read_bytes())
    synthesise(tiny_world, settings.model_copy(update={"seed": 5}), (), tmp_path, no_log)
    assert shard_path(tmp_path, 0).read_bytes() != shard_path(dataset, 0).read_bytes()


def test_datasets_opens_the_shards_and_shows_pictures(dataset: Path, tmp_path: Path) -> None:
    files = [str(path) for path in list_shards(dataset)]
    opened = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(opened) == 15
    assert isinstance(opened[0]["image"], Image.Image)
    (_, pixels), *_ = read_pictures(list_shards(dataset)[0])
    assert np.array_equal(np.asarray(opened[0]["image"]), pixels)


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: b"", lambda data: data[:400] + b"x" * 400 + data[800:]]
)
def test_a_damaged_shard_is_named_and_left_alone(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path, damage: object
) -> None:
    path = shard_path(tmp_path, 1)
    path.parent.mkdir()
    path.write_bytes(damage(shard_path(dataset, 1).read_bytes()))  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"00001\.parquet.*delete it and run again"):
        synthesise(tiny_world, settings, (), tmp_path, no_log)
    assert path.read_bytes() == before


def test_nothing_kept_says_which_numbers_to_change(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path
) -> None:
    (tmp_path / "shards").symlink_to(dataset / "shards")
    strict = settings.model_copy(update={"keep_photo": 1.0, "keep_stylised": 1.0})
    with pytest.raises(InputError, match="none of 15 pictures is kept: their median similarity is"):
        synthesise(tiny_world, strict, (), tmp_path, no_log)


def test_a_one_step_generator_without_lora_draws_too(tiny_world: Checkpoints, settings: Generate) -> None:
    changes = {"lora": None, "scheduler": "EulerAncestralDiscreteScheduler", "steps": 1}
    turbo = tiny_world.model_copy(update={"generator": tiny_world.generator.model_copy(update=changes)})
    pictures = plan_pictures(read_prompts(settings.prompts), settings)[:2]
    one, other = (draw_pictures(open_generator(turbo), pictures, turbo) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], one[1])


def test_an_unknown_scheduler_is_refused(tiny_world: Checkpoints, settings: Generate, tmp_path: Path) -> None:
    generator = tiny_world.generator.model_copy(update={"scheduler": "LCMSchedular"})
    with pytest.raises(InputError, match="'LCMSchedular' is no scheduler"):
        synthesise(tiny_world.model_copy(update={"generator": generator}), settings, (), tmp_path, no_log)
    assert not (tmp_path / "shards").exists()


def test_a_missing_prompts_file_is_refused(tiny_world: Checkpoints, settings: Generate, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml cannot be read"):
        synthesise(tiny_world, settings.model_copy(update={"prompts": "none.yaml"}), (), tmp_path, no_log)
