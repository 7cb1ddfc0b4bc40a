"""Exact resume: weights, optimiser and curves at a step; every random draw derives from the seed and the step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.errors import InputError

Curves = list[dict[str, float]]  # one row a step, the same columns in each
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class State:
    """What a checkpoint holds besides the curves; `average` is empty without EMA."""

    weights: Mapping[str, nn.Parameter]
    average: Mapping[str, Tensor]
    optimiser: torch.optim.AdamW


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a training, the oldest first."""
    return sorted(folder.glob("step_[0-9]*.safetensors"))


def save_checkpoint(folder: Path, run: str, state: State, curves: Curves, kept: int) -> None:
    """Write the state after `len(curves)` steps, at least one, of the run that `run` identifies, and keep the last few.

    Raises:
        InputError: the disk is full; the previous checkpoints stay.
    """
    tensors = {f"weight/{name}": weight.detach() for name, weight in state.weights.items()}
    tensors |= {f"average/{name}": average for name, average in state.average.items()}
    for name, weight in state.weights.items():
        tensors |= {f"{moment}/{name}": state.optimiser.state[weight][moment] for moment in _MOMENTS}
    tensors["curves"] = torch.tensor([list(row.values()) for row in curves], dtype=torch.float64)
    metadata = {"run": run, "columns": json.dumps(list(curves[0]))}
    path = folder / f"step_{len(curves):06d}.safetensors"
    save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)
    for old in checkpoints(folder)[:-kept]:
        old.unlink()


def _restore_optimiser(state: State, tensors: dict[str, Tensor], step: int) -> None:
    for name, weight in state.weights.items():
        moments = {moment: tensors[f"{moment}/{name}"].to(weight.device) for moment in _MOMENTS}
        state.optimiser.state[weight] = {"step": torch.tensor(float(step))} | moments


def load_checkpoint(folder: Path, run: str, state: State) -> Curves:
    """Restore the newest state in place and return the curves so far; without a checkpoint they are empty.

    Raises:
        InputError: the file is damaged, or belongs to a run with other parameters.
    """
    found = checkpoints(folder)
    if not found:
        return []
    tensors, metadata = load_tensors(found[-1])
    if metadata.get("run") != run or any(f"weight/{name}" not in tensors for name in state.weights):
        raise InputError(
            f"{found[-1]} holds the state of another training: remove {folder} to start from the beginning"
        )
    with torch.no_grad():
        for name, weight in state.weights.items():
            weight.copy_(tensors[f"weight/{name}"])
        for name, average in state.average.items():
            average.copy_(tensors[f"average/{name}"])
    rows = tensors["curves"].tolist()
    _restore_optimiser(state, tensors, len(rows))
    return [dict(zip(json.loads(metadata["columns"]), row, strict=True)) for row in rows]
