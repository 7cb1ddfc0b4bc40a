"""Tells MLflow about runs, the only place that knows it: what breaks here is a warning, never a lost model."""

from lookahead.tracking.fetching import fetch_files
from lookahead.tracking.lineage import Origin
from lookahead.tracking.recorder import NoRecorder, Recorder, open_recorder
from lookahead.tracking.store import connect, store_uri
from lookahead.tracking.study import open_study_recorder

__all__ = [
    "NoRecorder",
    "Origin",
    "Recorder",
    "connect",
    "fetch_files",
    "open_recorder",
    "open_study_recorder",
    "store_uri",
]
