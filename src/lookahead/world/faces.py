"""Opens insightface packs: folders of ONNX files, or names that insightface knows."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lookahead.errors import InputError
from lookahead.world.diffusion import to_uint8
from lookahead.world.distributed import device
from lookahead.world.hub import face_pack, locate, opening

if TYPE_CHECKING:  # insightface and onnxruntime are imported where they are used: training runs without them
    from insightface.app import FaceAnalysis

_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


def face_providers() -> list[str]:
    """Where onnxruntime runs face packs: on a GPU only if its package is the one for GPUs."""
    import onnxruntime

    gpu = device().type == "cuda" and _CUDA in onnxruntime.get_available_providers()
    return [_CUDA, _CPU] if gpu else [_CPU]


def open_faces(pack: str, detection_size: int) -> FaceAnalysis:
    """Open the detector and the recogniser of an insightface pack; `detection_size` is in pixels."""
    from insightface.app import FaceAnalysis

    providers = face_providers()
    folder = locate(face_pack("faces", pack))
    with opening("face pack", str(folder)):
        faces = FaceAnalysis(name=str(folder), allowed_modules=["detection", "recognition"], providers=providers)
        if "recognition" not in faces.models:
            raise InputError(f"the face pack {folder} has no recogniser: an ONNX file with a 112-pixel input")
        faces.prepare(ctx_id=0 if _CUDA in providers else -1, det_size=(detection_size, detection_size))
    return faces


def detect_faces(detector: Any, blue_first: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Every face of a picture (H, W, 3), BGR, once, the surest first.

    Boxes (F, 5) are left, top, right, bottom in pixels, and the detector's confidence; landmarks (F, 5, 2) in pixels.
    A box whose middle lies in a surer one is that face again: detectors merge only boxes that nearly agree.
    """
    boxes, landmarks = detector.detect(blue_first)
    once: list[int] = []
    for number, box in enumerate(boxes):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        if not any(b[0] <= x <= b[2] and b[1] <= y <= b[3] for b in boxes[once]):
            once.append(number)
    return boxes[once], landmarks[once]


def recogniser_onnx(pack: str) -> Path:
    """The file of a pack that insightface uses as recogniser."""
    from insightface.model_zoo import get_model

    folder = locate(face_pack("faces", pack))
    for path in sorted(folder.glob("*.onnx")):
        with opening("face pack", str(path)):
            if getattr(get_model(str(path), providers=[_CPU]), "taskname", None) == "recognition":
                return path
    raise InputError(f"the face pack {folder} has no recogniser: an ONNX file with a 112-pixel input")


@contextmanager
def quiet_alignment() -> Iterator[None]:
    """Hold back the note of scikit-image that insightface's alignment causes at every new place of a call."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`estimate` is deprecated", FutureWarning)
        yield


class LandmarkDetector:
    """A pack's detector on batches of pictures: where the largest face's landmarks lie."""

    def __init__(self, pack: str, detection_size: int) -> None:
        """Open the pack."""
        self._detector = open_faces(pack, detection_size).models["detection"]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks (B, 5, 2) in pixels, zeros where there is no face, and whether there is one, bool (B,).

        Pixels are (B, 3, H, W) in [-1, 1], any device; the results are on the CPU.
        """
        landmarks, found = torch.zeros(len(pixels), 5, 2), torch.zeros(len(pixels), dtype=torch.bool)
        for number, picture in enumerate(to_uint8(pixels)):
            blue_first = np.ascontiguousarray(picture[:, :, ::-1])
            boxes, points = self._detector.detect(blue_first, max_num=1, metric="max")
            if len(boxes):
                landmarks[number], found[number] = torch.from_numpy(points[0]), True
        return landmarks, found
