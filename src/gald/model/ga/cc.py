"""Criss-cross attention: global aggregation by repeated attention along rows and columns."""

import torch
from torch import Tensor, nn

from gald.options.ranges import Count, Width


class CrissCross(nn.Module):
    """Criss-cross attention to row and column; two rounds connect all positions of the map.

    Per round, over the h + w - 1 positions j of i's row and column:
    x_i <- x_i + gamma * sum_j softmax_j(q_i . k_j) v_j, q, k, v three 1x1 projections of the x of
    that round, the same weights in all rounds. Cost grows with N (h + w), not N^2.
    With residual=False (ours, model/ga=cc_bare) x is not added:
    x_i <- gamma * sum_j softmax_j(q_i . k_j) v_j.

    Paper: "CCNet: Criss-Cross Attention for Semantic Segmentation",
    https://arxiv.org/abs/1811.11721
    Deviations: the attention alone, without the 3x3 convolutions around it, since every slot has
    such convolutions already; gamma starts at 1, not at 0, since the block is part of a new head
    and has no pretrained path to preserve.

    Args:
        channels: width of the feature map, in and out.
        recurrences: number of rounds; with two or more, every position reaches every other.
        key_channels: width of q and k; None is an eighth of channels.
        residual: whether a round adds its result to x.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        recurrences: Count = 2,
        key_channels: Width | None = None,
        residual: bool = True,
    ) -> None:
        super().__init__()
        if recurrences < 1:
            raise ValueError(
                f"recurrences ({recurrences}) must be at least 1; set recurrences=2 to reach all"
                " positions"
            )
        key_channels = max(channels // 8, 1) if key_channels is None else key_channels
        self.recurrences = recurrences
        self.residual = residual
        self.widths = [key_channels, key_channels, channels]
        self.qkv = nn.Linear(channels, sum(self.widths))  # one product for all three
        self.gamma = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """Attend to rows and columns `recurrences` times."""
        for _ in range(self.recurrences):
            # Channels last, so that rows and columns are batches of plain matrix products.
            q, k, v = self.qkv(x.permute(0, 2, 3, 1)).split(self.widths, dim=3)
            y = rows_and_columns(q, k, v, self.qkv.weight.dtype).permute(0, 3, 1, 2)
            y = (self.gamma * y).to(x.dtype)
            x = x + y if self.residual else y
        return x


def rows_and_columns(q: Tensor, k: Tensor, v: Tensor, exact: torch.dtype) -> Tensor:
    """Attend from every position to its row and its column.

    Args:
        q: (B, h, w, D).
        k: (B, h, w, D).
        v: (B, h, w, C).
        exact: dtype of logits and softmax; the logits are not scaled and can overflow float16.

    Returns:
        (B, h, w, C).
    """
    with torch.autocast(v.device.type, enabled=False):
        q, k = q.to(exact), k.to(exact)
        row = q @ k.transpose(2, 3)  # (B, h, w, w)
        q, k = q.transpose(1, 2), k.transpose(1, 2)  # (B, w, h, D)
        column = (q @ k.transpose(2, 3)).transpose(1, 2)  # (B, h, w, h)
        # A position lies both in its row and in its column, but counts once.
        duplicate = torch.eye(v.shape[1], dtype=torch.bool, device=v.device).unsqueeze(1)
        column = column.masked_fill(duplicate, -torch.inf)
        weights = torch.cat([row, column], dim=3).softmax(dim=3).to(v.dtype)
    row, column = weights.split([v.shape[2], v.shape[1]], dim=3)
    along_columns = (column.transpose(1, 2) @ v.transpose(1, 2)).transpose(1, 2)
    return (row @ v).add_(along_columns)  # in place: allocates one map less
