import math

import pytest
import torch
import torch.nn.functional as F

from gald.model.ga.cc import CrissCross
from gald.model.ga.cgnl import CGNL
from gald.model.ga.linear import LinearAttention
from gald.model.ga.mhsa import MHSA


def feature(channels=16, size=(5, 7), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator).double()


@pytest.mark.parametrize("recurrences", [1, 2])
@pytest.mark.parametrize("scale", [3.0, 0.01])
@pytest.mark.parametrize("size", [(5, 7), (1, 4), (4, 1), (1, 1)])
def test_criss_cross_matches_a_loop_over_pixels(recurrences, scale, size):
    torch.manual_seed(0)
    module = CrissCross(16, recurrences=recurrences).double()
    torch.nn.init.constant_(module.gamma, 0.7)
    x = feature(size=size, scale=scale)
    expected = x
    height, width = size
    for _ in range(recurrences):
        projected = torch.einsum("dc,bchw->bdhw", module.qkv.weight, expected)
        q, k, v = (projected + module.qkv.bias[:, None, None]).split([2, 2, 16], dim=1)
        attended = torch.empty_like(x)
        for i in range(height):
            for j in range(width):
                cross = [(i, n) for n in range(width)] + [(n, j) for n in range(height) if n != i]
                rows, columns = map(list, zip(*cross, strict=True))
                logits = torch.einsum("bc,bcn->bn", q[..., i, j], k[..., rows, columns])
                weights = logits.exp() / logits.exp().sum(1, keepdim=True)
                attended[..., i, j] = torch.einsum("bn,bcn->bc", weights, v[..., rows, columns])
        expected = expected + 0.7 * attended
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(("recurrences", "reaches"), [(1, False), (2, True)])
def test_criss_cross_reaches_off_the_cross_in_the_second_round(recurrences, reaches):
    torch.manual_seed(0)
    x = feature().requires_grad_()
    CrissCross(16, recurrences=recurrences).double()(x)[0, :, 0, 0].sum().backward()
    assert bool(x.grad[0, :, 3, 4].any()) is reaches


def test_criss_cross_survives_logits_beyond_float16():
    torch.manual_seed(0)
    module = CrissCross(64, recurrences=1)
    with torch.autocast("cpu", dtype=torch.float16):
        assert module(feature(channels=64, scale=2000.0).float()).isfinite().all()


def test_criss_cross_refuses_zero_recurrences():
    with pytest.raises(ValueError, match=r"recurrences \(0\) must be at least 1"):
        CrissCross(16, recurrences=0)


def rotated(head, row, column):
    """Rotate one head's channels at one position, pair by pair."""
    pairs, half = head.clone(), head.shape[1] // 2
    for first in range(0, head.shape[1], 2):
        steps = half // 2 - 1
        frequency = 100.0 ** -((first % half) // 2 / steps if steps else 0.0)
        angle = frequency * (row if first < half else column)
        a, b = head[:, first], head[:, first + 1]
        pairs[:, first] = a * math.cos(angle) - b * math.sin(angle)
        pairs[:, first + 1] = a * math.sin(angle) + b * math.cos(angle)
    return pairs


@pytest.mark.parametrize("positions", ["rotary", "none"])
@pytest.mark.parametrize(("channels", "heads"), [(16, 2), (16, 4), (24, 2)])
@pytest.mark.parametrize("scale", [3.0, 0.01])
def test_mhsa_matches_a_loop_over_heads_and_pixels(positions, channels, heads, scale):
    torch.manual_seed(0)
    module = MHSA(channels, heads, positions).double().eval()
    x = feature(channels, size=(3, 4), scale=scale)
    places = [(i, j) for i in range(3) for j in range(4)]
    y = torch.empty_like(x)
    width = channels // heads
    for head in range(heads):
        own = slice(head * width, (head + 1) * width)
        q, k, v = (part[:, own] for part in module.qkv(x).chunk(3, dim=1))
        if positions == "rotary":
            q, k = ({(i, j): rotated(t[..., i, j], i, j) for i, j in places} for t in (q, k))
        else:
            q, k = ({(i, j): t[..., i, j] for i, j in places} for t in (q, k))
        for i, j in places:
            logits = [(q[i, j] * k[place]).sum(1) / math.sqrt(width) for place in places]
            weights = torch.stack(logits).softmax(0)
            y[:, own, i, j] = sum(
                weight[:, None] * v[..., a, b]
                for weight, (a, b) in zip(weights, places, strict=True)
            )
    torch.testing.assert_close(module(x), x + module.project(y))


@pytest.mark.parametrize(("positions", "blind"), [("rotary", False), ("none", True)])
def test_only_rotary_positions_notice_a_shuffled_map(positions, blind):
    torch.manual_seed(0)
    module = MHSA(16, 2, positions).double().eval()
    x = feature()
    order = torch.randperm(7)
    assert torch.allclose(module(x[..., order]), module(x)[..., order]) is blind


def test_rotary_logits_depend_on_offsets_alone():
    module = MHSA(16, 2).double()
    q, k = feature(8, size=(1, 1)).double().expand(2, 8, 9, 12).movedim(1, 3)[:, None]
    q, k = (module._rotate(part[None, None])[0, 0] for part in (q[0], k[0]))
    logits = torch.einsum("hwc,ijc->hwij", q, k)
    torch.testing.assert_close(logits[2, 3, 4, 7], logits[5, 6, 7, 10])
    assert not torch.allclose(logits[2, 3, 4, 7], logits[2, 3, 7, 4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 8}, r"channels \(16\) must be divisible by 4 times heads \(8\)"),
        ({"heads": 3, "positions": "none"}, r"channels \(16\) .* 1 times heads \(3\)"),
        ({"heads": 0}, r"heads \(0\)"),
        ({"positions": "learned"}, r"positions \(learned\) must be rotary or none"),
    ],
)
def test_mhsa_refuses_heads_and_positions_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        MHSA(16, **arguments)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("scale", [3.0, 0.01])
def test_linear_attention_matches_a_loop_over_positions(heads, scale):
    torch.manual_seed(0)
    module = LinearAttention(16, heads=heads).double().eval()
    x = feature(scale=scale)
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    y = torch.empty_like(v)
    for own in torch.arange(8).chunk(heads):
        weights = k[:, own].exp() / k[:, own].exp().sum(2, keepdim=True)
        for i in range(35):
            mix = q[:, own, i].exp() / q[:, own, i].exp().sum(1, keepdim=True)
            attention = torch.einsum("bk,bkn->bn", mix, weights)
            torch.testing.assert_close(attention.sum(1), torch.ones(2).double())
            y[:, own, i] = torch.einsum("bn,bvn->bv", attention, v[:, own])
    torch.testing.assert_close(module(x), x + module.project(y.view(2, 8, 5, 7)))


