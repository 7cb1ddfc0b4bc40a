"""The real graph of buffalo_l's recogniser, IResNet-50 at 112 px, with random weights: it is as large as published."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from benchmarks.sdxl import IRESNET50, iresnet
from lookahead import world
from lookahead.models.recogniser import open_recogniser
from tests.sdxl.published import RECOGNISER_BYTES


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack with the recogniser alone, its normalisation layers in a trained network's order of size."""
    folder = tmp_path_factory.mktemp("pack")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = iresnet(**IRESNET50)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.running_var.uniform_(0.5, 2.0)
                module.running_mean.normal_(0, 0.1)
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, 112, 112),),
        str(folder / "w600k_r50.onnx"),
        input_names=["data"],
        output_names=["embedding"],
        dynamic_axes={"data": {0: "N"}, "embedding": {0: "N"}},
        opset_version=11,  # as insightface exports
        dynamo=False,
    )
    return folder


def test_the_graph_of_the_published_size_opens_as_onnxruntime_runs_it_and_has_a_gradient(pack):
    path = world.recogniser_onnx(str(pack))
    assert abs(path.stat().st_size / RECOGNISER_BYTES - 1) < 1e-3
    crops = (torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {session.get_inputs()[0].name: crops.detach().numpy()})
    ours = open_recogniser(path)(crops)
    np.testing.assert_allclose(ours.detach().numpy(), theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=2e-5)
    assert ours.shape == (2, 512)
    ours[:, 0].sum().backward()
    assert crops.grad is not None and (crops.grad.abs().sum((1, 2, 3)) > 0).all()
