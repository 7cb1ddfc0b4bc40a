"""What people look at after a search: tables, figures, one self-contained page, and the setting to adopt."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from optuna.trial import FrozenTrial
from optuna.visualization import matplotlib as visualization

from lookahead.artifacts import atomic, write_json
from lookahead.config import Search, World
from lookahead.report.figures import save_axes
from lookahead.report.search import SearchFindings, save_front, write_search_report
from lookahead.search.confirm import DEFAULT, RULE, Confirmation, complete
from lookahead.search.scores import METRICS, Scores, as_table, mean_scores
from lookahead.search.space import as_overrides, present
from lookahead.search.trial import REASON, SCORES
from lookahead.evaluation.contrasts import summary


@dataclass(frozen=True)
class Outcome:
    """A finished study with its confirmation, in a world."""

    name: str  # of the world
    world: World
    search: Search
    study: optuna.Study
    untuned: Scores
    confirmation: Confirmation


def trials_table(study: optuna.Study, space: dict[str, Any]) -> pd.DataFrame:
    """One row a trial: number, state, drawn values, means of both figures, front, and why it failed."""
    table = study.trials_dataframe(attrs=("number", "state", "params", "user_attrs"))
    table = table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))
    table = table.reindex(columns=["number", "state", *space, *METRICS, REASON])
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
        return (
            "params.yaml stays: no confirmed setting is better in one figure and, within prompt_loss, not worse in the "
            "other."
        )
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
    """Write `best.yaml`, `trials.csv`, `confirmation.csv`, `contrasts.csv`, `metrics.json`, `report.html`, figures.

    Raises:
        InputError: a file cannot be written.
    """
    study, search, confirmation = outcome.study, outcome.search, outcome.confirmation
    trials, changes = trials_table(study, search.space), changes_of(outcome)
    own = {(trial.number, search.seed): trial.user_attrs[SCORES] for trial in complete(study)}
    confirm, people = search.confirm, f"people of the split {search.split}"
    findings = SearchFindings(
        title=f"{study.study_name}, {outcome.name}",
        description=(
            f"Mode {search.mode}: trials of {search.steps} steps, scored on {search.people} {people}, with the same "
            f"seeds in each; confirmed at full length with {len(confirm.seeds)} fresh seeds on {confirm.people} people "
            f"of the split {confirm.split}. Identity by recogniser select, a missing face counts 0."
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
    figures = {"front": out / "front.png"}
    means = mean_scores(outcome.untuned)
    save_front(findings, (means["identity"], means["prompt"]), search.prompt_loss, figures["front"])
    figures |= save_figures(study, search, out)
    tables = {"trials": trials, "confirmation": confirmation.means, "contrasts": confirmation.contrasts}
    for name, table in tables.items():
        with atomic(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    write_json(out / "metrics.json", metrics(outcome, trials))
    save_patch(changes, outcome.name, out / "best.yaml")
    write_search_report(findings, figures, out / "report.html")


def metrics(outcome: Outcome, trials: pd.DataFrame) -> dict[str, object]:
    """The numbers of `metrics.json`: the study's size, what is recommended, and means with intervals."""
    return {
        "study": outcome.study.study_name,
        "mode": outcome.search.mode,
        "trials": trials["state"].value_counts().to_dict(),
        "front": trials.loc[trials["front"], "number"].tolist(),
        "recommended": outcome.confirmation.recommended,
        "untuned": mean_scores(outcome.untuned),
        outcome.search.confirm.split: _means(outcome.confirmation.means),
        "difference": _means(outcome.confirmation.contrasts),
    }


def save_figures(study: optuna.Study, search: Search, out: Path) -> dict[str, Path]:
    """Save Optuna's figures of both objectives, where there are enough trials to draw them, by title."""
    done, saved = complete(study), {}
    shared = sorted(set.intersection(*(set(trial.params) for trial in done)))  # a few trials decide no importance

    for metric in METRICS:

        def target(trial: FrozenTrial, metric: str = metric) -> float:
            return float(trial.user_attrs[metric])

        options: dict[str, Any] = {"target": target, "target_name": metric}
        plots = {
            "history": lambda: visualization.plot_optimization_history(study, **options),
            # Negative, because PED-ANOVA asks what decides whether a value is among the lowest.
            "importances": lambda: visualization.plot_param_importances(
                study, params=shared, target=lambda trial: -target(trial), target_name=metric
            ),
            "slices": lambda: visualization.plot_slice(study, **options),
        }
        for one, other in search.contours:
            plots[f"contour {one} {other}"] = lambda a=one, b=other: visualization.plot_contour(study, [a, b], **options)
        for name, plot in plots.items():
            try:
                axes = plot()
            except (ValueError, RuntimeError):  # too few trials, or none that varies
                continue
            title = f"{name}, {metric}"
            saved[title] = out / f"{name} {metric}.png".replace(" ", "_")
            save_axes(axes, saved[title])
    return saved
