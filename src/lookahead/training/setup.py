"""What a training consists of: networks, features, trainable weights, optimiser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from lookahead.config import Checkpoints, Train
from lookahead.features.store import FeatureStore, open_features
from lookahead.models.adapter import adapter_parameters
from lookahead.training.networks import Backend, open_networks
from lookahead.training.pairs import Pairs
from lookahead.training.sharding import Shards, share_out
from lookahead.training.step import Networks
from lookahead.world import Pipeline
from lookahead.world.processes import launched


@dataclass(frozen=True)
class Training:
    """What stays the same from step to step; `average` is the running mean of the weights, empty without EMA.

    `shards` has the frozen weights that are shared out over the processes, none unless the settings ask for it.
    """

    pipe: Pipeline
    networks: Networks
    store: FeatureStore
    pairs: Pairs
    settings: Train
    weights: dict[str, nn.Parameter]
    optimiser: torch.optim.AdamW
    average: dict[str, Tensor] = field(default_factory=dict)
    shards: Shards = field(default_factory=Shards)

    @property
    def timesteps(self) -> int:
        """How many the noise schedule has."""
        return len(self.networks.schedule.alphas_cumprod)


def trained_weights(networks: Networks) -> dict[str, nn.Parameter]:
    """The trainable parameters by name: the adapter's, then the KV-encoder's, if there is one (§4.1)."""
    kv = {} if networks.kv is None else networks.kv.parameters()
    return adapter_parameters(networks.unet) | {f"kv.{name}": weight for name, weight in kv.items()}


def new_optimiser(weights: dict[str, nn.Parameter], settings: Train) -> torch.optim.AdamW:
    """AdamW in which the adapter and the KV-encoder have learning rates of their own (official recipe)."""
    rates = {False: settings.learning_rate, True: settings.kv.learning_rate}
    groups = [
        {"params": [w for name, w in weights.items() if name.startswith("kv.") == kv], "lr": rate, "peak": rate}
        for kv, rate in rates.items()
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)


def _share_out(networks: Networks, settings: Train) -> Shards:
    if not settings.shard_weights:
        return Shards()
    return share_out([networks.unet] if networks.kv is None else [networks.unet, networks.kv.unet], launched())


def open_training(checkpoints: Checkpoints, settings: Train, features: Path, backend: Backend = "inductor") -> Training:
    """Open the networks and the features, and make the optimiser; `backend` compiles, if the settings say so.

    Raises:
        InputError: a checkpoint or a file of features is missing or damaged, or nobody has two photos.
    """
    store = open_features(features)
    pairs = Pairs(store.table, settings.own_photos, settings.photos_only)
    pipe, networks = open_networks(checkpoints, settings, backend)
    weights = trained_weights(networks)
    average = {name: w.detach().clone() for name, w in weights.items()} if settings.ema else {}
    shards = _share_out(networks, settings)
    return Training(pipe, networks, store, pairs, settings, weights, new_optimiser(weights, settings), average, shards)
