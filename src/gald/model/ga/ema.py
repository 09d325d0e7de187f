"""Expectation-maximisation attention: global aggregation through a small set of learned bases."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct


class EMA(nn.Module):
    """Redraws every position from a few bases that are fitted to the image, and adds that to x.

    With y a 1x1 projection of x and mu the stored bases, `iterations` times
    z_nk = softmax_k(<y_n, mu_k>) and mu_k = sum_n z_nk y_n / sum_n z_nk, scaled to length 1;
    out = x + BN(W ReLU(z mu)). In training the stored bases follow the batch's mean as a moving
    average, scaled to length 1; in evaluation they are only the start of the iterations.

    Paper: "Expectation-Maximization Attention Networks for Semantic Segmentation",
    https://arxiv.org/abs/1907.13426
    Deviations: gradients flow through all iterations, which the authors' code cuts off, so that
    there the first projection never learns; the stored bases keep length 1; no ReLU after the
    sum; from the iterations to the norm everything runs in the dtype of the weights, because the
    norm magnifies what rounding leaves of nearly equal positions. The output in training depends
    on the stored bases, so two passes over one batch differ slightly.

    With several processes the mean of the bases is all-reduced, so all store the same.

    Args:
        channels: width of the feature map, in and out.
        bases: how many bases.
        iterations: how many times bases and responsibilities are fitted in turn.
        momentum: how much of the stored bases one training step keeps.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    mu: Tensor

    def __init__(
        self, channels: int, bases: int = 64, iterations: int = 3, momentum: float = 0.9
    ) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations ({iterations}) must be at least 1; the paper takes 3")
        self.iterations = iterations
        self.momentum = momentum
        self.enter = nn.Conv2d(channels, channels, 1)
        self.project = ConvNormAct(channels, channels, act=False)
        self.register_buffer("mu", F.normalize(torch.randn(bases, channels), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Fit the bases, redraw, add to x."""
        y = self.enter(x).flatten(2).transpose(1, 2)  # (B, N, C)
        with torch.autocast(x.device.type, enabled=False):
            y = y.to(self.mu.dtype)
            # A copy: the stored bases change below, the backward pass needs those of now.
            mu = self.mu.clone().expand(x.shape[0], -1, -1)  # (B, bases, C)
            z = y.new_empty(0)
            for _ in range(self.iterations):
                z = (y @ mu.transpose(1, 2)).softmax(dim=2)  # (B, N, bases)
                # Scaling to length 1 makes the division by sum_n z_nk needless.
                mu = F.normalize(z.transpose(1, 2) @ y, dim=2)
            if self.training:
                self._follow(mu.detach().mean(dim=0))
            redrawn = (z @ mu).transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C, h, w)
            out = self.project(redrawn.relu())
        return x + out.to(x.dtype)

    def _follow(self, mean: Tensor) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.mu.copy_(F.normalize(self.momentum * self.mu + (1 - self.momentum) * mean, dim=1))
