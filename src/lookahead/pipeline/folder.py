"""The folder that a pipeline is saved in: an encoder's files, and what they belong to."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lookahead.artifacts import atomic, read_json, write_json
from lookahead.config import Checkpoints, Personalize, Section
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE
from lookahead.models.kv_encoder import KV_FILE

SETTINGS_FILE = "lookahead.json"


class Belongs(Section):
    """The world that an encoder was trained in, and how its pictures are drawn."""

    checkpoints: Checkpoints
    personalize: Personalize


def read_belongs(folder: Path) -> Belongs:
    """What a saved folder says of itself.

    Raises:
        InputError: the folder was not saved by this project, or its file is damaged.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        raise InputError(f"{path} does not exist: `lookahead export {folder}` writes such a folder")
    try:
        return Belongs.model_validate(read_json(path))
    except ValidationError as error:
        raise InputError(f"{path} is not valid: {error.errors()[0]['msg']}; export the encoder again") from None


def write_belongs(folder: Path, belongs: Belongs) -> None:
    """Write what a saved folder says of itself.

    Raises:
        InputError: the file cannot be written.
    """
    write_json(folder / SETTINGS_FILE, belongs.model_dump(mode="json"))


def copy_encoder(encoder: Path, folder: Path) -> None:
    """Copy an encoder's files, byte for byte.

    Raises:
        InputError: they cannot be written.
    """
    for name in (ADAPTER_FILE, KV_FILE):
        if (encoder / name).is_file():
            with atomic(folder / name) as temporary:
                temporary.write_bytes((encoder / name).read_bytes())
