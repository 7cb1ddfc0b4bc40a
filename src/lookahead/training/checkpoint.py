"""Exact resume: weights, EMA, optimizer and curves after a step, as safetensors and JSON; draws need no state."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lookahead.artifacts import digest, load_tensors, save_tensors
from lookahead.config import Train
from lookahead.errors import InputError
from lookahead.training.losses import Row
from lookahead.training.networks import Training
from lookahead.world.distributed import broadcast_object, is_main_process, wait_for_everyone

Curves = list[Row]  # one row a step, the same columns in each
SAMPLING = ("sample_every", "num_samples", "sample_num_inference_steps", "sample_guidance_scale")
NOT_IN_KEY = ("steps", "checkpoint_every", "checkpoints_total_limit", *SAMPLING)
"""Settings that decide no weight of a step: a training continues when they change (`steps`: see `schedules`)."""


def resume_folder(work: Path) -> Path:
    """The folder for the checkpoints of a training, unless they are to outlive it: beside its output."""
    return work.with_name(f"{work.name}.resume")


def training_key(settings: Train) -> str:
    """A digest of all settings that decide the weights of a step."""
    return digest(settings.model_dump(mode="json", exclude=set(NOT_IN_KEY)))


def schedules(settings: Train) -> list[str]:
    """The parameters that stretch over the training: with any, more steps would change all steps before."""
    densities = {"noise_density": settings.noise_density, "lookahead.density": settings.lookahead.density}
    given = {"lr_scheduler": settings.lr_scheduler} | {f"{n}.annealing": d.annealing for n, d in densities.items()}
    return [f"train.{name} is {value}" for name, value in given.items() if value != "constant"]


def _path(folder: Path, settings: Train, step: int) -> Path:
    length = f"_of_{settings.steps:06d}" if schedules(settings) else ""
    return folder / f"step_{step:06d}{length}.safetensors"


def checkpoints(folder: Path, settings: Train) -> list[Path]:
    """The checkpoints that a training with these settings can continue from, the oldest first."""
    steps = {int(path.stem.split("_")[1]) for path in folder.glob("step_*.safetensors")}
    paths = [_path(folder, settings, step) for step in sorted(steps) if step <= settings.steps]
    return [path for path in paths if path.is_file()]


def _newest(folder: Path, settings: Train) -> Path | None:
    found = checkpoints(folder, settings)
    if not found and is_main_process() and any(folder.glob("step_*.safetensors")):
        reason = " and ".join(schedules(settings)) or "it has more steps, or had a schedule"
        message = "%s holds a training of other length, which cannot become one of %d steps (%s): starting from step 0"
        logging.getLogger(__name__).warning(message, folder, settings.steps, reason)
    return found[-1] if found else None


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]


def _flattened(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's `state_dict`: its tensors by "number of the weight/name of the entry", and the rest as JSON."""
    state, weights = optimizer.state_dict(), _weights(optimizer)
    entries = {f"{number}/{name}": value for number, own in state["state"].items() for name, value in own.items()}
    tensors = {path: value for path, value in entries.items() if isinstance(value, Tensor)}
    others = {path: value for path, value in entries.items() if path not in tensors}
    on_cpu = [path for path, value in tensors.items() if value.device != weights[int(path.split("/")[0])].device]
    return tensors, {"values": others, "on_cpu": on_cpu, "param_groups": state["param_groups"]}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    weights = _weights(optimizer)
    state: dict[int, dict[str, Any]] = {}
    for path, value in (tensors | rest["values"]).items():
        number, name = int(path.split("/")[0]), path.split("/", 1)[1]
        moves = path in tensors and path not in rest["on_cpu"]
        state.setdefault(number, {})[name] = value.to(weights[number].device) if moves else value
    groups = [group | {"betas": tuple(group["betas"])} for group in rest["param_groups"]]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for number, entries in state.items():  # torch casts entries to their weight's dtype: give each its own again
        optimizer.state[weights[number]].update(entries)


def save_checkpoint(folder: Path, training: Training, curves: Curves) -> None:
    """Write the state after `len(curves)` steps, at least one, and remove all but the last few."""
    settings = training.settings
    entries, rest = _flattened(training.optimizer)
    tensors = {f"weight/{name}": weight.detach() for name, weight in training.weights.items()}
    tensors |= {f"ema/{name}": average for name, average in training.ema.items()}
    tensors |= {f"optimizer/{path}": value for path, value in entries.items()}
    tensors["curves"] = torch.tensor([list(row.values()) for row in curves], dtype=torch.float64)
    about = {"key": training_key(settings), "columns": list(curves[0]), "optimizer": rest}
    on_cpu = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    save_tensors(_path(folder, settings, len(curves)), on_cpu, {"training": json.dumps(about)})
    for old in checkpoints(folder, settings)[: -settings.checkpoints_total_limit]:
        old.unlink()


def load_checkpoint(folder: Path, training: Training) -> Curves:
    """Restore the newest state and return the curves so far; without a checkpoint they are empty.

    Every process of a launch calls this: the main one says which checkpoint, and none goes on before all have read it.
    """
    path = broadcast_object(_newest(folder, training.settings))
    if path is None:
        return []
    tensors, metadata = load_tensors(path)
    about = json.loads(metadata.get("training", "{}"))
    to: dict[str, Tensor] = {f"weight/{name}": weight for name, weight in training.weights.items()}
    to |= {f"ema/{name}": average for name, average in training.ema.items()}
    if about.get("key") != training_key(training.settings) or not to.keys() <= tensors.keys():
        raise InputError(f"{path} holds the state of another training: remove {folder} to start from the beginning")
    with torch.no_grad():
        for name, tensor in to.items():
            tensor.copy_(tensors[name])
    entries = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
    _restore_optimizer(training.optimizer, entries, about["optimizer"])
    wait_for_everyone()
    return [dict(zip(about["columns"], row, strict=True)) for row in tensors["curves"].tolist()]
