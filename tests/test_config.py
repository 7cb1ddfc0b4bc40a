"""`params.yaml` and its strict mirror: what is accepted, and what the error says."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from lookahead import config
from lookahead.config import parse_params, read_params
from lookahead.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def tree() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    return copy.deepcopy(loaded)


def put(tree: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


def test_the_committed_file_is_valid_and_has_both_worlds() -> None:
    params = read_params(PARAMS)
    assert set(params.worlds) == {"miniature", "sdxl"}
    assert params.active == params.worlds[params.world]


def test_no_section_has_a_default() -> None:
    sections = [s for s in vars(config).values() if isinstance(s, type) and issubclass(s, BaseModel)]
    for section in sections:
        assert all(field.is_required() for field in section.model_fields.values()), section


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("world", "minature", "minature"),
        ("worlds.miniature.train.steps", 0, "worlds.miniature.train.steps"),
        ("worlds.miniature.train.steps", -5, "-5"),
        ("worlds.miniature.train.steps", 2.5, "2.5"),
        ("worlds.miniature.train.steps", "300", "'300'"),
        ("worlds.miniature.train.memory_budget", 0.5, "memory_budget is 0.5, which needs compile: true"),
        ("worlds.miniature.train.learning_rate", 0.0, "learning_rate"),
        ("worlds.miniature.train.learning_rate", None, "learning_rate"),
        ("worlds.miniature.train.image_dropout", 1.5, "1.5"),
        ("worlds.miniature.train.stepz", 300, "stepz"),
        ("worlds.miniature.train.lookahead.preview.model", "lcn", "'lcm' or 'naive'"),
        ("worlds.miniature.train.lookahead.density.timestep_max", 1000, "1000"),
        ("worlds.miniature.train.lookahead.density.timestep_min", 999, None),
        ("worlds.miniature.train.lookahead.lora_scale.low", 1.1, "lora_scale.low"),
        ("worlds.miniature.train.lookahead.density.strength", -1.1, "-1.1: choose -1.0 to 1.0"),
        ("worlds.miniature.train.lookahead.density.kind", "sine", "density.kind"),
        ("worlds.miniature.train.lookahead.preview.gradient_steps", 2, "gradient_steps (2) is above steps (1)"),
        ("worlds.miniature.train.kv.token_drop", 1.0, "token_drop"),
        ("worlds.miniature.train.schedule", "step", "train.schedule"),
        ("worlds.miniature.train.ema", 1.0, "train.ema"),
        ("worlds.miniature.generate.photos", 1, "generate.photos"),
        ("worlds.miniature.generate.min_photo_similarity", 2.0, "min_photo_similarity"),
        ("worlds.miniature.generate.seed", -1, "generate.seed"),
        ("worlds.miniature.evaluate.people", 48, "evaluate.people"),
        ("worlds.miniature.evaluate.steering", None, None),
        ("worlds.miniature.evaluate.steering.strength", -0.1, "evaluate.steering.strength"),
        ("worlds.miniature.checkpoints.precision", "int8", "precision"),
        ("worlds.miniature.checkpoints.base", None, "checkpoints.base"),
        ("tracking.enabled", "yes", "tracking.enabled"),
        ("trackign", {}, "trackign"),
    ],
)
def test_a_bad_value_is_named_with_its_place(tree: dict[str, Any], path: str, value: object, said: str | None) -> None:
    put(tree, path, value)
    if said is None:
        assert parse_params(tree)
        return
    with pytest.raises(InputError) as caught:
        parse_params(tree)
    assert said in str(caught.value)


def test_a_missing_value_is_named(tree: dict[str, Any]) -> None:
    del tree["worlds"]["sdxl"]["train"]["max_grad_norm"]
    with pytest.raises(InputError, match=r"worlds\.sdxl\.train\.max_grad_norm: Field required"):
        parse_params(tree)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("worlds.miniature.train.lookahead.lora_scale", {"low": 0.9, "high": 0.2}, "swap them"),
        ("worlds.miniature.train.lookahead.density", {"timestep_min": 900, "timestep_max": 100}, "timestep_min"),
        ("worlds.miniature.evaluate.steering", {"timestep_min": 900, "timestep_max": 100}, "swap them"),
    ],
)
def test_values_that_contradict_each_other_are_refused(
    tree: dict[str, Any], path: str, value: dict[str, Any], said: str
) -> None:
    for name, part in value.items():
        put(tree, f"{path}.{name}", part)
    with pytest.raises(InputError, match=said):
        parse_params(tree)


def test_every_mistake_is_listed_at_once(tree: dict[str, Any]) -> None:
    put(tree, "worlds.miniature.train.steps", 0)
    put(tree, "worlds.sdxl.evaluate.batch", 0)
    with pytest.raises(InputError) as caught:
        parse_params(tree)
    assert "miniature.train.steps" in str(caught.value) and "sdxl.evaluate.batch" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"), [("world: [", "not valid YAML"), ("- a\n- b\n", "holds list"), ("", "holds NoneType")]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_params(path)


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run from the repository's root"):
        read_params(tmp_path / "params.yaml")


def test_parameters_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_params(PARAMS).world = "sdxl"  # type: ignore[misc]
