"""What is recommended after a search, and what people look at: tables, figures, one self-contained page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import yaml
from matplotlib import rc_context
from optuna.visualization import matplotlib as visualization

from lookahead.artifacts import atomic, write_json
from lookahead.config import Search
from lookahead.errors import InputError
from lookahead.evaluation.cells import FULL
from lookahead.evaluation.contrasts import HIGHER, Contrast, contrasts, summary
from lookahead.evaluation.evaluate import as_intervals
from lookahead.evaluation.evaluator import save_csv
from lookahead.report.figures import save_axes
from lookahead.report.pages import inline_files, save_page
from lookahead.report.studies import save_front, search_tables
from lookahead.search import objective
from lookahead.search.objective import METRICS, REASON, SCORES, Scores, Task, Values, complete

DEFAULT = 0  # the number of the trial with params.yaml's own values
RULE = (
    "Of the front, settings whose prompt alignment is at most prompt_loss below the untuned adapter's come first, by "
    "identity; then the others, by prompt alignment. Recommended is the one of those confirmed that is better than "
    "params.yaml in one figure and no worse in the other (the interval excludes a loss of evaluate.margin), on people "
    "and with seeds that the search never saw; of several, the one with the higher identity; else params.yaml stays."
)


@dataclass(frozen=True)
class Confirmation:
    """What the confirmation found: means, and contrasts with params.yaml, with intervals over people and seeds."""

    means: pd.DataFrame
    contrasts: pd.DataFrame

    @property
    def recommended(self) -> int:
        """The recommended setting (RULE)."""
        better = [int(str(cell)) for cell, rows in self.contrasts.groupby("cell") if _is_better(rows)]
        identity = self.means[self.means["metric"] == "identity"].set_index("cell")["mean"]
        return max(better, key=lambda setting: float(identity[str(setting)]), default=DEFAULT)


def _is_better(rows: pd.DataFrame) -> bool:
    higher = rows["verdict"] == HIGHER
    return bool(higher.any() and (higher | rows["non_inferior"].astype(bool)).all())


def as_table(scores: Mapping[tuple[int, int], Scores]) -> pd.DataFrame:
    """Scores by setting and training seed as the long table of `evaluation.contrasts`, one row a person."""
    frames = [
        pd.DataFrame({"cell": str(setting), "sampler": FULL, "training_seed": seed, **own}).rename_axis("person")
        for (setting, seed), own in scores.items()
    ]
    return pd.concat(frames).reset_index()


def compare(
    scores: Mapping[tuple[int, int], Scores], settings: Sequence[int], seeds: Sequence[int], margin: Mapping[str, float]
) -> Confirmation:
    """Means and contrasts with params.yaml of those settings that have scores of every training seed."""
    whole = [one for one in settings if all((one, seed) in scores for seed in seeds)]
    if not whole:
        raise InputError("no setting could be confirmed with every seed: read the trials' reasons in optuna-dashboard")
    table = as_table({(one, seed): scores[one, seed] for one in whole for seed in seeds})
    pairs = [Contrast(f"trial {one}", str(one), str(DEFAULT)) for one in whole if one != DEFAULT]
    return Confirmation(summary(table, METRICS), contrasts(table, pairs, METRICS, margin=margin))


def trials_table(study: optuna.Study, parameters: list[str]) -> pd.DataFrame:
    """One row a trial: number, state, drawn values, means of both figures, front, and why it failed."""
    table = study.trials_dataframe(attrs=("number", "state", "params", "user_attrs"))
    table = table.rename(columns=lambda name: name.removeprefix("params_").removeprefix("user_attrs_"))
    table = table.reindex(columns=["number", "state", *parameters, *METRICS, REASON])
    table = table.astype({REASON: object}).fillna({REASON: ""}).assign(state=table["state"].str.lower())
    table.loc[(table["state"] == "fail") & (table[REASON] == ""), REASON] = "its worker stopped; it was run again"
    front = [trial.number for trial in study.best_trials]
    return table.assign(front=table["number"].isin(front))


def changes_of(task: Task, study: optuna.Study, recommended: int) -> Values:
    """The recommended setting's parameters below `train` that differ from `params.yaml`."""
    space = task.search.space
    now = objective.as_overrides(space, objective.present(space, task.world.train))
    wanted = now if recommended == DEFAULT else objective.as_overrides(space, study.trials[recommended].params)
    return {path: value for path, value in wanted.items() if path not in now or now[path] != value}


