import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ga.aspp import ASPP
from gald.model.ga.cgnl import CGNL
from gald.model.ga.nonlocal_block import NonLocal
from gald.model.ga.psp import PSP


def feature(channels=16, size=(9, 11), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator)


@pytest.mark.parametrize("use_scale", [False, True])
@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_cgnl_matches_a_loop_over_groups(use_scale, scale):
    # At a small scale the group norm cannot divide the scalar out, so p and g count.
    torch.manual_seed(0)
    module = CGNL(16, groups=4, use_scale=use_scale).double().eval()
    x = feature(scale=scale).double()
    t, p, g = module.t(x), module.p(x), module.g(x)
    parts = []
    for index, weight in enumerate(module.z.weight.chunk(4)):
        own = slice(2 * index, 2 * index + 2)
        att = (p[:, own] * g[:, own]).sum(dim=(1, 2, 3), keepdim=True)
        if use_scale:
            att = att / math.sqrt(2 * 9 * 11)
        z = F.conv2d(att * t[:, own], weight)
        mean = z.mean(dim=(1, 2, 3), keepdim=True)
        variance = z.var(dim=(1, 2, 3), keepdim=True, unbiased=False)
        parts.append((z - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(module(x), x + torch.cat(parts, 1))


def test_cgnl_survives_scalars_beyond_float16():
    torch.manual_seed(0)
    module = CGNL(16, groups=4)
    x = feature(size=(64, 64), scale=30.0)
    with torch.autocast("cpu", dtype=torch.float16):
        assert module(x).isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 64, "groups": 7}, r"channels \(64\) must be divisible by groups \(7\)"),
        ({"channels": 64, "planes": 20}, r"planes \(20\) must be divisible by groups \(8\)"),
        ({"channels": 8, "groups": 8}, r"planes \(4\) must be divisible by groups \(8\)"),
        ({"channels": 64, "groups": 0}, r"channels \(64\) must be divisible by groups \(0\)"),
    ],
)
def test_cgnl_names_both_widths_when_groups_do_not_divide(arguments, message):
    with pytest.raises(ValueError, match=message):
        CGNL(**arguments)


def test_nonlocal_matches_the_naive_softmax():
    torch.manual_seed(0)
    module = NonLocal(16).double().eval()
    x = 3 * feature().double()
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(8), dim=-1)  # (B, N, N)
    y = (v @ weights.transpose(1, 2)).reshape(2, 8, 9, 11)
    torch.testing.assert_close(module(x), x + module.project(y))


@pytest.mark.parametrize("align_corners", [False, True])
def test_psp_matches_explicit_loops_over_cells(align_corners):
    torch.manual_seed(0)
    module = PSP(16, bins=(1, 2, 3), align_corners=align_corners).double().eval()
    x = feature().double()
    maps = [x]
    for cells, branch in zip((1, 2, 3), module.branches, strict=True):
        pooled = torch.empty(2, 16, cells, cells, dtype=x.dtype)
        for i in range(cells):
            for j in range(cells):
                rows = slice(i * 9 // cells, -(-(i + 1) * 9 // cells))
                columns = slice(j * 11 // cells, -(-(j + 1) * 11 // cells))
                pooled[:, :, i, j] = x[:, :, rows, columns].mean(dim=(2, 3))
        small = branch(pooled)
        maps.append(F.interpolate(small, (9, 11), mode="bilinear", align_corners=align_corners))
    torch.testing.assert_close(module(x), module.fuse(torch.cat(maps, 1)))


def test_psp_names_both_numbers_when_there_are_more_bins_than_channels():
    with pytest.raises(ValueError, match=r"bins \(4\) .* channels \(3\)"):
        PSP(3)


def test_aspp_matches_a_sum_over_dilated_taps():
    torch.manual_seed(0)
    module = ASPP(4, rates=(2, 20)).double().eval()
    x = feature(channels=4).double()
    maps = [module.point(x)]
    for rate, branch in zip((2, 20), module.atrous, strict=True):
        padded = F.pad(x, (rate,) * 4)
        y = sum(
            torch.einsum(
                "oc,bchw->bohw",
                branch.conv.weight[:, :, i, j],
                padded[:, :, i * rate : i * rate + 9, j * rate : j * rate + 11],
            )
            for i in range(3)
            for j in range(3)
        )
        maps.append(torch.relu(branch.norm(y)))
    mean = x.flatten(2).sum(-1)[:, :, None, None] / 99
    maps.append(module.scene(mean).repeat(1, 1, 9, 11))
    torch.testing.assert_close(module(x), module.fuse(torch.cat(maps, 1)))
