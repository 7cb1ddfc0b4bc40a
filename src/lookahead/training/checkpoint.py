"""Exact resume: weights, EMA, optimizer and curves after a step, as safetensors and JSON, nothing pickled.

Every random draw derives from the seed and an index, so that there is no random state to keep.
"""

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
"""Settings that decide no weight of a step; a training continues when they change (`steps`: see `schedules`)."""


def resume_folder(work: Path) -> Path:
    """The folder for the checkpoints of a training that nothing is to outlive: beside its output."""
    return work.with_name(f"{work.name}.resume")


def schedules(settings: Train) -> list[str]:
    """The parameters that stretch over the training: with any, more steps would have changed all earlier ones."""
    given = {
        "lr_scheduler": settings.lr_scheduler,
        "noise_density.annealing": settings.noise_density.annealing,
        "lookahead.density.annealing": settings.lookahead.density.annealing,
    }
    return [f"train.{name} is {value}" for name, value in given.items() if value != "constant"]


def _suffix(settings: Train) -> str:
    return f"_of_{settings.steps:06d}.safetensors" if schedules(settings) else ".safetensors"


def _step(path: Path) -> int:
    return int(path.stem.split("_")[1])


def checkpoints(folder: Path, settings: Train) -> list[Path]:
    """The checkpoints that a training with these settings can continue from, the oldest first."""
    names = f"step_*{_suffix(settings)}"
    found = [path for path in folder.glob(names) if bool(schedules(settings)) == ("_of_" in path.stem)]
    return sorted((path for path in found if _step(path) <= settings.steps), key=_step)


def training_key(settings: Train) -> str:
    """A digest of all settings that decide the weights of a step."""
    return digest(settings.model_dump(mode="json", exclude=set(NOT_IN_KEY)))


def _flattened(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's `state_dict` as tensors by "number of the weight/name of the entry", and the rest as JSON."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for number, entries in state["state"].items():
        for name, value in entries.items():
            (tensors if isinstance(value, Tensor) else values)[f"{number}/{name}"] = value
    apart = [name for name, value in tensors.items() if value.device != weights[int(name.split("/")[0])].device]
    return tensors, {"values": values, "on_cpu": apart, "param_groups": state["param_groups"]}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for path, value in (tensors | rest["values"]).items():
        number, name = path.split("/", 1)
        if isinstance(value, Tensor) and path not in rest["on_cpu"]:
            value = value.to(weights[int(number)].device)
        state.setdefault(int(number), {})[name] = value
    groups = [
        {name: tuple(value) if name == "betas" else value for name, value in group.items()}
        for group in rest["param_groups"]
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    for number, entries in state.items():  # torch casts entries to their weight's dtype: give each its own again
        optimizer.state[weights[number]].update(entries)


def save_checkpoint(folder: Path, training: Training, curves: Curves) -> None:
    """Write the state after `len(curves)` steps, at least one, and remove all but the last few.

    Raises:
        InputError: the disk is full; the previous checkpoints stay.
    """
    settings = training.settings
    entries, rest = _flattened(training.optimizer)
    tensors = {f"weight/{name}": weight.detach() for name, weight in training.weights.items()}
    tensors |= {f"ema/{name}": weight for name, weight in training.ema.items()}
    tensors |= {f"optimizer/{name}": value for name, value in entries.items()}
    tensors["curves"] = torch.tensor([list(row.values()) for row in curves], dtype=torch.float64)
    about = {"key": training_key(settings), "columns": list(curves[0]), "optimizer": rest}
    path = folder / f"step_{len(curves):06d}{_suffix(settings)}"
    save_tensors(path, {n: t.cpu().contiguous() for n, t in tensors.items()}, {"training": json.dumps(about)})
    for old in checkpoints(folder, settings)[: -settings.checkpoints_total_limit]:
        old.unlink()


def _newest(folder: Path, settings: Train) -> Path | None:
    found = checkpoints(folder, settings)
    if not found and is_main_process() and any(folder.glob("step_*.safetensors")):
        reasons = " and ".join(schedules(settings)) or "it has more steps"
        logging.getLogger(__name__).warning(
            "%s holds a training of another length, which cannot be continued to %s steps because %s: "
            "training starts from the beginning",
            folder,
            settings.steps,
            reasons,
        )
    return found[-1] if found else None


def load_checkpoint(folder: Path, training: Training) -> Curves:
    """Restore the newest state and return the curves so far; without a checkpoint they are empty.

    Every process of a launch calls this: the main one says which checkpoint, and none goes on before all have read it.

    Raises:
        InputError: the file is damaged, or belongs to a training with other parameters.
    """
    path = broadcast_object(_newest(folder, training.settings))
    if path is None:
        return []
    tensors, metadata = load_tensors(path)
    about = json.loads(metadata.get("training", "{}"))
    names = {f"weight/{name}" for name in training.weights} | {f"ema/{name}" for name in training.ema}
    if about.get("key") != training_key(training.settings) or not names <= tensors.keys():
        raise InputError(f"{path} holds the state of another training: remove {folder} to start from the beginning")
    with torch.no_grad():
        for name, weight in training.weights.items():
            weight.copy_(tensors[f"weight/{name}"])
        for name, average in training.ema.items():
            average.copy_(tensors[f"ema/{name}"])
    entries = {n.removeprefix("optimizer/"): t for n, t in tensors.items() if n.startswith("optimizer/")}
    _restore_optimizer(training.optimizer, entries, about["optimizer"])
    wait_for_everyone()
    return [dict(zip(about["columns"], row, strict=True)) for row in tensors["curves"].tolist()]
