"""Tiny insightface packs: real ONNX files with random weights, in SCRFD's and ArcFace's conventions."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 64  # pixels, the detector's input
EMBEDDING = 32
STRIDES = (8, 16, 32)
LANDMARKS = np.array([[26, 27], [38, 27], [32, 33], [27, 40], [37, 40]], dtype=np.float32)  # pixels in SIZE x SIZE
BOX = np.array([14, 12, 50, 52], dtype=np.float32)
_OPSET = 17

Array = NDArray[np.float32]


def _constant(name: str, value: Array | NDArray[np.int64]) -> onnx.TensorProto:
    return numpy_helper.from_array(value, name)


def _save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))


def _cells(stride: int) -> int:
    return (SIZE // stride) ** 2 * 2


def _detector_rows(stride: int, faces: int, doubled: bool) -> tuple[Array, Array, Array]:
    """Scores, boxes and landmarks of a stride: stride 16 sees the face at its centre cell, and one in the first.

    A doubled one is seen at the cell beside too, which overlaps too little for the detector to merge them.
    """
    count, side, middle = _cells(stride), SIZE // stride, np.array([32, 32], dtype=np.float32)
    scores = np.zeros((count, 1), dtype=np.float32)
    if stride == 16:
        scores[[2 * (2 * side + 2), 0][:faces]] = 1
        scores[2 * (2 * side + 1)] = 0.9 * doubled
    box = np.concatenate([middle - BOX[:2], BOX[2:] - middle]) / stride
    points = ((LANDMARKS - middle) / stride).reshape(-1)
    return scores, np.tile(box, (count, 1)).astype(np.float32), np.tile(points, (count, 1)).astype(np.float32)


def _detector_heads(faces: int, doubled: bool) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    nodes, constants = [], []
    for stride in STRIDES:
        for kind, rows in zip(("score", "box", "points"), _detector_rows(stride, faces, doubled), strict=True):
            constants.append(_constant(f"{kind}_{stride}_rows", rows))
            operation, other = ("Mul", "seen") if kind == "score" else ("Add", "shift")
            nodes.append(helper.make_node(operation, [f"{kind}_{stride}_rows", other], [f"{kind}_{stride}"]))
    return nodes, constants


def save_detector(path: Path, faces: int = 1, doubled: bool = False) -> None:
    """A detector that sees one face near the centre, a little off by the picture's brightness, and none in the dark.

    With two faces it sees another one around the picture's corner. Doubled, it sees the first twice.
    """
    heads, constants = _detector_heads(faces, doubled)
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean4"], axes=[0, 1, 2, 3], keepdims=1),
        helper.make_node("Reshape", ["mean4", "flat"], ["mean"]),
        helper.make_node("Add", ["mean", "darkness"], ["light"]),
        helper.make_node("Mul", ["light", "steep"], ["steep_light"]),
        helper.make_node("Sigmoid", ["steep_light"], ["seen"]),
        helper.make_node("Mul", ["mean", "little"], ["shift"]),
    ]
    constants += [
        _constant("flat", np.array([1, 1], dtype=np.int64)),
        _constant("darkness", np.array([[0.9]], dtype=np.float32)),
        _constant("steep", np.array([[100]], dtype=np.float32)),
        _constant("little", np.array([[0.1]], dtype=np.float32)),
    ]
    outputs = [
        helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, [_cells(stride), width])
        for kind, width in (("score", 1), ("box", 4), ("points", 10))
        for stride in STRIDES
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, SIZE, SIZE])
    _save(path, helper.make_graph(nodes + heads, "detector", [pixels], outputs, constants))


def save_recogniser(path: Path, seed: int) -> None:
    """One convolution and one linear layer with random weights: 112 pixels in, EMBEDDING numbers out."""
    draw = np.random.default_rng(seed)
    kernel = draw.normal(size=(8, 3, 16, 16)).astype(np.float32) / 16
    matrix = draw.normal(size=(EMBEDDING, 8 * 49)).astype(np.float32) / 20
    constants = [
        _constant("kernel", kernel),
        _constant("bias", np.zeros(8, dtype=np.float32)),
        _constant("matrix", matrix),
        _constant("offset", np.zeros(EMBEDDING, dtype=np.float32)),
    ]
    nodes = [
        helper.make_node("Conv", ["data", "kernel", "bias"], ["cells"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Tanh", ["cells"], ["activations"]),
        helper.make_node("Flatten", ["activations"], ["row"], axis=1),
        helper.make_node("Gemm", ["row", "matrix", "offset"], ["embedding"], transB=1),
    ]
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["N", 3, 112, 112])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", EMBEDDING])
    _save(path, helper.make_graph(nodes, "recogniser", [data], [embedding], constants))


def build_face_packs(root: Path) -> dict[str, str]:
    """Three packs below `root`, different in their recogniser's weights; the folder of each by its role."""
    for seed, role in enumerate(("loss", "select", "report")):
        save_detector(root / role / "detector.onnx")
        save_recogniser(root / role / "recogniser.onnx", seed)
    return {role: str(root / role) for role in ("loss", "select", "report")}
