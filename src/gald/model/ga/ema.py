"""Expectation-maximisation attention: global aggregation through a small set of learned bases."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from gald.model.layers import ConvNormAct
from gald.options.ranges import Count, Share, Width


class EMA(nn.Module):
    """Expectation-maximisation attention: reconstructs every position from a few fitted bases.

    With y a 1x1 projection of x and mu the stored bases, `iterations` times
    z_nk = softmax_k(<y_n, mu_k>) and mu_k = sum_n z_nk y_n / sum_n z_nk, scaled to length 1;
    out = x + BN(W ReLU(z mu)). In training the stored bases are a moving average of the batch mean,
    scaled to length 1; in evaluation they only initialise the iterations.

    Paper: "Expectation-Maximization Attention Networks for Semantic Segmentation",
    https://arxiv.org/abs/1907.13426
    Deviations: gradients flow through all iterations; the authors' code stops them, so that its
    first projection never learns; the stored bases keep length 1; no ReLU after the sum; everything
    from the iterations to the norm runs in the dtype of the weights, because the norm amplifies the
    rounding errors of nearly equal positions. The output in training depends on the stored bases,
    so two passes over one batch differ slightly.

    With several processes the mean of the bases is all-reduced, so that all store the same bases.

    Args:
        channels: width of the feature map, in and out.
        bases: number of bases.
        iterations: number of iterations; each fits the responsibilities, then the bases.
        momentum: fraction of the stored bases that one training step keeps.

    Shape:
        x: (B, C, h, w) -> (B, C, h, w)
    """

    mu: Tensor

    def __init__(
        self,
        channels: Width,
        bases: Count = 64,
        iterations: Count = 3,
        momentum: Share = 0.9,
    ) -> None:
        super().__init__()
        if iterations < 1:
            raise ValueError(
                f"iterations ({iterations}) must be at least 1; set iterations=3 as in the paper"
            )
        self.iterations = iterations
        self.momentum = momentum
        self.enter = nn.Conv2d(channels, channels, 1)
        self.project = ConvNormAct(channels, channels, act=False)
        self.register_buffer("mu", F.normalize(torch.randn(bases, channels), dim=1))

    def forward(self, x: Tensor) -> Tensor:
        """Fit the bases, reconstruct x from them, add the result to x."""
        y = self.enter(x).flatten(2).transpose(1, 2)  # (B, N, C)
        with torch.autocast(x.device.type, enabled=False):
            y = y.to(self.mu.dtype)
            # A copy: the stored bases change below, but the backward pass needs the present ones.
            mu = self.mu.clone().expand(x.shape[0], -1, -1)  # (B, bases, C)
            z = y.new_empty(0)
            for _ in range(self.iterations):
                z = (y @ mu.transpose(1, 2)).softmax(dim=2)  # (B, N, bases)
                # Scaling to length 1 makes the division by sum_n z_nk unnecessary.
                mu = F.normalize(z.transpose(1, 2) @ y, dim=2)
            if self.training:
                self._update_bases(mu.detach().mean(dim=0))
            reconstructed = (z @ mu).transpose(1, 2).unflatten(2, x.shape[-2:])  # (B, C, h, w)
            out = self.project(reconstructed.relu())
        return x + out.to(x.dtype)

    def _update_bases(self, mean: Tensor) -> None:
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean = mean / dist.get_world_size()
        self.mu.copy_(F.normalize(self.momentum * self.mu + (1 - self.momentum) * mean, dim=1))
