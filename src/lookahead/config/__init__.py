"""The parameters: strict, typed, frozen; `params.yaml` is the one place for a number."""

from lookahead.config.checkpoints import Adapter, Checkpoints, FacePacks, Generator, ImageEncoder, Scorer
from lookahead.config.fields import Section, Variant
from lookahead.config.params import Miniature, Params, Part, Tracking, World, changed, parse_params, read_params
from lookahead.config.personalize import Fast, Personalize, Steering
from lookahead.config.search import Checks, Choices, Confirm, FloatRange, Heartbeat, IntRange, Range, Search
from lookahead.config.stages import Diversity, Evaluate, Features, Generate, KVGuidance, Photos, PreviewCurves
from lookahead.config.studies import Ablation, Curves, Row, Studies
from lookahead.config.train import KV, Density, Lookahead, LoraScale, Preview, Train

__all__ = [
    "KV",
    "Ablation",
    "Adapter",
    "Checkpoints",
    "Checks",
    "Choices",
    "Confirm",
    "Curves",
    "Density",
    "Diversity",
    "Evaluate",
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
    "Miniature",
    "Params",
    "Part",
    "Personalize",
    "Photos",
    "Preview",
    "PreviewCurves",
    "Range",
    "Row",
    "Scorer",
    "Search",
    "Section",
    "Steering",
    "Studies",
    "Tracking",
    "Train",
    "Variant",
    "World",
    "changed",
    "parse_params",
    "read_params",
]
