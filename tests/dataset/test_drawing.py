"""The stage `generate`: what is planned and drawn, resuming, two processes, and what it says of damage."""

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from lookahead.artifacts import read_json
from lookahead.config import Checkpoints, Generate
from lookahead.dataset.drawing import Plan, draw_pictures, synthesise
from lookahead.dataset.prompts import read_prompts
from lookahead.dataset.shards import decode_png, list_shards, read_pictures, shard_path
from lookahead.dataset.summary import card_text
from lookahead.errors import InputError
from lookahead.world import open_generator
from tests.project import files_of
from tests.tiny import no_log


def _plan(settings: Generate, **changes: int) -> Plan:
    return Plan(read_prompts(settings.prompts), settings.model_copy(update=changes))


def test_every_person_gets_photos_and_styles_and_a_neutral_prompt(settings: Generate) -> None:
    pictures = _plan(settings).pictures(range(15))
    assert [p.index for p in pictures] == list(range(15))
    for identity in range(3):
        own = [p for p in pictures if p.identity == identity]
        assert Counter(p.style for p in own) == {"photo": 3, "pencil": 1, "oil": 1}
        assert all(p.name in p.prompt and p.name not in p.neutral_prompt for p in own)
        assert all("a person" in p.neutral_prompt for p in own)


def test_a_picture_depends_on_its_index_and_the_seed_alone(settings: Generate) -> None:
    few, many = _plan(settings), _plan(settings, people=12)
    pictures = many.pictures(range(60))
    assert pictures[:15] == few.pictures(range(15))
    assert [p for indices in many.shards for p in many.pictures(indices)] == pictures
    seeds = {p.seed for p in pictures}
    assert len(seeds) == 60
    assert seeds.isdisjoint(p.seed for p in _plan(settings, seed=1).pictures(range(15)))


def test_table_metrics_gallery_and_card_say_what_was_drawn(dataset: Path, settings: Generate) -> None:
    table, metrics = pq.read_table(dataset / "table.parquet").to_pydict(), read_json(dataset / "metrics.json")
    assert table["index"] == list(range(15))
    assert all(np.shape(points) == (5, 2) for points in table["landmarks"])
    assert table["photo"] == [style == "photo" for style in table["style"]]
    assert all(table["kept"]) and set(table["reason"]) == {""}
    assert set(metrics["rank_1"]) == {"photos", "stylised"}
    with Image.open(dataset / "samples.png") as gallery:
        assert gallery.size == (64 * (settings.photos + settings.stylised), 64 * settings.people)
    card = (dataset / "README.md").read_text(encoding="utf-8")
    assert f"{metrics['images']} pictures of {metrics['people']} people" in card
    assert all(f"- {model}: {licence}" in card for model, licence in settings.licences.items())
    assert all(f"| {style} |" in card for style in metrics["styles"])
    assert all(f"]({name})" in card and (dataset / name).is_file() for name in ("samples.png", "histograms.png"))
    assert "keeps more" not in card and "keeps more" in card_text(metrics | {"kept": 0.4}, {})


def test_a_run_continues_at_the_missing_shard_with_the_same_bytes(
    tiny_world: Checkpoints, settings: Generate, dataset: Path, tmp_path: Path
) -> None:
    """A shard of other prompts is drawn anew, too, and what a killed process had half written is gone."""
    synthesise(tiny_world, settings.model_copy(update={"seed": 5}), tmp_path, no_log)
    assert shard_path(tmp_path, 0).read_bytes() != shard_path(dataset, 0).read_bytes()
    for number in (0, 2):
        shard_path(tmp_path, number).write_bytes(shard_path(dataset, number).read_bytes())
    for half in (tmp_path / "shards" / ".00003.x1.parquet", tmp_path / ".table.x2.parquet"):
        half.write_text("half")
    drawn: list[int] = []
    synthesise(tiny_world, settings, tmp_path, lambda _metrics, number: drawn.append(number))
    assert drawn == [1]
    assert files_of(tmp_path) == files_of(dataset)


def _finish_or_kill(world: Checkpoints, settings: Generate, work: Path, seconds: float) -> bool:
    """Fork, which needs no time for imports, a process that draws; kill it after a while; whether that was in time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            synthesise(world, settings, work, no_log)
            status = 0
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_runs_killed_at_twenty_random_moments_end_with_the_same_bytes(
    tiny_world: Checkpoints, settings: Generate, tmp_path: Path
) -> None:
    many, start = settings.model_copy(update={"people": 12}), time.perf_counter()  # sixty pictures in ten shards
    synthesise(tiny_world, many, tmp_path / "whole", no_log)
    took = time.perf_counter() - start
    draw, killed = random.Random(0), 0
    for attempt in range(200):
        work = tmp_path / str(attempt)
        if _finish_or_kill(tiny_world, many, work, draw.uniform(0, took)):
            killed += 1
            synthesise(tiny_world, many, work, no_log)
        assert files_of(work) == files_of(tmp_path / "whole")
        if killed == 20:
            return
    pytest.fail(f"only {killed} of the runs could be killed")


def test_a_picture_does_not_depend_on_its_batch(tiny_world: Checkpoints, settings: Generate) -> None:
    pictures, pipe = _plan(settings).pictures(range(4)), open_generator(tiny_world)
    together = draw_pictures(pipe, pictures, tiny_world)
    apart = [draw_pictures(pipe, [picture], tiny_world)[0] for picture in pictures]
    # One step of rounding is what torch's kernels for different batch sizes may differ by.
    assert max(int(np.abs(a.astype(int) - b.astype(int)).max()) for a, b in zip(together, apart, strict=True)) <= 1


def test_a_one_step_generator_without_lora_draws_too(tiny_world: Checkpoints, settings: Generate) -> None:
    changes = {"lora": None, "scheduler": "EulerAncestralDiscreteScheduler", "num_inference_steps": 1}
    turbo = tiny_world.model_copy(update={"generator": tiny_world.generator.model_copy(update=changes)})
    pictures = _plan(settings).pictures(range(2))
    one, other = (draw_pictures(open_generator(turbo), pictures, turbo) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert not np.array_equal(one[0], one[1])


def test_datasets_opens_the_shards_and_shows_pictures(dataset: Path, tmp_path: Path) -> None:
    files = [str(path) for path in list_shards(dataset)]
    opened = load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(opened) == 15
    assert isinstance(opened[0]["image"], Image.Image)
    (_, png), *_ = read_pictures(list_shards(dataset)[0])
    assert np.array_equal(np.asarray(opened[0]["image"]), decode_png(png, dataset))


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
        synthesise(tiny_world, settings, tmp_path, no_log)
    assert path.read_bytes() == before
