"""The parameters: strict, typed, frozen; `params.yaml` is the one place for a number."""
# ruff: noqa: F401
# mypy: implicit-reexport

from lookahead.config.evaluation import (
    Diversity,
    Evaluate,
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
from lookahead.config.params import (
    Adapter,
    Checkpoints,
    FacePacks,
    FastChild,
    Generator,
    ImageEncoder,
    Lora,
    Params,
    Scorer,
    Tracking,
    World,
    parse_params,
    read_params,
)
from lookahead.config.studies import Choices, FloatRange, Heartbeat, IntRange, Search, Study, StudyCell, check_storage
from lookahead.config.train import Density, Features, Generate, LoraScale, Photos, Preview, Train
