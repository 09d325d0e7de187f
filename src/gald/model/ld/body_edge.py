"""Body and edge: a smoothed body of the context plus edges refined by the local feature."""

import torch
from torch import Tensor, nn

from gald.model.layers import ConvNormAct, resize
from gald.model.warping import warp
from gald.options.ranges import Width


class BodyEdge(nn.Module):
    """Body and edge: splits the context in a body and an edge part, and refines the edge from x.

    With s the context on a quarter of the resolution, by two strided depth-wise convolutions, and
    back: body(p) = context(p + d(p)), the flow d a 3x3 convolution of [context, s];
    edge = W [context - body, x]; A = sigmoid(E edge);
    out = body + A * edge. The flow moves positions towards the inside of their object, so that the
    body is even and the rest is what lies at edges. Low-level detail enters at edges alone.

    Paper: "Improving Semantic Segmentation via Decoupled Body and Edge Supervision",
    https://arxiv.org/abs/2007.10035, by authors of GALD.
    Reference: lxtGH/DecoupleSegNets@0666aca network/deepv3_decouple.py:SqueezeBodyEdge and the
    edge part of DeepV3Plus. Deviations: no losses on body and edge, since an LD has no loss of its
    own; so the predicted edge map A weights the edge part, where the paper only supervises it; the
    fine feature is x, not an early map of the backbone, and has the size of the context; the
    strided convolutions are padded, so that maps below 7x7 work; the flow is in pixels, where one
    unit of the reference is about half a pixel, starts near 0 and has a bias; places outside the
    map read its border, not 0; flow and places have the dtype of the weights even under autocast.
    The concatenation with the context that follows in the paper is left to the head.

    Args:
        channels: width of the feature maps.
        width: hidden width of the edge map.
        align_corners: how s is resized.

    Shape:
        context, x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(self, channels: Width, width: Width = 48, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.down = nn.Sequential(
            *(ConvNormAct(channels, channels, 3, stride=2, groups=channels) for _ in range(2))
        )
        self.move = nn.Conv2d(2 * channels, 2, 3, padding=1)
        self.refine = nn.Conv2d(2 * channels, channels, 1, bias=False)
        self.find = nn.Sequential(ConvNormAct(channels, width, 3), nn.Conv2d(width, 1, 1))
        # Small, so that the body starts as the context; not zero, so that all layers learn.
        for parameter in self.move.parameters():
            nn.init.normal_(parameter, std=0.001)

    def distribution_map(self, context: Tensor, x: Tensor) -> Tensor:
        """Return the edge map A: 1 adds the edge feature, 0 leaves the body of the context alone.

        Args:
            context: the globally aggregated feature.
            x: the feature before aggregation.

        Shape:
            context, x: (B, C, h, w) -> (B, 1, h, w)
        """
        return torch.sigmoid(self.find(self._split(context, x)[1]))

    def forward(self, context: Tensor, x: Tensor) -> Tensor:
        """Add the refined edge to the body, where there is an edge."""
        body, edge = self._split(context, x)
        return (body + torch.sigmoid(self.find(edge)) * edge).to(context.dtype)

    def _split(self, context: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        smooth = resize(self.down(context), context.shape[2:], self.align_corners)
        flow = self.move(torch.cat([context, smooth.to(context.dtype)], dim=1))
        with torch.autocast(x.device.type, enabled=False):
            exact = context.to(self.move.weight.dtype)
            body = warp(exact, flow.to(exact.dtype))
        edge = self.refine(torch.cat([(exact - body).to(x.dtype), x], dim=1))
        return body, edge.to(body.dtype)
