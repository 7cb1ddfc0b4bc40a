"""What people look at after a search: tables, figures, one self-contained page, and the setting to adopt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from matplotlib import rc_context
from optuna.visualization import matplotlib as visualization

from lookahead.artifacts import atomic, write_json
from lookahead.config import Search
from lookahead.evaluation.contrasts import summary
from lookahead.report.figures import save_axes
from lookahead.report.search import SearchFindings, save_front, write_search_report
from lookahead.search.confirm import DEFAULT, RULE, Confirmation, as_table
from lookahead.search.objective import METRICS, SCORES, Scores, Task, mean_scores
from lookahead.search.space import as_overrides, present
from lookahead.search.study import REASON, complete


def trials_table(study: optuna.Study, parameters: list[str]) -> pd.DataFrame:
    """One row a trial: number, state, drawn values, means of both figures, front, and why it failed."""
    table = study.trials_dataframe(attrs=("number", "state", "params", "user_attrs"))
    table = table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))
    table = table.reindex(columns=["number", "state", *parameters, *METRICS, REASON])
    table = table.astype({REASON: object}).fillna({REASON: ""}).assign(state=table["state"].str.lower())
    table.loc[(table["state"] == "fail") & (table[REASON] == ""), REASON] = "its worker stopped; it was run again"
    front = [trial.number for trial in study.best_trials]
    return table.assign(front=table["number"].isin(front))


def changes_of(task: Task, study: optuna.Study, recommended: int) -> dict[str, Any]:
    """The recommended setting's parameters below `train` that differ from `params.yaml`."""
    if recommended == DEFAULT:
        return {}
    space = task.search.space
    now, wanted = (as_overrides(space, v) for v in (present(space, task.world.train), study.trials[recommended].params))
    return {path: value for path, value in wanted.items() if path not in now or now[path] != value}


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


def _means(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    wide = frame.set_index(frame["cell"] + "." + frame["metric"])
    return {str(name): row for name, row in wide[["mean", "low", "high"]].to_dict("index").items()}


def write_results(task: Task, study: optuna.Study, base: Scores, found: Confirmation, out: Path) -> None:
    """Write `best.yaml`, `trials.csv`, `contrasts.csv`, `metrics.json`, `report.html` and the figures into `out`."""
    search, confirm, recommended = task.search, task.search.confirm, found.recommended
    trials, changes = trials_table(study, list(search.space)), changes_of(task, study, recommended)
    own = {(trial.number, search.seed): trial.user_attrs[SCORES] for trial in complete(study)}
    findings = SearchFindings(
        title=f"{study.study_name}, {task.name}",
        description=(
            f"Mode {search.mode}: trials of {search.steps} steps, scored on {search.people} people of the split "
            f"{search.split}, with the same seeds in each; confirmed at full length with {len(confirm.seeds)} fresh "
            f"seeds on {confirm.people} people of the split {confirm.split}. Identity by recogniser select, a missing "
            "face counts 0."
        ),
        rule=RULE,
        verdict=verdict(found),
        trials=trials,
        searched=summary(as_table(own), METRICS),
        confirmed=found.means,
        contrasts=found.contrasts,
        default=DEFAULT,
        recommended=recommended,
        changes=changes,
    )
    untuned = mean_scores(base)
    figures = {"front": out / "front.png"}
    save_front(findings, untuned, search.prompt_loss, figures["front"])
    figures |= save_figures(study, search, out)
    for name, table in {"trials": trials, "contrasts": found.contrasts}.items():
        with atomic(out / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    metrics = {
        "study": study.study_name,
        "mode": search.mode,
        "trials": trials["state"].value_counts().to_dict(),
        "front": trials.loc[trials["front"], "number"].tolist(),
        "recommended": recommended,
        "untuned": untuned,
        confirm.split: _means(found.means),
        "difference": _means(found.contrasts),
    }
    write_json(out / "metrics.json", metrics)
    patch = yaml.safe_dump({f"worlds.{task.name}.train.{path}": value for path, value in changes.items()})
    with atomic(out / "best.yaml") as temporary:
        temporary.write_text(f"# What `lookahead adopt` changes in params.yaml, by dotted names.\n{patch}")
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

    with rc_context():  # Optuna changes matplotlib's style for the whole process
        for metric in METRICS:
            save("history", visualization.plot_optimization_history, metric)
            # Negative, because PED-ANOVA asks what decides whether a value is low; of parameters that every trial has.
            save("importances", visualization.plot_param_importances, metric, -1, params=shared)
            save("slices", visualization.plot_slice, metric)
            for pair in search.contours:
                save(" ".join(["contour", *pair]), visualization.plot_contour, metric, params=pair)
    return saved
