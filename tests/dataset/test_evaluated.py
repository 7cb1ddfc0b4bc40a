"""Who is kept out of the training for the evaluation, and which evaluations are refused before anything is drawn."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lookahead.config import Checkpoints, Generate, World, read_params, with_overrides
from lookahead.dataset.evaluated import FIRST, check_evaluation, leave_out, nearest_faces, split_of
from lookahead.dataset.faces import unit
from lookahead.dataset.shards import list_shards, read_pictures
from lookahead.errors import InputError
from tests.modules import ROOT
from tests.project import PROTOCOL, write_protocol
from tests.tiny import ENCODING, build_portraits

A, B, C = np.eye(3, dtype=np.float32)
NUMBERS = {"previews.people": 2, "diversity.people": 2, "steering": None}


@pytest.fixture
def world(
    tiny_world: Checkpoints, settings: Generate, prompts_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> World:
    """The tiny world in a folder without portraits, whose protocol names two people."""
    monkeypatch.chdir(tmp_path)
    write_protocol(Path("protocols/tiny.yaml"), "portraits", **PROTOCOL | {"people": 2, "prompts": str(prompts_file)})
    committed = read_params(ROOT / "params.yaml").worlds["miniature"]
    own = {"name": "tiny", "checkpoints": tiny_world, "generate": settings, "features": ENCODING}
    return committed.model_copy(update=own | {"evaluate": with_overrides(committed.evaluate, NUMBERS)})


def evaluating(world: World, **changes: object) -> World:
    return world.model_copy(update={"evaluate": with_overrides(world.evaluate, changes)})


def test_a_fifth_is_held_out_by_the_index_alone_and_nobody_of_a_large_set_beyond_the_first() -> None:
    splits = Counter(map(split_of, range(100_000)))
    assert splits == {"test": 200, "validation": 200, "search": 200, None: 100_000 - FIRST // 5}
    assert [split_of(number) for number in (0, 1, 5, 10, 15)] == ["test", None, "validation", "search", "test"]


REFUSED: list[tuple[str, Callable[[World], World]]] = [
    ("diversity.people is 3, but evaluate.people only 2", lambda world: evaluating(world, **{"diversity.people": 3})),
    ("diversity.prompts is 9: there are a photo and 2", lambda world: evaluating(world, **{"diversity.prompts": 9})),
    ("previews.people is 3, but 2 people have a second", lambda world: evaluating(world, **{"previews.people": 3})),
]


@pytest.mark.parametrize(("said", "change"), REFUSED, ids=lambda value: str(value)[:20])
def test_an_evaluation_that_contradicts_itself_is_refused_before_anything_is_drawn(
    world: World, said: str, change: Callable[[World], World]
) -> None:
    build_portraits(Path("portraits/test"), 2)
    check_evaluation(world)
    with pytest.raises(InputError, match=said):
        check_evaluation(change(world))


def test_portraits_that_are_too_few_or_show_no_face_are_refused_before_anything_is_drawn(world: World) -> None:
    portraits = build_portraits(Path("portraits/test"), 1)
    with pytest.raises(InputError, match="2 people are asked for, but portraits/test holds only 1"):
        check_evaluation(world)
    build_portraits(portraits, 2)
    for photo in portraits.glob("001/[12].jpg"):
        photo.unlink()
    with pytest.raises(InputError, match=r"previews\.people is 2, but 1 people have a second photo"):
        check_evaluation(world)
    steered = {"steering": {"strength": 0.2, "timestep_min": 300, "timestep_max": 700, "preview_steps": 1}}
    check_evaluation(evaluating(world, **steered, **{"previews.people": 1}))
    with pytest.raises(InputError, match=r"steering\.strength is 0"):
        check_evaluation(
            evaluating(world, **{"steering": steered["steering"] | {"strength": 0.0}, "previews.people": 1})
        )
    Image.new("RGB", (64, 64)).save(portraits / "001" / "0.jpg")
    with pytest.raises(InputError, match=r"no face is found by pack `select` in .*portraits/test/001/0\.jpg"):
        check_evaluation(evaluating(world, **{"previews.people": 1}))


def test_without_portraits_there_must_be_enough_invented_people_to_hold_out(world: World) -> None:
    with pytest.raises(InputError, match="of 3 invented people only 1 would be held out"):
        check_evaluation(world)
    check_evaluation(world.model_copy(update={"generate": world.generate.model_copy(update={"people": 16})}))


def test_who_looks_like_somebody_of_the_evaluation_is_left_out(world: World, dataset: Path, tmp_path: Path) -> None:
    build_portraits(Path("portraits/validation"), 2)
    nobody, metrics = leave_out(world, dataset, tmp_path)
    assert nobody == set() and metrics["evaluation_people"] == 2
    limit = {"max_evaluation_similarity": metrics["nearest"] - 1e-4}
    stricter = world.model_copy(update={"features": ENCODING.model_copy(update=limit)})
    somebody, others = leave_out(stricter, dataset, tmp_path)
    assert len(somebody) == others["left_out"] == 1 and others["nearest"] < metrics["nearest"]
    with pytest.raises(InputError, match="all 3 people look like"):
        leave_out(with_overrides(world, {"features.max_evaluation_similarity": -1.0}), dataset, tmp_path)


def test_the_mean_of_the_photos_is_compared_with_the_nearest_face() -> None:
    photos = pd.DataFrame({"identity": [4, 4, 6]}, index=[0, 1, 4])
    found = nearest_faces(photos, np.stack([A, B, C, C, C]), np.stack([A, unit(A + 2 * B)]))
    assert found.to_dict() == pytest.approx({4: 3 / np.sqrt(10), 6: 0.0})


def test_without_portraits_some_invented_people_are_held_out_and_their_photos_written(
    world: World, dataset: Path, tmp_path: Path
) -> None:
    source = tmp_path / "generated"
    source.mkdir()
    (source / "shards").symlink_to(dataset / "shards")
    table = pq.read_table(dataset / "table.parquet")
    who = pa.array([[0, 15, 16][number // 5] for number in range(15)])
    pq.write_table(
        table.set_column(table.schema.get_field_index("identity"), "identity", who), source / "table.parquet"
    )
    left_out, metrics = leave_out(world, source, tmp_path / "runs/tiny/features")
    assert left_out == {0, 15} and metrics == {"held_out": 2.0}
    pictures = dict(picture for shard in list_shards(dataset) for picture in read_pictures(shard))
    folder = Path(world.evaluation().portraits)
    written = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}
    expected = {
        f"{identity:06d}/{first + i:08d}.png": first + i for identity, first in ((0, 0), (15, 5)) for i in range(3)
    }
    assert written == {name: pictures[index] for name, index in expected.items()}
    with pytest.raises(InputError, match="only 1 passed the face check"):
        leave_out(world, dataset, tmp_path / "again")
