"""Graph of a network that runs without gald's code, for `gald export`."""

from unittest.mock import patch

import torch
from timm.layers import padding
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from typing_extensions import override

from gald.inference import FullImage
from gald.model.layers import pool_by_matrices
from gald.model.network import Network


class FullImageNetwork(nn.Module):
    """Network that scores whole images in one pass and picks the best class, the first if equal.

    Shape:
        image: (B, 3, H, W) uint8 -> scores (B, K, H, W) float, labels (B, H, W) uint8
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model
        self.whole = FullImage(model.align_corners)

    @override
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.whole(self.model, image)
        return scores, scores.argmax(1).to(torch.uint8)


def trace(network: FullImageNetwork, image: Tensor, fixed: bool) -> ExportedProgram:
    """Trace the graph of a network, for any batch, and for any height and width unless `fixed`.

    Args:
        network: in eval mode.
        image: an example (B, 3, H, W) uint8.
        fixed: accept only the height and width of the example.
    """
    free = {0: Dim.AUTO} if fixed else {0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO}
    with torch.no_grad(), patch.object(padding, "get_same_padding", _same_padding):
        return torch.export.export(network, (image,), dynamic_shapes=(free,))


def without_adaptive_pooling(program: ExportedProgram) -> ExportedProgram:
    """Replace adaptive pooling in a graph by two matrix products.

    ONNX has no adaptive pooling; torch.onnx unrolls it for the one size of the example.
    """
    pooling = torch.ops.aten.adaptive_avg_pool2d.default
    return program.run_decompositions({pooling: pool_by_matrices})


def _same_padding(size: int, kernel_size: int, stride: int, dilation: int) -> int:
    """Compute timm's padding in integers, because torch.export (2.15) cannot save a float ceil.

    `max` is left out where it changes nothing. With it the symbolic sizes grow with every layer,
    and tracing EfficientNet-Lite0 takes minutes instead of seconds.
    """
    reach = (kernel_size - 1) * dilation + 1
    padding = ((size + stride - 1) // stride - 1) * stride + reach - size
    return padding if reach >= stride else max(padding, 0)
