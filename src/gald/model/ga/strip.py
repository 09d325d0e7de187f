"""Strip pooling: global aggregation by averages over whole rows, whole columns and cells."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, adaptive_avg_pool, resize
from gald.options.ranges import Counts, Width


class StripPooling(nn.Module):
    """Mixed pooling with strips: averages of rows and columns, and of the cells of two grids.

    With u, v two projections of x to a quarter of the channels and every W a convolution with norm:
    s = W ReLU(W1x3 mean_columns(v) + W3x1 mean_rows(v)), each mean spread over its strip;
    c = W ReLU(W3x3 u + up(W3x3 mean_20(u)) + up(W3x3 mean_12(u))); out = ReLU(x + W [c, s]). Long,
    thin objects and things in line, such as lamp posts, fall into one strip; a square cell mixes
    them with their surroundings.

    Paper: "Strip Pooling: Rethinking Spatial Pooling for Scene Parsing",
    https://arxiv.org/abs/2003.13328, its mixed pooling module, which stands behind the backbone;
    not its strip pooling module, a gate of the same strips, which stands in the backbone.
    Reference: houqb/SPNet@cde822a models/customize.py:StripPooling, the same output with its
    weights and align_corners=True. Deviations: bins are an option; trains where a norm sees a
    single value (see ConvNormAct).

    Args:
        channels: width of the feature map, in and out.
        bins: grid sizes of the pooled cells, one branch each.
        align_corners: how the pooled cells are resized.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self, channels: Width, bins: Counts = (20, 12), align_corners: bool = False
    ) -> None:
        super().__init__()
        width = max(channels // 4, 1)
        self.bins = tuple(bins)
        self.align_corners = align_corners
        self.enter_cells = ConvNormAct(channels, width)
        self.enter_strips = ConvNormAct(channels, width)
        self.cells = nn.ModuleList(
            ConvNormAct(width, width, 3, act=False) for _ in range(1 + len(self.bins))
        )
        self.along_columns = ConvNormAct(width, width, (1, 3), act=False)
        self.along_rows = ConvNormAct(width, width, (3, 1), act=False)
        self.leave_cells = ConvNormAct(width, width, 3)
        self.leave_strips = ConvNormAct(width, width, 3)
        self.project = ConvNormAct(2 * width, channels, act=False)

    def forward(self, x: Tensor) -> Tensor:
        """Pool cells and strips, fuse them, add the result to x."""
        u, v = self.enter_cells(x), self.enter_strips(x)
        cells = self.leave_cells(self._pool_cells(u).relu())
        strips = self.leave_strips(self._pool_strips(v).relu())
        y = self.project(torch.cat([cells, strips.to(cells.dtype)], dim=1))
        return (x + y.to(x.dtype)).relu()

    def _pool_cells(self, u: Tensor) -> Tensor:
        total = self.cells[0](u)
        for cells, layer in zip(self.bins, list(self.cells)[1:], strict=True):
            pooled = layer(adaptive_avg_pool(u, cells))
            total = total + resize(pooled, u.shape[2:], self.align_corners)
        return total

    def _pool_strips(self, v: Tensor) -> Tensor:
        # In the dtype of the weights: a sum over a whole column overflows float16.
        dtype = self.project.conv.weight.dtype
        columns = self.along_columns(v.mean(dim=2, keepdim=True, dtype=dtype))  # (B, C/4, 1, w)
        rows = self.along_rows(v.mean(dim=3, keepdim=True, dtype=dtype))  # (B, C/4, h, 1)
        return columns + rows
