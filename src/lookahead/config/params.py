"""The strict, typed mirror of `params.yaml`: every number lives there, none here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from lookahead.config.evaluation import Evaluate, EvaluateStage, Personalize, Protocol, Splits, read_protocol
from lookahead.config.fields import Count, Section, Steps, Timestep, checked, merged, read_tree
from lookahead.config.studies import Studies
from lookahead.config.train import Features, Generate, Photos, Train
from lookahead.errors import InputError


class Lora(Section):
    """A LoRA's folder or repository, and the name of its file."""

    source: str
    weight_name: str


class FastChild(Lora):
    """The few-step LoRA that forms previews: LCM-LoRA, or one distilled for the few `timesteps` that are named.

    The lookahead loss then draws its timesteps from these; null stands for all.
    """

    timesteps: Annotated[list[Timestep], Field(min_length=1)] | None


class Generator(Steps):
    """The few-step generator: a pipeline, with a LoRA fused into it or none, and its pictures' side in pixels."""

    pipeline: str
    lora: Lora | None
    resolution: Count


class FacePacks(Section):
    """Three insightface packs (folders of ONNX files, or names) and the detector's input size in pixels."""

    loss: str
    select: str
    report: str
    detection_size: Count


class Adapter(Section):
    """An IP-Adapter file: the folder or repository it lies in, the sub-folder and the file's name."""

    source: str
    subfolder: str
    weight_name: str


class ImageEncoder(Section):
    """The CLIP vision encoder whose hidden states the image adapter reads."""

    source: str
    subfolder: str


class PublishedEncoder(Section):
    """The authors' own checkpoint: its folder or repository, and the file's name."""

    source: str
    weight_name: str


class Scorer(Section):
    """The text-image scorer: an open_clip model name (or `local-dir:` folder) and its pretrained `tag@commit`."""

    model: str
    pretrained: str | None


class Checkpoints(Section):
    """Every pretrained part of a world: a folder, or `owner/name[@commit][:weights]` on the hub.

    The commit has 40 digits; `weights` names the variant of the files, such as fp16. Packs and scorers are names.
    `precision` "auto" is bfloat16 on a GPU that has it, float16 on another one, which then draws but does not train,
    and float32 on a CPU. `resolution` is the side of all pictures in pixels. `safety_checker` holds Stable Diffusion's:
    what it flags comes back black to people who draw; the chain does not open it, nor `published_encoder`, which
    `lookahead convert published` reads.
    """

    base: str
    vae: str | None
    preview_vae: str
    fast_child: FastChild
    generator: Generator
    adapter: Adapter
    image_encoder: ImageEncoder
    faces: FacePacks
    scorer: Scorer
    safety_checker: str | None
    published_encoder: PublishedEncoder | None
    precision: Literal["auto", "float32", "float16", "bfloat16"]
    resolution: Count


class World(Section):
    """One world's checkpoints and its stages' numbers; its protocol is the file `protocols/<name>.yaml`."""

    name: str
    checkpoints: Checkpoints
    generate: Generate
    photos: Photos
    features: Features
    train: Train
    evaluate: EvaluateStage
    personalize: Personalize

    def settings(self, section: str) -> dict[str, object]:
        """A section as plain data; that of the evaluation with the protocol that it names, and its own portraits only.

        That of `features` names the portraits of all splits: whoever looks like one of them is left out.
        """
        if section == "evaluate":
            evaluation = self.evaluation()
            return evaluation.model_dump(mode="json", exclude={"splits"}) | {"portraits": evaluation.portraits}
        portraits = {"portraits": self.protocol().splits.model_dump(mode="json")} if section == "features" else {}
        own: Section = getattr(self, section)
        return own.model_dump(mode="json") | portraits

    def evaluation(self) -> Evaluate:
        """The protocol, and how the stage `evaluate` carries it out.

        Without any portraits its people are those that the stage `features` holds out of the training.
        """
        protocol = self.protocol()
        settings = protocol.model_dump() | self.evaluate.model_dump()
        if not protocol.splits.folders:
            settings["splits"] = {name: f"runs/{self.name}/features/people/{name}" for name in Splits.model_fields}
        return Evaluate.model_validate(settings)

    def protocol(self) -> Protocol:
        """The protocol's file."""
        return read_protocol(Path("protocols") / f"{self.name}.yaml")


class Tracking(Section):
    """Where runs are logged; switching it off changes no output."""

    enabled: bool
    uri: str
    experiment: str


class Params(Section):
    """The whole of `params.yaml`."""

    world: str
    own_photos: Annotated[str, Field(min_length=1)]
    tracking: Tracking
    worlds: dict[str, World]
    studies: Studies
    defaults: dict[str, Any]  # of the worlds, as plain data

    @model_validator(mode="after")
    def _known_world(self) -> Params:
        if self.world not in self.worlds:
            raise ValueError(f"world is {self.world!r}; params.yaml has {sorted(self.worlds)}")
        return self

    @property
    def active(self) -> World:
        """The world that `world` names."""
        return self.worlds[self.world]

    def of(self, name: str | None) -> World:
        """The world of this name; None is the active one."""
        if name is not None and name not in self.worlds:
            raise InputError(f"there is no world {name!r}: params.yaml has {', '.join(sorted(self.worlds))}")
        return self.worlds[name or self.world]


def parse_params(tree: Mapping[str, object]) -> Params:
    """Check a parameter tree; each world is its own values over those of `defaults`.

    DVC tracks a world's sections by name, so that each world has to state all of them, if only as `{}`.
    """
    rest = dict(tree)
    defaults, worlds = rest.setdefault("defaults", {}), rest.get("worlds")
    if isinstance(defaults, Mapping) and isinstance(worlds, Mapping):
        for name, world in worlds.items():
            stated = {"name", *(world if isinstance(world, Mapping) else ())}
            if missing := [section for section in World.model_fields if section not in stated]:
                raise InputError(f"params.yaml: worlds.{name} lacks {', '.join(missing)}: write `{missing[0]}: {{}}`")
        rest["worlds"] = {name: merged(defaults, world) | {"name": name} for name, world in worlds.items()}
    return checked(Params, rest, "params.yaml", "params.yaml")


def read_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check `params.yaml`."""
    tree = read_tree(path, "params.yaml", "run from the repository's root")
    if not isinstance(tree, dict):
        raise InputError(f"{path} holds {type(tree).__name__}, not a mapping of parameters")
    return parse_params(tree)
