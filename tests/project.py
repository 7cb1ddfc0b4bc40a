"""A whole project of the tiny world in a folder of its own: parameters, prompts, checkpoints, portraits."""

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import yaml

from lookahead.config import Checkpoints, merged
from tests.modules import ROOT
from tests.tiny import TREE, build_portraits

WORLD = "tiny"
STAGES = ("generate", "features", "train", "evaluate")
_GENERATE = {"people": 3, "photos": 3, "stylised": 2, "batch_size": 5, "shard_size": 6, "min_images": 2}
_GENERATE |= {"min_photo_similarity": -1.0, "min_stylised_similarity": -1.0}
_TRAIN = {"steps": 4, "batch_size": 2, "lr_warmup_steps": 2, "checkpoint_every": 2, "sample_every": 2}
_TRAIN |= {"num_samples": 2, "sample_num_inference_steps": 2}
PROTOCOL = {"people": 3, "photo_prompts": 1, "num_inference_steps": 2, "prompts": f"prompts/{WORLD}.yaml"}
_EVALUATE = {
    "batch_size": 9,
    "grid_people": 2,
    "previews": {"people": 2, "timesteps": [100, 900], "scales": [0.0, 1.0]},
    "diversity": {"people": 2, "prompts": 1, "seeds": 2},
}


def tree_of(checkpoints: Checkpoints) -> dict[str, Any]:
    """The committed parameters, with the tiny world as a further one, small numbers in it, and tracking off."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    world = yaml.safe_load(yaml.safe_dump(merged(tree["defaults"], tree["worlds"]["miniature"])))
    here = checkpoints.model_dump_json().replace(str(Path(checkpoints.base).parent), f"models/{WORLD}")
    world["checkpoints"] = yaml.safe_load(here)
    world["generate"] |= _GENERATE | {"prompts": f"prompts/{WORLD}.yaml"}
    world["photos"]["prompts"] = f"prompts/{WORLD}.yaml"
    world["features"] |= {"batch_size": 5, "max_evaluation_similarity": 1.0}
    world["train"] |= _TRAIN
    world["evaluate"] |= _EVALUATE
    tree["worlds"][WORLD], tree["world"], tree["tracking"]["enabled"] = world, WORLD, False
    return tree


def save_tree(root: Path, tree: dict[str, Any]) -> None:
    """Write the parameters."""
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def build_project(root: Path, checkpoints: Checkpoints) -> Path:
    """Write a project whose commands run in `root`; the code stays where it is installed."""
    shutil.copytree(Path(checkpoints.base).parent, root / "models" / WORLD)
    build_portraits(root / "models" / WORLD / "portraits" / "test", 4)
    for split in ("search", "validation"):
        (root / "models" / WORLD / "portraits" / split).mkdir()
    (root / "prompts").mkdir()
    (root / "photos").mkdir()
    (root / "prompts" / f"{WORLD}.yaml").write_text(yaml.safe_dump(TREE, sort_keys=False), encoding="utf-8")
    shutil.copytree(ROOT / "stages", root / "stages", ignore=shutil.ignore_patterns("__pycache__"))
    write_protocol(root / "protocols" / f"{WORLD}.yaml", f"models/{WORLD}/portraits", **PROTOCOL)
    save_tree(root, tree_of(checkpoints))
    return root


def write_protocol(path: Path, portraits: str, **changes: object) -> Path:
    """Write the miniature's protocol with changes, the splits being folders in `portraits`."""
    tree = yaml.safe_load((ROOT / "protocols" / "miniature.yaml").read_text(encoding="utf-8"))
    splits = {split: f"{portraits}/{split}" for split in tree["splits"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree | {"splits": splits} | changes, sort_keys=False), encoding="utf-8")
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """The bytes of every file below a folder."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def column_of(folder: Path, name: str) -> list[object]:
    """A column of a dataset's table."""
    values: list[object] = pq.read_table(folder / "table.parquet")[name].to_pylist()
    return values


def copy_shards(dataset: Path, work: Path) -> Path:
    """A workspace in which everything is drawn and nothing is checked."""
    shutil.copytree(dataset / "shards", work / "shards")
    return work


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: a write fails as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
