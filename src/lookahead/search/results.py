"""What people look at after a search: tables, figures, one self-contained page, and the setting to adopt."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.visualization import matplotlib as visualization

from lookahead.artifacts import atomic, write_json
from lookahead.config import Search, World
from lookahead.evaluation.contrasts import summary
from lookahead.report.figures import save_axes
from lookahead.report.search import SearchFindings, save_front, write_search_report
from lookahead.search.confirm import DEFAULT, RULE, Confirmation, complete
from lookahead.search.scores import METRICS, Scores, as_table, mean_scores
from lookahead.search.space import as_overrides, present
from lookahead.search.trial import REASON, SCORES


@dataclass(frozen=True)
class Outcome:
    """A finished study with its confirmation, in a world."""

    name: str  # of the world
    world: World
    search: Search
    study: optuna.Study
    untuned: Scores
    confirmation: Confirmation


def trials_table(study: optuna.Study, parameters: list[str]) -> pd.DataFrame:
    """One row a trial: number, state, drawn values, means of both figures, front, and why it failed."""
    table = study.trials_dataframe(attrs=("number", "state", "params", "user_attrs"))
    table = table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))
    table = table.reindex(columns=["number", "state", *parameters, *METRICS, REASON])
    table = table.astype({REASON: object}).fillna({REASON: ""}).assign(state=table["state"].str.lower())
    table.loc[(table["state"] == "fail") & (table[REASON] == ""), REASON] = "its worker stopped; it was run again"
    front = [trial.number for trial in study.best_trials]
    return table.assign(front=table["number"].isin(front))


def changes_of(outcome: Outcome) -> dict[str, Any]:
    """The recommended setting's parameters below `train` that differ from `params.yaml`."""
    recommended, space = outcome.confirmation.recommended, outcome.search.space
    if recommended == DEFAULT:
        return {}
    now = as_overrides(space, present(space, outcome.world.train))
    wanted = as_overrides(space, outcome.study.get_trials()[recommended].params)
    return {path: value for path, value in wanted.items() if path not in now or now[path] != value}


def save_patch(changes: dict[str, Any], name: str, path: Path) -> None:
    """Write changes below `train` of a world as a patch of `params.yaml`."""
    tree: dict[str, Any] = {}
    for dotted, value in changes.items():
        node = tree
        *parents, last = f"worlds.{name}.train.{dotted}".split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
    head = "# A patch of params.yaml: `lookahead adopt` shows it and applies it. Empty: params.yaml stays as it is.\n"
    with atomic(path) as temporary:
        temporary.write_text(head + yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def verdict(confirmation: Confirmation) -> str:
    """One sentence: what is recommended, and by how much it is better where the search never looked."""
    if confirmation.contrasts.empty:
        return "Nothing is recommended: params.yaml's own setting, or every other one, could not be confirmed."
    if confirmation.recommended == DEFAULT:
        return "params.yaml stays: no confirmed setting is better in one figure and no worse in the other."
    rows = confirmation.contrasts[confirmation.contrasts["cell"] == str(confirmation.recommended)]
    told = [f"{r.metric} {r.mean:+.3f} [{r.low:+.3f}, {r.high:+.3f}], {r.verdict}" for r in rows.itertuples()]
    where = "against params.yaml, with fresh seeds on people that the search never saw"
    return f"Trial {confirmation.recommended} is recommended; {where}: {'; '.join(told)}."


def _means(frame: pd.DataFrame) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for row in frame.to_dict("records"):
        found.setdefault(row["cell"], {})[row["metric"]] = {end: row[end] for end in ("mean", "low", "high")}
    return found


def write_results(outcome: Outcome, out: Path) -> None:
    """Write `best.yaml`, `trials.csv`, `contrasts.csv`, `metrics.json`, `report.html` and the figures into `out`."""
    study, search, confirmation = outcome.study, outcome.search, outcome.confirmation
    trials, changes, confirm = trials_table(study, list(search.space)), changes_of(outcome), search.confirm
    own = {(trial.number, search.seed): trial.user_attrs[SCORES] for trial in complete(study)}
    findings = SearchFindings(
        title=f"{study.study_name}, {outcome.name}",
        description=(
            f"Mode {search.mode}: trials of {search.steps} steps, scored on {search.people} people of the split "
            f"{search.split}, with the same seeds in each; confirmed at full length with {len(confirm.seeds)} fresh "
            f"seeds on {confirm.people} people of the split {confirm.split}. Identity by recogniser select, a missing "
            "face counts 0."
        ),
        rule=RULE,
        verdict=verdict(confirmation),
        trials=trials,
        parameters=list(search.space),
        searched=summary(as_table(own), METRICS),
        confirmed=confirmation.means,
        contrasts=confirmation.contrasts,
        default=DEFAULT,
        recommended=confirmation.recommended,
        changes=changes,
    )
    untuned = mean_scores(outcome.untuned)
    figures = {"front": out / "front.png"}
    save_front(findings, (untuned["identity"], untuned["prompt"]), search.prompt_loss, figures["front"])
    figures |= save_figures(study, search, out)
    for name, table in {"trials": trials, "contrasts": confirmation.contrasts}.items():
        with atomic(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    metrics = {
        "study": study.study_name,
        "mode": search.mode,
        "trials": trials["state"].value_counts().to_dict(),
        "front": trials.loc[trials["front"], "number"].tolist(),
        "recommended": confirmation.recommended,
        "untuned": untuned,
        confirm.split: _means(confirmation.means),
        "difference": _means(confirmation.contrasts),
    }
    write_json(out / "metrics.json", metrics)
    save_patch(changes, outcome.name, out / "best.yaml")
    write_search_report(findings, figures, out / "report.html")


def save_figures(study: optuna.Study, search: Search, out: Path) -> dict[str, Path]:
    """Save Optuna's figures of both objectives by title; those for which there are too few trials are left out."""
    saved: dict[str, Path] = {}
    shared = sorted(set.intersection(*(set(trial.params) for trial in complete(study))))

    def save(name: str, plot: Callable[..., Any], metric: str, sign: int = 1, **options: Any) -> None:
        try:
            axes = plot(study, target=lambda trial: sign * trial.user_attrs[metric], target_name=metric, **options)
        except (ValueError, RuntimeError):  # too few trials, or a parameter that never varied
            return
        saved[f"{name}, {metric}"] = out / f"{name} {metric}.png".replace(" ", "_")
        save_axes(axes, saved[f"{name}, {metric}"])

    for metric in METRICS:
        save("history", visualization.plot_optimization_history, metric)
        # Negative, because PED-ANOVA asks what decides whether a value is low; of parameters that every trial has.
        save("importances", visualization.plot_param_importances, metric, -1, params=shared)
        save("slices", visualization.plot_slice, metric)
        for pair in search.contours:
            save(" ".join(["contour", *pair]), visualization.plot_contour, metric, params=pair)
    return saved
