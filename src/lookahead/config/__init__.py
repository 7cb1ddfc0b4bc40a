"""The parameters: strict, typed, frozen; `params.yaml` is the one place for a number."""

from lookahead.config.checkpoints import Adapter, Checkpoints, FacePacks, Generator, ImageEncoder, Scorer
from lookahead.config.dataset import Features, Generate, Photos
from lookahead.config.fields import Section
from lookahead.config.files import read_yaml
from lookahead.config.overrides import merged, with_overrides
from lookahead.config.params import Params, Tracking, World, parse_params, read_params
from lookahead.config.personalize import Fast, Personalize
from lookahead.config.protocol import Evaluate, Protocol, Sampling, Splits, read_protocol
from lookahead.config.search import Checks, Choices, Confirm, FloatRange, Heartbeat, IntRange, Range, Search
from lookahead.config.stages import (
    Diversity,
    EvaluateStage,
    KVGuidance,
    PreviewCurves,
    Steering,
)
from lookahead.config.studies import Studies, Study, StudyCell
from lookahead.config.train import KV, Density, Lookahead, LoraScale, Preview, Train

__all__ = [
    "KV",
    "Adapter",
    "Checkpoints",
    "Checks",
    "Choices",
    "Confirm",
    "Density",
    "Diversity",
    "Evaluate",
    "EvaluateStage",
    "FacePacks",
    "Fast",
    "Features",
    "FloatRange",
    "Generate",
    "Generator",
    "Heartbeat",
    "ImageEncoder",
    "IntRange",
    "KVGuidance",
    "Lookahead",
    "LoraScale",
    "Params",
    "Personalize",
    "Photos",
    "Preview",
    "PreviewCurves",
    "Protocol",
    "Range",
    "Sampling",
    "Scorer",
    "Search",
    "Section",
    "Splits",
    "Steering",
    "Studies",
    "Study",
    "StudyCell",
    "Tracking",
    "Train",
    "World",
    "merged",
    "parse_params",
    "read_params",
    "read_protocol",
    "read_yaml",
    "with_overrides",
]
