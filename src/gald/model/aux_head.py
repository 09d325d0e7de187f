"""Auxiliary head: deep supervision of the backbone."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import ConvNormAct
from gald.options.ranges import Share, Width


class AuxHead(nn.Module):
    """Auxiliary head: class scores from an intermediate backbone map, for deep supervision.

    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:dsn (its 3x3 convolution has a bias
    although batch norm follows; kept here, so that parameter counts match).

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of the hidden map.
        num_classes: number of classes.
        index: index of the map to read; negative values count from the end.
        dropout: probability of dropping a channel before the classifier.
        act: whether a ReLU follows the hidden convolution; in libs/models/DualGCNNet.py none does.

    Shape:
        maps -> (B, K, h, w) at the size of the map that `index` selects

    Raises:
        ValueError: no map has this index.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        num_classes: int,
        index: int = -2,
        dropout: Share = 0.1,
        act: bool = True,
    ) -> None:
        super().__init__()
        count = len(in_channels)
        if not -count <= index < count:
            raise ValueError(
                f"model.aux_head.index is {index}, but the number of maps is {count}; set "
                f"model/aux_head=none, or model.aux_head.index to {-count}..{count - 1}"
            )
        self.index = index
        self.hidden = ConvNormAct(in_channels[index], channels, 3, bias=True, act=act)
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, num_classes, 1)

    @override
    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return self.classify(self.dropout(self.hidden(maps[self.index])))