def test_linear_attention_names_both_numbers_when_heads_do_not_divide():
    with pytest.raises(ValueError, match=r"key_channels \(8\) must be divisible by heads \(3\)"):
        LinearAttention(16, heads=3)


@pytest.mark.parametrize("module", [MHSA(16), LinearAttention(16)])
def test_attention_survives_logits_beyond_float16(module):
    x = feature(scale=1000.0, size=(64, 64)).float()
    with torch.autocast("cpu", dtype=torch.float16):
        assert module.train()(x).isfinite().all()


def effect_of_the_first_scalar(factor, scale, norm_groups):
    """Return the relative change of the added context when one group's scalar is multiplied."""
    torch.manual_seed(0)
    module = CGNL(64, groups=4, norm_groups=norm_groups).double().eval()
    x = feature(64, size=(12, 12), scale=scale)
    before = module(x)
    with torch.no_grad():
        module.p.weight[:8] *= factor
        return ((module(x) - before).norm() / (before - x).norm()).item()


@pytest.mark.parametrize(
    ("scale", "norm_groups", "factor", "least", "most"),
    [
        pytest.param(1.0, None, 7.3, 0.0, 1e-4, id="reference-at-unit-scale-ignores-size"),
        pytest.param(1.0, None, -1.0, 0.5, 2.0, id="reference-at-unit-scale-sees-sign"),
        pytest.param(0.01, None, 7.3, 0.5, 9.0, id="reference-at-small-scale-sees-size"),
        pytest.param(1.0, 1, 7.3, 0.2, 9.0, id="free-at-unit-scale-sees-size"),
    ],
)
def test_group_norm_cancels_the_scalar_of_cgnl(scale, norm_groups, factor, least, most):
    assert least <= effect_of_the_first_scalar(factor, scale, norm_groups) < most


def test_free_cgnl_trains_its_scalars_and_the_reference_does_not():
    ratios = {}
    for norm_groups in (None, 1):
        torch.manual_seed(0)
        module = CGNL(64, groups=4, norm_groups=norm_groups).double()
        x = feature(64, size=(12, 12))
        loss = (module(x) * torch.randn_like(x)).sum()
        p, t = torch.autograd.grad(loss, [module.p.weight, module.t.weight])
        ratios[norm_groups] = (p.norm() / t.norm()).item()
    assert ratios[None] < 1e-3
    assert ratios[1] > 100 * ratios[None]


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_free_cgnl_matches_a_loop_over_groups_under_one_norm(scale):
    torch.manual_seed(0)
    module = CGNL(16, groups=4, norm_groups=1).double()
    x = feature(scale=scale)
    t, p, g = (conv(x).chunk(4, dim=1) for conv in (module.t, module.p, module.g))
    parts = []
    for index, weight in enumerate(module.z.weight.chunk(4)):
        att = (p[index] * g[index]).sum(dim=(1, 2, 3), keepdim=True)
        parts.append(F.conv2d(att * t[index], weight))
    y = torch.cat(parts, 1)
    y = y - y.mean(dim=(1, 2, 3), keepdim=True)
    y = y / (y.square().mean(dim=(1, 2, 3), keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(x), x + y)


def test_cgnl_names_both_numbers_when_norm_groups_do_not_divide():
    with pytest.raises(ValueError, match=r"channels \(64\) .* norm_groups \(3\)"):
        CGNL(64, norm_groups=3)
