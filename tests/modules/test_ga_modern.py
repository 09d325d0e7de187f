import pytest
import torch

from gald.modules.ga.cc import CrissCross


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
        q, k, v = (conv(expected) for conv in (module.query, module.key, module.value))
        gathered = torch.empty_like(x)
        for i in range(height):
            for j in range(width):
                cross = [(i, n) for n in range(width)] + [(n, j) for n in range(height) if n != i]
                rows, columns = map(list, zip(*cross, strict=True))
                logits = torch.einsum("bc,bcn->bn", q[..., i, j], k[..., rows, columns])
                weights = logits.exp() / logits.exp().sum(1, keepdim=True)
                gathered[..., i, j] = torch.einsum("bn,bcn->bc", weights, v[..., rows, columns])
        expected = expected + 0.7 * gathered
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
