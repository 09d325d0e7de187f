"""Textbook formulations from papers and their code, with the weights of our modules."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from gald.model.ga.cc import CrissCross
from gald.model.ga.cgnl import CGNL
from gald.model.ga.nonlocal_block import NonLocal
from gald.model.layers import AtStride
from gald.model.ld.mask import Mask


def nonlocal_(module: NonLocal, x: Tensor) -> Tensor:
    """Compute attention with one explicit N x N matrix."""
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    weights = torch.bmm(q.transpose(1, 2), k) / q.shape[1] ** 0.5
    y = torch.bmm(v, weights.softmax(dim=-1).transpose(1, 2))
    return x + module.project(y.unflatten(2, x.shape[-2:]))


def criss_cross(module: CrissCross, x: Tensor) -> Tensor:
    """Compute rows and columns as two batched products over permuted copies, the usual form."""
    for _ in range(module.recurrences):
        x = module.gamma * _criss_cross_once(module, x) + x
    return x


def _criss_cross_once(module: CrissCross, x: Tensor) -> Tensor:
    parts = zip(
        module.qkv.weight.split(module.widths), module.qkv.bias.split(module.widths), strict=True
    )
    q, k, v = (F.conv2d(x, weight[:, :, None, None], bias) for weight, bias in parts)
    return rows_and_columns(q, k, v)


def rows_and_columns(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Compute one round without projections; all tensors are (B, channels, h, w)."""
    b, _, h, w = v.shape
    q_columns = q.permute(0, 3, 1, 2).reshape(b * w, -1, h).permute(0, 2, 1)
    q_rows = q.permute(0, 2, 1, 3).reshape(b * h, -1, w).permute(0, 2, 1)
    k_columns, v_columns = (t.permute(0, 3, 1, 2).reshape(b * w, -1, h) for t in (k, v))
    k_rows, v_rows = (t.permute(0, 2, 1, 3).reshape(b * h, -1, w) for t in (k, v))
    duplicate = torch.diag(torch.full((h,), float("inf"))).repeat(b * w, 1, 1)
    columns = (torch.bmm(q_columns, k_columns) - duplicate).view(b, w, h, h).permute(0, 2, 1, 3)
    rows = torch.bmm(q_rows, k_rows).view(b, h, w, w)
    weights = torch.cat([columns, rows], dim=3).softmax(dim=3)
    columns = weights[..., :h].permute(0, 2, 1, 3).reshape(b * w, h, h)
    rows = weights[..., h:].reshape(b * h, w, w)
    along_columns = torch.bmm(v_columns, columns.permute(0, 2, 1)).view(b, w, -1, h)
    along_rows = torch.bmm(v_rows, rows.permute(0, 2, 1)).view(b, h, -1, w)
    return along_columns.permute(0, 2, 3, 1) + along_rows.permute(0, 2, 1, 3)


def gald_block(ga: AtStride, ld: Mask, x: Tensor) -> Tensor:
    """Compute the block as in the authors' code: CGNL loop at half resolution, mask, two sums."""
    low = cgnl(cast(CGNL, ga.module), ga.down(x))
    context = F.interpolate(low, size=x.shape[-2:], mode="bilinear", align_corners=True)
    distributed = context + context * ld.distribution_map(context, x)
    return context + distributed


def cgnl(module: CGNL, x: Tensor) -> Tensor:
    """Loop over the groups in Python, as in the authors' code."""
    t, p, g = module.t(x), module.p(x), module.g(x)
    groups = module.groups
    kernels = module.z.weight.chunk(groups)
    parts = []
    for t_group, p_group, g_group, kernel in zip(
        t.chunk(groups, 1), p.chunk(groups, 1), g.chunk(groups, 1), kernels, strict=True
    ):
        scalar = torch.bmm(p_group.flatten(1).unsqueeze(1), g_group.flatten(1).unsqueeze(2))
        parts.append(F.conv2d(scalar.unsqueeze(3) * t_group, kernel))
    return x + module.gn(torch.cat(parts, dim=1))
