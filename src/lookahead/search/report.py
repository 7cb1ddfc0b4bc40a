"""What people look at after a search: tables, figures, one self-contained page, and the setting to adopt."""

from __future__ import annotations

from pathlib import Path

import yaml

from lookahead.artifacts import atomic, write_json
from lookahead.config import World
from lookahead.report.pages import inline_png, save_page
from lookahead.search.figures import save_figures
from lookahead.search.front import DEFAULT, RULE, complete
from lookahead.search.space import Changes, as_changes, present
from lookahead.search.study import SLOT
from lookahead.search.tables import Outcome, front_table, metrics, save_table, trials_table


def write_results(outcome: Outcome, name: str, world: World, out: Path) -> None:
    """Write `best.yaml`, `trials.csv`, `front.csv`, `metrics.json`, `report.html` and the figures into `out`.

    Raises:
        InputError: a file cannot be written.
    """
    trials = trials_table(outcome)
    front = front_table(outcome, trials)
    figures = save_figures(outcome, trials, out)
    save_table(trials, out / "trials.csv")
    save_table(front, out / "front.csv")
    write_json(out / "metrics.json", metrics(outcome))
    changes = best_changes(outcome, world)
    _save_patch(changes, name, out / "best.yaml")
    content: dict[str, object] = {
        "outcome": outcome,
        "world": name,
        "rule": RULE,
        "verdict": verdict(outcome),
        "changes": changes,
        "front": front.to_dict("records"),
        "names": list(outcome.search.space),
        "failed": trials[trials["reason"] != ""].to_dict("records"),
        "default": DEFAULT,
        "pictures": {figure: inline_png(out / f"{figure}.png") for figure in figures},
    }
    save_page("search.html.j2", out / "report.html", content)


def best_changes(outcome: Outcome, world: World) -> Changes:
    """The recommended setting's parameters below `train` that differ from `params.yaml`."""
    if outcome.recommended == DEFAULT:
        return {}
    trial = next(t for t in complete(outcome.study) if t.user_attrs[SLOT] == outcome.recommended)
    space = outcome.search.space
    now = as_changes(space, present(space, world.train))
    wanted = as_changes(space, trial.params)
    return {path: value for path, value in wanted.items() if path not in now or now[path] != value}


def _save_patch(changes: Changes, name: str, path: Path) -> None:
    tree: dict[str, object] = {}
    for dotted, value in changes.items():
        node = tree
        *parents, last = f"worlds.{name}.train.{dotted}".split(".")
        for parent in parents:
            node = node.setdefault(parent, {})  # type: ignore[assignment]
        node[last] = value
    head = "# A patch of params.yaml: `lookahead adopt` shows it and applies it. Empty: params.yaml stays as it is.\n"
    with atomic(path) as temporary:
        temporary.write_text(head + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def verdict(outcome: Outcome) -> str:
    """One sentence: what is recommended, and by how much it is better where the search never looked."""
    if not outcome.confirmed:
        return "Nothing is recommended: params.yaml's own setting, or every other one, could not be confirmed."
    if outcome.recommended == DEFAULT:
        return "params.yaml stays: no confirmed setting beats it in one figure without a significant loss in the other."
    one = next(one for one in outcome.confirmed if one.slot == outcome.recommended)
    told = [f"{name} {told_interval(value.measured(), True)}" for name, value in one.differences.items()]
    where = "against params.yaml, with fresh seeds on people that the search never saw"
    return f"Trial {one.slot} is recommended; {where}: {', '.join(told)}."


def told_interval(value: tuple[float, float, float], signed: bool) -> str:
    """A mean with its interval, as the page shows it."""
    sign = "+" if signed else ""
    mean, low, high = value
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
