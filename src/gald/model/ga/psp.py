"""Pyramid pooling: global aggregation by averages over regions of several sizes."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, adaptive_avg_pool, resize
from gald.options.ranges import Counts, Width


class PSP(nn.Module):
    """Pyramid pooling: averages over grids of several sizes, resized back and fused with x.

    The map is averaged to bin x bin cells per bin, each projected to C / bins channels and resized
    back; all of them and x are concatenated and fused by a 3x3 convolution:
    out = W * [x, up(W1 mean_1(x)), up(W2 mean_2(x)), ...].
    With concat_input=False (ours, model/ga=psp_bare) x itself is left out:
    out = W * [up(W1 mean_1(x)), up(W2 mean_2(x)), ...]. The local feature then has no path through
    the module: what the averages lose is lost.

    Paper: "Pyramid Scene Parsing Network", https://arxiv.org/abs/1612.01105
    Reference: open-mmlab/mmsegmentation@0d003bc mmseg/models/decode_heads/psp_head.py:PSPHead, the
    same maths without its classifier: a norm and a ReLU in every branch. PSPModule of GALD's
    authors (lxtGH/GALD-DGCNet@be7ebfe libs/models/PSPNet.py) has no ReLU in the branches.
    Deviations: as many output as input channels, to fit the slot; the branches are channels / bins
    wide, so a quarter of the input by default, as in both references, but not as wide as the
    output; no dropout; trains at batch 1, where the norm of the 1x1 bin uses its running statistics
    (see ConvNormAct).

    Args:
        channels: width of the feature map, in and out.
        bins: grid sizes, one pooled branch each.
        align_corners: how the pooled maps are resized.
        concat_input: whether x is fused with the averages.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        bins: Counts = (1, 2, 3, 6),
        align_corners: bool = False,
        concat_input: bool = True,
    ) -> None:
        super().__init__()
        self.bins = tuple(bins)
        self.align_corners = align_corners
        self.concat_input = concat_input
        if not 1 <= len(self.bins) <= channels:
            raise ValueError(
                f"bins ({len(self.bins)}) must be between 1 and channels ({channels}) in number;"
                " choose fewer bins or more channels"
            )
        width = channels // len(self.bins)
        self.branches = nn.ModuleList(ConvNormAct(channels, width) for _ in self.bins)
        self.fuse = ConvNormAct(channels * concat_input + width * len(self.bins), channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Pool, project, resize and fuse."""
        h, w = x.shape[-2:]
        pooled = [
            resize(branch(adaptive_avg_pool(x, cells)), (h, w), self.align_corners).to(x.dtype)
            for cells, branch in zip(self.bins, self.branches, strict=True)
        ]
        parts = [x, *pooled] if self.concat_input else pooled
        return self.fuse(torch.cat(parts, dim=1)).to(x.dtype)
