"""The torch recogniser against onnxruntime and insightface, and its gradient."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

from lookahead.errors import InputError
from lookahead.models.recogniser import Recogniser, open_recogniser
from tests.project import largest_file
from tests.tiny_faces import save_recogniser

PACKS = sorted(Path("models/miniature/faces/models").glob("*/rec.onnx"))  # where they are built


@pytest.fixture
def tiny_file(tmp_path) -> Path:
    save_recogniser(tmp_path / "recogniser.onnx", 0)
    return tmp_path / "recogniser.onnx"


@pytest.fixture(params=[None, *PACKS], ids=str)
def onnx_file(request, tiny_file) -> Path:
    return request.param or tiny_file


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_equal_onnxruntime_and_are_unit_vectors_in_any_input_format(onnx_file):
    crops = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: crops.numpy()})
    recogniser = open_recogniser(onnx_file)
    np.testing.assert_allclose(recogniser(crops).numpy(), unit(theirs), atol=1e-5)
    embeddings = recogniser(crops.bfloat16())
    assert embeddings.dtype == torch.float32
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))


def test_embeddings_equal_insightface_on_a_picture(onnx_file):
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)  # BGR, as insightface wants it
    theirs = ArcFaceONNX(str(onnx_file)).get_feat(picture)
    crops = torch.from_numpy(picture[..., ::-1].copy()).permute(2, 0, 1)[None] / 127.5 - 1
    np.testing.assert_allclose(open_recogniser(onnx_file)(crops).numpy(), unit(theirs), atol=1e-5)


def test_gradients_reach_the_input_and_no_weight(onnx_file):
    recogniser = open_recogniser(onnx_file)
    crops = (torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(1)) * 2 - 1).requires_grad_()
    recogniser(crops)[:, 0].sum().backward()
    assert crops.grad is not None and (crops.grad.abs().sum((1, 2, 3)) > 0).all()
    assert all(not p.requires_grad and p.grad is None for p in recogniser.parameters())
    assert not any(module.training for module in recogniser.network.modules())


def test_normalisation_inside_the_graph_is_followed():
    """Old packs subtract the mean inside the graph and want grey values in [0, 255]."""
    recogniser = Recogniser(torch.nn.Flatten(), mean=0.0, std=1.0)
    crops = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(recogniser(crops), torch.nn.functional.normalize(torch.tensor([[0.0, 127.5, 255.0]])))


def test_a_truncated_file_is_named(tiny_file):
    tiny_file.write_bytes(tiny_file.read_bytes()[:1000])
    with pytest.raises(InputError, match=str(tiny_file)):
        open_recogniser(tiny_file)


def test_opening_writes_nothing(tiny_file):
    """On a full disk it opens all the same; a file that may hold nothing stands for one."""
    with largest_file(0):
        assert open_recogniser(tiny_file)(torch.zeros(1, 3, 112, 112)).shape[0] == 1
