"""The auxiliary head, which supervises the backbone directly."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import ConvNormAct


class AuxHead(nn.Module):
    """Scores the classes from a middle map, to supervise the backbone directly.

    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:dsn (its 3x3 convolution carries a
    bias although batch norm follows; kept, so that parameter counts agree).

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of the hidden map.
        num_classes: classes to score.
        index: which map to read, counted as Python counts.
        dropout: probability that a channel is dropped before the classifier.
        act: whether the hidden map is rectified; that of libs/models/DualGCNNet.py is not.

    Shape:
        maps -> (B, K, h, w) at the size of the map read
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: int,
        num_classes: int,
        index: int = -2,
        dropout: float = 0.1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.index = index
        self.hidden = ConvNormAct(in_channels[index], channels, 3, bias=True, act=act)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    @override
    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.classify(self.dropout(self.hidden(maps[self.index])))
