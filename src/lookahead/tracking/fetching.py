"""Brings an earlier run's files back."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lookahead.config import Tracking
from lookahead.errors import InputError
from lookahead.tracking.store import connect, store_uri


def fetch_files(tracking: Tracking, run: str, names: Iterable[str], place: Path) -> None:
    """Copy the artifacts of these names, of one run, into a folder.

    Raises:
        InputError: tracking is off, there is no such run, or it holds no such file.
    """
    if not tracking.enabled:
        raise InputError(f"{run} is no folder, and tracking is off, so it names no run: give a folder")
    place.mkdir(parents=True, exist_ok=True)
    client, _ = connect(tracking)
    for name in names:
        try:
            client.download_artifacts(run, name, str(place))
        except Exception as error:  # MLflow's, the store's and the operating system's: each has classes of its own
            reason = (str(error).strip().splitlines() or [""])[0]
            raise InputError(
                f"{run} is no folder, nor a run of {store_uri(tracking)} with {name} ({reason:.120}): "
                "name a run of the stage `evaluate`"
            ) from None
