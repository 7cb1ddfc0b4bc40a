"""Where a study is kept: a journal file on one machine, PostgreSQL for several."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import optuna
from optuna.storages import JournalStorage, RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from lookahead.config import Heartbeat
from lookahead.errors import InputError

ATTEMPTS = 5  # workers that make the tables at the same moment get in each other's way
Storage = RDBStorage | JournalStorage


class NothingWaitsError(Exception):
    """Every planned trial is finished or in the hands of another worker."""


class PlannedJournal(JournalStorage):
    """A journal in which trials come from the plan alone, so that workers never run more than were planned."""

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Add a planned trial; Optuna asks for an unplanned one when none waits."""
        if template_trial is None:
            raise NothingWaitsError
        return super().create_new_trial(study_id, template_trial)


class PlannedTables(RDBStorage):
    """Tables in which trials come from the plan alone."""

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        if template_trial is None:
            raise NothingWaitsError
        return super()._create_new_trial(study_id, template_trial)


def open_storage(address: str | None, journal: Path, heartbeat: Heartbeat) -> Storage:
    """The storage at an address, or the journal file.

    On PostgreSQL, workers show that they live, and the trial of one that stopped is run again by another.

    Raises:
        InputError: the address is of another kind, or nobody answers there.
    """
    if address is None:
        journal.parent.mkdir(parents=True, exist_ok=True)
        return PlannedJournal(JournalFileBackend(str(journal)))
    if not address.startswith("postgresql+psycopg://"):
        raise InputError(f"--storage is {address!r}: several machines share postgresql+psycopg://user@host/database")
    return _open_tables(address, heartbeat)


def _open_tables(address: str, heartbeat: Heartbeat) -> PlannedTables:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for attempt in range(ATTEMPTS):
            try:
                return PlannedTables(
                    address,
                    engine_kwargs={"pool_pre_ping": True},
                    heartbeat_interval=heartbeat.interval,
                    grace_period=heartbeat.grace,
                    heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(heartbeat.retries),
                )
            except SQLAlchemyError as error:
                reason = str(error).splitlines()[0]
                time.sleep(1 + attempt)
    raise InputError(f"the storage {address.split('@')[-1]} cannot be opened ({reason:.200}): is the server running?")
