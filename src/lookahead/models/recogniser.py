"""The face recogniser of an insightface pack as a torch module, so that Eq. 4 has a gradient."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from lookahead.errors import InputError


class Recogniser(nn.Module):
    """Unit embeddings (B, E) from aligned crops (B, 3, 112, 112), RGB in [-1, 1]; frozen (Eq. 4)."""

    def __init__(self, network: nn.Module, mean: float, std: float) -> None:
        """Wrap a network that wants (grey value - mean) / std for grey values in [0, 255]."""
        super().__init__()
        self.network = network.eval().requires_grad_(False)  # in training mode BatchNorm would use the batch
        self.factor, self.shift = 127.5 / std, (127.5 - mean) / std

    def forward(self, crops: Tensor) -> Tensor:
        """Embed the crops."""
        return nn.functional.normalize(self.network(crops.float() * self.factor + self.shift), dim=1)


def open_recogniser(path: Path) -> Recogniser:
    """Open a pack's recogniser, an ONNX file with one image input and one output (Eq. 4)."""
    import onnx
    import onnx2torch
    from insightface.model_zoo.arcface_onnx import ArcFaceONNX

    try:
        normal = ArcFaceONNX(str(path))  # insightface guesses the normalisation from the graph: take its answer
        network = onnx2torch.convert(onnx.load(path))  # of a path it would write a temporary file
    except Exception as error:  # onnx, onnxruntime and onnx2torch share no base class
        raise InputError(f"the recogniser {path} cannot be opened: {error}; fetch the face pack again") from error
    return Recogniser(network, normal.input_mean, normal.input_std)
