"""How much a face looks like the reference: one detector, three recognisers, cosines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from insightface.app import FaceAnalysis
from numpy.typing import NDArray

from lookahead.config import FacePacks
from lookahead.errors import InputError
from lookahead.portraits import Person, Pixels, read_photo
from lookahead.world import open_faces, quiet_alignment

Embeddings = dict[str, NDArray[np.float64]]  # unit vectors by pack: "report", "select", "loss"
PACKS = ("report", "select", "loss")


class FaceReader:
    """Finds the largest face with pack `report` and embeds that same crop with the recogniser of every pack."""

    def __init__(self, packs: FacePacks) -> None:
        """Open the three packs."""
        opened: dict[str, FaceAnalysis] = {
            name: open_faces(getattr(packs, name), packs.detection_size) for name in PACKS
        }
        self._finder = opened["report"]
        self._recognisers = {name: faces.models["recognition"] for name, faces in opened.items()}

    def read(self, pixels: Pixels) -> Embeddings | None:
        """Unit embeddings of the largest face by pack, or None if no face is found.

        Args:
            pixels: uint8 (H, W, 3), RGB.
        """
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        with quiet_alignment():
            faces = self._finder.get(bgr, max_num=1, det_metric="max")  # "max" takes the largest box
            if not faces:
                return None
            return {name: _unit(recogniser.get(bgr, faces[0])) for name, recogniser in self._recognisers.items()}


def _unit(embedding: NDArray[np.float32]) -> NDArray[np.float64]:
    vector = embedding.astype(np.float64)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def read_references(reader: FaceReader, people: Sequence[Person]) -> list[Embeddings]:
    """The embeddings of everybody's reference photo.

    Raises:
        InputError: no face is found in one of them.
    """
    found = [(person, reader.read(read_photo(person.reference))) for person in people]
    lost = [str(person.reference) for person, embeddings in found if embeddings is None]
    if lost:
        raise InputError(f"no face is found in the reference photo {', '.join(lost)}: replace it, or remove the person")
    return [embeddings for _, embeddings in found if embeddings is not None]


def read_others(reader: FaceReader, people: Sequence[Person]) -> list[list[Embeddings]]:
    """The embeddings of everybody's other photos; those without a face are left out."""
    return [[e for path in person.others if (e := reader.read(read_photo(path)))] for person in people]


def similarity(one: Mapping[str, NDArray[np.float64]], other: Mapping[str, NDArray[np.float64]], pack: str) -> float:
    """The cosine of two faces by the recogniser of a pack."""
    return float(one[pack] @ other[pack])
