"""The graph of buffalo_l's recogniser, IResNet at 112 px with random weights: as large as published, and it opens."""

import numpy as np
import onnxruntime
import torch
from torch import nn

from benchmarks.sdxl import IRESNET50, REDUCED, iresnet
from lookahead import world
from lookahead.models.recogniser import open_recogniser

PUBLISHED = 174_383_860  # bytes of w600k_r50.onnx, float32


def test_it_has_the_published_size():
    with torch.device("meta"):
        network = iresnet(**IRESNET50)
    numbers = sum(tensor.numel() for tensor in network.state_dict().values())
    assert abs(4 * numbers / PUBLISHED - 1) < 1e-3


def test_the_graph_opens_as_onnxruntime_runs_it_and_has_a_gradient(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = iresnet(**REDUCED.recogniser)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):  # in a trained network's order of size
                module.running_var.uniform_(0.5, 2.0)
                module.running_mean.normal_(0, 0.1)
    torch.onnx.export(
        network.eval(),
        (torch.zeros(1, 3, 112, 112),),
        str(tmp_path / "w600k_r50.onnx"),
        input_names=["data"],
        output_names=["embedding"],
        dynamic_axes={"data": {0: "N"}, "embedding": {0: "N"}},
        opset_version=11,  # as insightface exports
        dynamo=False,
    )
    path = world.recogniser_onnx(str(tmp_path))
    crops = (torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (theirs,) = session.run(None, {"data": crops.detach().numpy()})
    ours = open_recogniser(path)(crops)
    np.testing.assert_allclose(ours.detach().numpy(), theirs / np.linalg.norm(theirs, axis=1, keepdims=True), atol=2e-5)
    ours[:, 0].sum().backward()
    assert ours.shape == (2, 512) and (crops.grad.abs().sum((1, 2, 3)) > 0).all()
