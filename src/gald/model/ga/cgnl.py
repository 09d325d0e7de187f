"""Compact generalised non-local block: global aggregation at the cost of four 1x1 convolutions."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.options.ranges import Count, Width


class CGNL(nn.Module):
    """Compact generalised non-local block: one global scalar per channel group scales the context.

    With t, p, g the three 1x1 projections of x, split into groups: per group i the scalar
    a_i = <p_i, g_i> over channels and positions; out = x + GN(z(a * t)), z a grouped 1x1
    convolution.

    Known limitation, inherited from the reference and kept by default: z and the group norm use the
    same groups, so the norm divides the scalar out again. Unless activations are tiny, only the
    sign of the scalar has an effect. With norm_groups=1 (ours), one norm over all channels divides
    out only what the scalars have in common; their ratios then set how much each group adds.

    Paper: "Compact Generalized Non-local Network", https://arxiv.org/abs/1810.13125 (dot-product
    kernel).
    Reference: lxtGH/GALD-DGCNet@be7ebfe libs/models/GALDNet.py:SpatialCGNL. Deviations that do
    not change the maths: no loop over groups; everything after the projections runs in the dtype of
    the weights even under autocast, because a sum over a whole map overflows float16;
    channels_last works.

    Args:
        channels: width of the feature map, in and out.
        groups: channel groups, one scalar each; must divide channels and planes.
        planes: width of the projections; None is half of channels.
        use_scale: whether the scalar is divided by the square root of its number of terms.
        norm_groups: groups of the last norm; None is groups, as in the reference; 1 keeps the
            ratios of the scalars; must divide channels.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    def __init__(
        self,
        channels: Width,
        groups: Count = 8,
        planes: Width | None = None,
        use_scale: bool = False,
        norm_groups: Count | None = None,
    ) -> None:
        super().__init__()
        planes = channels // 2 if planes is None else planes
        norm_groups = groups if norm_groups is None else norm_groups
        for name, width in (("channels", channels), ("planes", planes)):
            if groups < 1 or width < groups or width % groups:
                raise ValueError(
                    f"{name} ({width}) must be divisible by groups ({groups});"
                    f" choose groups that divides {name}"
                )
        if norm_groups < 1 or channels % norm_groups:
            raise ValueError(
                f"channels ({channels}) must be divisible by norm_groups ({norm_groups});"
                " choose norm_groups that divides channels"
            )
        self.groups = groups
        self.use_scale = use_scale
        self.t = nn.Conv2d(channels, planes, 1, bias=False)
        self.p = nn.Conv2d(channels, planes, 1, bias=False)
        self.g = nn.Conv2d(channels, planes, 1, bias=False)
        self.z = nn.Conv2d(planes, channels, 1, groups=groups, bias=False)
        self.gn = nn.GroupNorm(norm_groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the context and add it to x."""
        projections = F.conv2d(x, torch.cat([self.t.weight, self.p.weight, self.g.weight]))
        # Contiguous: in channels_last the rounding error of the gradient is ten times larger.
        projections = projections.contiguous().flatten(2)  # (B, 3C/2, N)
        with torch.autocast(x.device.type, enabled=False):
            projections = projections.to(self.z.weight.dtype)
            t, p, g = projections.unflatten(1, (3, self.groups, -1)).unbind(1)  # (B, G, C/2G, N)
            scalar = p.flatten(2).unsqueeze(2) @ g.flatten(2).unsqueeze(3)  # (B, G, 1, 1)
            if self.use_scale:
                scalar = scalar / (p.shape[2] * p.shape[3]) ** 0.5
            z = self.z.weight.flatten(1).unflatten(0, (self.groups, -1))  # (G, C/G, C/2G)
            y = (scalar * z) @ t  # z(a * t): scaling the kernel is cheaper than the map
            y = self.gn(y.flatten(1, 2).unflatten(2, x.shape[2:]))  # (B, C, h, w)
        return x + y.to(x.dtype)
