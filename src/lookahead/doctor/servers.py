"""The servers that the parameters or the command line name: MLflow's, and PostgreSQL."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from lookahead.config import Params
from lookahead.doctor.finding import Finding
from lookahead.tracking import connect, store_uri

_PORTS = {"postgresql": 5432, "http": 80, "https": 443}
_PATIENCE = 3.0  # seconds


def answers(uri: str) -> str:
    """Why nothing answers at an address's host and port; "" if something does."""
    parts = urlsplit(uri)
    port = parts.port or _PORTS.get(parts.scheme.split("+")[0], 0)
    try:
        socket.create_connection((parts.hostname or "", port), _PATIENCE).close()
    except OSError as error:
        return f"{parts.hostname}:{port} does not answer ({error})"
    return ""


def shown(uri: str) -> str:
    """An address without its password."""
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri


def _server(subject: str, uri: str, mend: str) -> Finding:
    fault = answers(uri)
    return Finding("bad" if fault else "ok", subject, fault or shown(uri), mend)


def _store(params: Params) -> Finding:
    uri = store_uri(params.tracking)
    if not uri.startswith("sqlite"):
        fault = _server("tracking", uri, "start the server, or change `tracking.uri` in params.yaml (docs/scale.md)")
        if fault.state == "bad":
            return fault
    try:
        connect(params.tracking)
    except Exception as error:  # a broken store is no reason not to run
        told = f"{shown(uri)} cannot be opened, runs will not be tracked ({str(error)[:120]})"
        return Finding("odd", "tracking", told, "")
    return Finding("ok", "tracking", shown(uri), "")


def servers(params: Params, storage: str | None) -> Iterator[Finding]:
    """The tracking store, and the database of a shared search if one is named."""
    if params.tracking.enabled:
        yield _store(params)
    else:
        yield Finding("odd", "tracking", "switched off (`tracking.enabled`)", "")
    if storage is not None:
        yield _server("search storage", storage, "start PostgreSQL there, or check `--storage` (docs/scale.md)")
