"""Segmentation head of one convolution and a classifier."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from gald.model.layers import ConvNormAct
from gald.options.ranges import Share, Width


class FCNHead(nn.Module):
    """Head that reads x alone: a 3x3 convolution, then the classifier.

    Paper: "Fully Convolutional Networks for Semantic Segmentation",
    https://arxiv.org/abs/1411.4038, in the form without skips that later work compares with.
    Reference: open-mmlab/mmsegmentation@0d003bc mmseg/models/decode_heads/fcn_head.py:FCNHead with
    num_convs=2 and concat_input=False; its first convolution is the Segmentor's `reduce`, before
    the context slots. With concat_input=True it is `model/head=gald`. Deviation from the paper: no
    scores of finer maps are added, and no layer is as large as the classifier of VGG.

    Args:
        in_channels: widths of the maps, finest first.
        in_strides: their strides.
        channels: width of x and of the hidden map.
        num_classes: number of classes.
        dropout: probability of dropping a channel before the classifier.

    Shape:
        maps, x (B, C, h, w) -> (B, K, h, w)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        channels: Width,
        num_classes: int,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__()
        self.hidden = ConvNormAct(channels, channels, 3)
        self.classify = nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(channels, num_classes, 1))

    @override
    def forward(self, maps: tuple[Tensor, ...], x: Tensor) -> Tensor:
        return self.classify(self.hidden(x))
