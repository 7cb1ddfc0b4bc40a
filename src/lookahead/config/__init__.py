"""The parameters: strict, typed, frozen; `params.yaml` is the one place for a number."""

from lookahead.config.checkpoints import Adapter, Checkpoints, FacePacks, Generator, ImageEncoder, Scorer
from lookahead.config.fields import Section, Variant
from lookahead.config.params import Miniature, Params, Part, Tracking, World, parse_params, read_params
from lookahead.config.stages import Evaluate, Features, Generate, KVGuidance, PreviewCurves
from lookahead.config.train import KV, Density, Lookahead, LoraScale, Preview, Train

__all__ = [
    "KV",
    "Adapter",
    "Checkpoints",
    "Density",
    "Evaluate",
    "FacePacks",
    "Features",
    "Generate",
    "Generator",
    "ImageEncoder",
    "KVGuidance",
    "Lookahead",
    "LoraScale",
    "Miniature",
    "Params",
    "Part",
    "Preview",
    "PreviewCurves",
    "Scorer",
    "Section",
    "Tracking",
    "Train",
    "Variant",
    "World",
    "parse_params",
    "read_params",
]
