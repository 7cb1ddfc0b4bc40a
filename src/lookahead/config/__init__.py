"""The parameters: strict, typed, frozen; `params.yaml` is the one place for a number."""
# ruff: noqa: F401
# mypy: implicit-reexport

from lookahead.config.checkpoints import (
    Adapter,
    Checkpoints,
    FacePacks,
    FastChild,
    Generator,
    ImageEncoder,
    Lora,
    Scorer,
)
from lookahead.config.evaluation import (
    Diversity,
    Evaluate,
    EvaluateStage,
    KVGuidance,
    Personalize,
    PreviewCurves,
    Protocol,
    Sampling,
    Splits,
    Steering,
    read_protocol,
)
from lookahead.config.fields import Section, merged, read_tree, read_yaml, with_overrides
from lookahead.config.params import Params, Tracking, World, parse_params, read_params
from lookahead.config.studies import (
    Checks,
    Choices,
    Confirm,
    FloatRange,
    Heartbeat,
    IntRange,
    Range,
    Search,
    Studies,
    Study,
    StudyCell,
)
from lookahead.config.train import KV, Density, Features, Generate, Lookahead, LoraScale, Photos, Preview, Train
