"""Hamburger: global aggregation by a low-rank reconstruction of the whole map."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Width

_EPSILON = 1e-6  # keeps the quotients of maps without any activation finite


class Hamburger(nn.Module):
    """Hamburger: replaces the map by a product of two small non-negative matrices, fitted to it.

    With Y = ReLU(W1 x) as (width, N) matrix and D a stored (width, rank) matrix:
    C = softmax_rank(Y^T D), then `iterations` times the multiplicative updates
    C <- C * Y^T D / (C D^T D) and D <- D * Y C / (D C^T C), and a last one of C;
    out = ReLU(x + BN(W2 D C^T)). What few components explain is the context of the image, the rest
    is taken for noise.

    Paper: "Is Attention Better Than Matrix Decomposition?", https://arxiv.org/abs/2109.04553, its
    non-negative matrix factorisation
    Reference: Gsunshine/Enjoy-Hamburger@5ca207e seg/HamNet/hamburger/burger.py:HamburgerV1 and
    ham.py:NMF2D. As there, gradients flow through the last update of C only (the paper's one-step
    gradient), and evaluation takes one more iteration than training. Deviations: D starts from one
    matrix that is drawn when the module is built and stored in the checkpoint. The reference draws
    a new one for every image, in evaluation too, so that two passes over an image differ; here
    they are equal, and all processes start from the same. The factorisation and the convolution
    after it have the dtype of the weights even under autocast.

    Args:
        channels: width of the feature map, in and out.
        width: width of the factorised map; None is channels.
        rank: number of components.
        iterations: updates of both matrices in training.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    bases: Tensor

    def __init__(
        self,
        channels: Width,
        width: Width | None = None,
        rank: Count = 64,
        iterations: Count = 6,
    ) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(
                f"iterations ({iterations}) must be at least 1; set iterations=6 as in the paper"
            )
        width = channels if width is None else width
        self.iterations = iterations
        self.enter = nn.Conv2d(channels, width, 1)
        self.project = ConvNormAct(width, channels, act=False)
        self.register_buffer("bases", F.normalize(torch.rand(width, rank), dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Factorise the map and add what the factors reconstruct to x."""
        y = self.enter(x).relu().flatten(2)  # (B, width, N)
        with torch.autocast(x.device.type, enabled=False):
            y = y.to(self.bases.dtype)
            bases, codes = self._factorise(y.detach())
            codes = _update(codes, y.transpose(1, 2), bases)  # (B, N, rank)
            y = (bases @ codes.transpose(1, 2)).unflatten(2, x.shape[2:])
            y = self.project(y)
        return (x + y.to(x.dtype)).relu()

    def _factorise(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Fit bases (B, width, rank) and codes (B, N, rank) to a map without gradient."""
        bases = self.bases.expand(y.shape[0], -1, -1)
        codes = (y.transpose(1, 2) @ bases).softmax(dim=2)
        for _ in range(self.iterations if self.training else self.iterations + 1):
            codes = _update(codes, y.transpose(1, 2), bases)
            bases = _update(bases, y, codes)
        return bases, codes


def _update(factor: Tensor, y: Tensor, other: Tensor) -> Tensor:
    """Apply one multiplicative update to the first factor of y = factor other^T."""
    return factor * (y @ other) / (factor @ (other.transpose(1, 2) @ other) + _EPSILON)
