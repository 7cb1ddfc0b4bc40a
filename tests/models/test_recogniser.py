"""The torch recogniser against onnxruntime and insightface, and its gradient."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

from lookahead import world
from lookahead.config import Checkpoints
from lookahead.errors import InputError
from lookahead.models.recogniser import Recogniser, open_recogniser
from tests.disk import largest_file
from tests.tiny_faces import save_recogniser

MINIATURE = Path("models/miniature/faces/models")


def recogniser_files() -> list[Path]:
    """The miniature's recognisers, where they are built: `tiny` stands for a small one that the test writes."""
    return [Path("tiny"), *sorted(MINIATURE.glob("*/rec.onnx"))]


@pytest.fixture(params=recogniser_files(), ids=str)
def onnx_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param != Path("tiny"):
        return request.param
    save_recogniser(tmp_path / "recogniser.onnx", 0)
    return tmp_path / "recogniser.onnx"


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_embeddings_equal_onnxruntime(onnx_file):
    crops = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: crops.numpy()})
    ours = open_recogniser(onnx_file)(crops)
    np.testing.assert_allclose(ours.detach().numpy(), unit(theirs), atol=1e-5)


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


def test_embeddings_are_unit_vectors_in_any_input_format(onnx_file):
    crops = torch.zeros(1, 3, 112, 112, dtype=torch.bfloat16) + 0.5
    embedding = open_recogniser(onnx_file)(crops)
    assert embedding.dtype == torch.float32
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(1))


def test_normalisation_inside_the_graph_is_followed():
    """Old packs subtract the mean inside the graph and want grey values in [0, 255]."""
    recogniser = Recogniser(torch.nn.Flatten(), mean=0.0, std=1.0)
    crops = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(recogniser(crops), torch.nn.functional.normalize(torch.tensor([[0.0, 127.5, 255.0]])))


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "recogniser.onnx"
    save_recogniser(path, 0)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=str(path)):
        open_recogniser(path)


def test_opening_writes_nothing(tmp_path):
    """On a full disk it opens all the same; a file that may hold nothing stands for one."""
    save_recogniser(tmp_path / "recogniser.onnx", 0)
    with largest_file(0):
        assert open_recogniser(tmp_path / "recogniser.onnx")(torch.zeros(1, 3, 112, 112)).shape[0] == 1


def test_the_pack_of_the_loss_opens(tiny_world: Checkpoints):
    assert open_recogniser(world.recogniser_onnx(tiny_world.faces.loss))(torch.zeros(1, 3, 112, 112)).shape[0] == 1
