"""What MLflow's pages show: an experiment's description and table, a reproduction's parameters and description."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from PIL import Image

from lookahead.config import Params

if TYPE_CHECKING:
    from mlflow import MlflowClient

LONGEST = 500  # characters of a parameter
SHOWN = ("identity", "prompt", "gain_identity", "gain_prompt", "tuning_identity", "tuning_prompt", "detected")
NOTE, HEADLINE_TAG = "mlflow.note.content", "mlflow.sharedViewState.headline"
HEADLINE_VIEW = {  # of the table of runs, as MLflow's *Share* keeps a view
    "searchFilter": "tags.`lookahead.kind` = 'reproduction'",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "selectedColumns": ["attributes.`Created`", *(f"metrics.`{name}`" for name in SHOWN)],
}
GUIDE = """A **reproduction** is one run of the chain, of one commit and one set of parameters; its stages are below it.

- [The table with the headline figures]({table})
- Tick two reproductions and click *Compare*: parameters that differ, figures, pictures.
- Curves and pictures of a training are in the runs of the stages `train/...`."""
TABLE, GRID = "headline.md", "grids/people.png"  # of the stage `evaluate`


def headline_page(experiment: str) -> str:
    """The address of that view, within MLflow's pages for training (they open with those for agents)."""
    return f"#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey=headline"


def introduce(client: MlflowClient, experiment: str) -> None:
    """Describe an experiment, and keep a view of its table that shows the headline figures."""
    client.set_experiment_tag(experiment, NOTE, GUIDE.format(table=headline_page(experiment)))
    client.set_experiment_tag(experiment, HEADLINE_TAG, json.dumps(HEADLINE_VIEW))


def flatten(tree: object, prefix: str = "") -> dict[str, object]:
    """The leaves of nested mappings by dotted name; an entry `a.b` after a mapping `a` replaces the leaf `b` in it."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    pairs = ((f"{prefix}.{name}" if prefix else str(name), value) for name, value in tree.items())
    return {key: leaf for name, value in pairs for key, leaf in flatten(value, name).items()}


def differing(params: Params, world: str) -> dict[str, str]:
    """The parameters by which a world differs from the defaults, those that only it has included."""
    defaults, own = flatten(params.defaults), flatten(params.of(world).model_dump(mode="json", exclude={"name"}))
    usual = {name: str(value) for name, value in defaults.items()}
    return {name: str(value)[:LONGEST] for name, value in own.items() if str(value) != usual.get(name)}


def describe(client: MlflowClient, reproduction: str, evaluation: str, out: Path) -> None:
    """Describe a reproduction by the output of its evaluation's run: headline, picture, and a link to the report."""
    parts = [(out / TABLE).read_text(encoding="utf-8")]
    if (out / GRID).is_file():
        client.log_image(reproduction, Image.open(out / GRID).convert("RGB"), key="people", step=0, synchronous=True)
        names = [entry.path for entry in client.list_artifacts(reproduction, "images")]
        picture = quote(max(name for name in names if name.endswith(".png")), safe="")
        parts.append(f"![people](get-artifact?path={picture}&run_uuid={reproduction})")
    experiment = client.get_run(reproduction).info.experiment_id
    parts.append(f"[The report and all tables](#/experiments/{experiment}/runs/{evaluation}/artifacts)")
    client.set_tag(reproduction, NOTE, "\n\n".join(parts))