def verdict(confirmation: Confirmation) -> str:
    """One sentence: what is recommended, and by how much it is better where the search never looked."""
    if confirmation.contrasts.empty:
        return "Nothing is recommended: params.yaml's own setting, or every other one, could not be confirmed."
    if confirmation.recommended == DEFAULT:
        return "params.yaml stays: no confirmed setting is better in one figure and no worse in the other."
    rows = confirmation.contrasts[confirmation.contrasts["cell"] == str(confirmation.recommended)]
    gains = [f"{r.metric} {r.mean:+.3f} [{r.low:+.3f}, {r.high:+.3f}], {r.verdict}" for r in rows.itertuples()]
    where = "against params.yaml, with fresh seeds on people that the search never saw"
    return f"Trial {confirmation.recommended} is recommended; {where}: {'; '.join(gains)}."


def write_results(task: Task, study: optuna.Study, base: Scores, found: Confirmation, out: Path) -> None:
    """Write `best.yaml`, `trials.csv`, `metrics.json`, `report.html` and the figures into `out`."""
    search, confirm, recommended = task.search, task.search.confirm, found.recommended
    trials, changes = trials_table(study, list(search.space)), changes_of(task, study, recommended)
    own = {(trial.number, search.seed): trial.user_attrs[SCORES] for trial in complete(study)}
    texts = {
        "title": f"{study.study_name}, {task.world.name}",
        "description": (
            f"Mode {search.mode}: trials of {search.steps} steps, scored on {search.people} people of the split "
            f"{search.split}, with the same seeds in each; confirmed at full length with {len(confirm.seeds)} fresh "
            f"seeds on {confirm.people} people of the split {confirm.split}. Identity by recogniser select, a missing "
            "face counts 0."
        ),
        "rule": RULE,
        "verdict": verdict(found),
        "changes": changes,
    }
    parts = {"search": summary(as_table(own), METRICS), "confirmation": found.means}
    parts["against params.yaml"] = found.contrasts
    notes = {DEFAULT: "params.yaml", recommended: "recommended"}
    untuned = objective.mean_scores(base)
    front = out / "front.png"
    save_front(trials, notes, untuned, search.prompt_loss, front)
    save_csv(trials, out / "trials.csv")
    metrics = {
        "study": study.study_name,
        "mode": search.mode,
        "trials": trials["state"].value_counts().to_dict(),
        "front": trials.loc[trials["front"], "number"].tolist(),
        "recommended": recommended,
        "untuned": untuned,
        confirm.split: as_intervals(found.means, found.contrasts),
    }
    write_json(out / "metrics.json", metrics)
    patch = yaml.safe_dump({f"worlds.{task.world.name}.train.{path}": value for path, value in changes.items()})
    with atomic(out / "best.yaml") as temporary:
        temporary.write_text(f"# What `lookahead adopt` changes in params.yaml, by dotted names.\n{patch}")
    figures = {"front": front} | save_figures(study, search, out)
    content = {**texts, "tables": search_tables(trials, notes, parts), "pictures": inline_files(figures)}
    save_page("search.html.j2", out / "report.html", content)


def save_figures(study: optuna.Study, search: Search, out: Path) -> dict[str, Path]:
    """Save Optuna's figures of both objectives by title; those for which there are too few trials are left out."""
    shared = sorted(set.intersection(*(set(trial.params) for trial in complete(study))))
    saved: dict[str, Path] = {}

    def save(name: str, plot: Callable[..., Any], metric: str, sign: int = 1, **options: Any) -> None:
        path = out / f"{name} {metric}.png".replace(" ", "_")
        with rc_context(), suppress(ValueError, RuntimeError):  # too few trials, or a parameter that never varied
            axes = plot(study, target=lambda trial: sign * trial.user_attrs[metric], target_name=metric, **options)
            save_axes(axes, path)
            saved[f"{name}, {metric}"] = path

    for metric in METRICS:
        save("history", visualization.plot_optimization_history, metric)
        # Negative, because PED-ANOVA asks what decides whether a value is low; of parameters that every trial has.
        save("importances", visualization.plot_param_importances, metric, -1, params=shared)
        save("slices", visualization.plot_slice, metric)
        for pair in search.contours:
            save(" ".join(["contour", *pair]), visualization.plot_contour, metric, params=pair)
    return saved
