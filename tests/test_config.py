"""`params.yaml` and its strict mirror: what is accepted, and what the error says."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides

from lookahead.config import Params, Section, merged, parse_params, read_params
from lookahead.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"


@pytest.fixture
def tree() -> dict[str, Any]:
    """The parameters with every world spelt out."""
    loaded: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    defaults = loaded.pop("defaults")
    loaded["worlds"] = {name: merged(defaults, world) for name, world in loaded["worlds"].items()}
    return copy.deepcopy(loaded)


def put(tree: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    for name in parents:
        tree = tree[name]
    tree[last] = value


def test_the_committed_file_is_valid_and_has_all_worlds() -> None:
    params = read_params(PARAMS)
    assert set(params.worlds) == {"miniature", "sd15", "sdxl", "sdxl_paper"}
    assert params.active == params.worlds[params.world]


def test_no_section_has_a_default() -> None:
    sections = list(Section.__subclasses__())
    for section in sections:
        sections += section.__subclasses__()
        assert all(field.is_required() for field in section.model_fields.values()), section
    assert Params in sections


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("world", "minature", "minature"),
        (
            "worlds.miniature.train.steps",
            "300",
            "train.steps: Input should be a valid integer (got '300')",
        ),
        ("worlds.miniature.train.activation_memory_budget", 0.5, "memory_budget is 0.5, which needs compile: true"),
        ("worlds.miniature.train.stepz", 300, "stepz"),
        ("worlds.miniature.train.lookahead.preview.model", "lcn", "'lcm' or 'naive'"),
        ("worlds.miniature.train.lookahead.density.timestep_max", 1000, "1000"),
        ("worlds.miniature.train.lookahead.density.strength", -1.1, "-1.1: choose -1.0 to 1.0"),
        ("worlds.miniature.train.lookahead.preview.gradient_steps", 2, "gradient_steps (2) is above steps (1)"),
        ("worlds.miniature.train.lookahead.lora_scale.high", 0.05, "low (0.1) is above high (0.05): swap them"),
        ("worlds.miniature.evaluate.steering.timestep_max", 100, "timestep_min (300) is above timestep_max (100)"),
        ("worlds.miniature.evaluate.people", 48, "evaluate.people"),  # which is the protocol's
        ("worlds.miniature", None, "worlds.miniature lacks checkpoints"),
        ("tracking.enabled", "yes", "tracking.enabled"),
    ],
)
def test_a_bad_value_is_named_with_its_place(tree: dict[str, Any], path: str, value: object, said: str) -> None:
    put(tree, path, value)
    with pytest.raises(InputError) as caught:
        parse_params(tree)
    assert said in str(caught.value)


def test_every_mistake_is_listed_at_once(tree: dict[str, Any]) -> None:
    put(tree, "worlds.miniature.train.steps", 0)
    put(tree, "worlds.sdxl.evaluate.batch_size", 0)
    with pytest.raises(InputError) as caught:
        parse_params(tree)
    assert "miniature.train.steps" in str(caught.value) and "sdxl.evaluate.batch" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("world: [", "not valid YAML"),
        ("world: miniature\nworld: sdxl\n", "not valid YAML"),
        ("- a\n- b\n", "holds list"),
        ("", "holds NoneType"),
    ],
)
def test_a_file_that_is_no_mapping_of_single_keys_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_params(path)


def test_a_world_inherits_what_it_does_not_state(tree: dict[str, Any]) -> None:
    defaults = {"train": {"lookahead": {"weight": 0.7, "lora_scale": {"low": 0.3}}}}
    del tree["worlds"]["miniature"]["train"]["lookahead"]["weight"]
    train = parse_params(tree | {"defaults": defaults}).worlds["miniature"].train
    assert train.lookahead.weight == 0.7 and train.lookahead.lora_scale.low == 0.1  # its own is stated


def test_a_world_states_every_section_for_dvc(tree: dict[str, Any]) -> None:
    del tree["worlds"]["sdxl"]["photos"]
    with pytest.raises(InputError, match=r"worlds\.sdxl lacks photos: write `photos: \{\}`"):
        parse_params(tree | {"defaults": {}})


OVERRIDES = {  # as `dvc exp run -S` takes them: a number, an inherited one in a nested section, a list, a small number
    "++worlds.miniature.train.steps=7": lambda world: world.train.steps == 7,
    "++worlds.miniature.train.lookahead.lora_scale.low=0.25": lambda world: (
        world.train.lookahead.lora_scale.low == 0.25
    ),
    "++worlds.miniature.evaluate.previews.timesteps=[9,99]": lambda world: world.evaluate.previews.timesteps == [9, 99],
    "++worlds.miniature.train.learning_rate=1e-5": lambda world: world.train.learning_rate == 1e-5,
}


@pytest.mark.parametrize("override", OVERRIDES)
def test_an_override_of_dvc_changes_this_world_alone(tmp_path: Path, override: str) -> None:
    path = Path(shutil.copy(PARAMS, tmp_path / "params.yaml"))
    apply_overrides(path, [override])
    assert OVERRIDES[override](read_params(path).worlds["miniature"])
    assert read_params(path).worlds["sdxl"] == read_params(PARAMS).worlds["sdxl"]


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run from the repository's root"):
        read_params(tmp_path / "params.yaml")
