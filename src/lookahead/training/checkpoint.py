"""Exact resume: weights, optimiser and curves at a step; every random draw derives from the seed and the step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.errors import InputError

Curves = list[dict[str, float]]  # one row a step, the same columns in each
_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_checkpoint(
    path: Path, run: str, weights: Mapping[str, nn.Parameter], optimiser: torch.optim.AdamW, curves: Curves
) -> None:
    """Write the state after `len(curves)` steps, at least one, of the run that `run` identifies; atomic.

    Raises:
        InputError: the disk is full; the previous checkpoint stays.
    """
    tensors = {f"weight/{name}": weight.detach() for name, weight in weights.items()}
    for name, weight in weights.items():
        tensors |= {f"{moment}/{name}": optimiser.state[weight][moment] for moment in _MOMENTS}
    tensors["curves"] = torch.tensor([list(row.values()) for row in curves], dtype=torch.float64)
    metadata = {"run": run, "columns": json.dumps(list(curves[0]))}
    save_tensors(path, {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata)


def _restore_optimiser(optimiser: torch.optim.AdamW, names: list[str], tensors: dict[str, Tensor], step: int) -> None:
    state = {
        number: {"step": torch.tensor(float(step))} | {moment: tensors[f"{moment}/{name}"] for moment in _MOMENTS}
        for number, name in enumerate(names)
    }
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


def load_checkpoint(path: Path, run: str, weights: Mapping[str, nn.Parameter], optimiser: torch.optim.AdamW) -> Curves:
    """Restore the state in place and return the curves so far; without a file nothing happens, and they are empty.

    The optimiser must have been made from `weights.values()`, in this order.

    Raises:
        InputError: the file is damaged, or belongs to a run with other parameters.
    """
    if not path.exists():
        return []
    tensors, metadata = load_tensors(path)
    if metadata.get("run") != run or any(f"weight/{name}" not in tensors for name in weights):
        raise InputError(f"{path} holds the state of another training: remove it to start from the beginning")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(tensors[f"weight/{name}"])
    rows = tensors["curves"].tolist()
    _restore_optimiser(optimiser, list(weights), tensors, len(rows))
    return [dict(zip(json.loads(metadata["columns"]), row, strict=True)) for row in rows]
