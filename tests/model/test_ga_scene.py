import pytest
import torch
import torch.distributed as dist
from timm.layers import GlobalContext

from gald.model.ga.a2 import A2
from gald.model.ga.ema import EMA
from gald.model.ga.gap import GAP
from gald.model.ga.global_context import GC


def feature(channels=16, size=(9, 11), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator)


def build(name, *arguments, **options):
    torch.manual_seed(0)
    return name(*arguments, **options).double().eval()


@pytest.mark.parametrize("size", [(9, 11), (1, 1)])
def test_gap_adds_the_projected_mean_of_each_image(size):
    module = build(GAP, 16)
    x = feature(size=size).double()
    y = x.clone()
    for image in range(2):
        mean = torch.stack([x[image, c].sum() / (size[0] * size[1]) for c in range(16)])
        y[image] += (module.project.weight[:, :, 0, 0] @ mean + module.project.bias)[:, None, None]
    torch.testing.assert_close(module(x), y)


def test_gc_matches_the_formula_position_by_position():
    module = build(GC, 16, reduction=4)
    x = 3 * feature().double()
    narrow, norm, _, wide = module.transform
    for image, out in zip(x, module(x), strict=True):
        columns = image.flatten(1).T  # (N, C)
        logits = [column @ module.attend.weight[0, :, 0, 0] for column in columns]
        total = sum(logit.exp() for logit in logits)
        pooled = sum(p.exp() / total * column for p, column in zip(logits, columns, strict=True))
        z = narrow.weight @ pooled + narrow.bias
        z = (z - z.mean()) / (z.var(unbiased=False) + 1e-5).sqrt() * norm.weight + norm.bias
        y = wide.weight @ z.clamp(min=0) + wide.bias
        torch.testing.assert_close(out, image + y[:, None, None])


def test_gc_equals_the_block_of_timm():
    module = build(GC, 16, reduction=4)
    theirs = build(GlobalContext, 16, fuse_add=True, fuse_scale=False, rd_ratio=0.25)
    narrow, norm, _, wide = module.transform
    theirs.conv_attn.weight.data = module.attend.weight
    for ours, mlp in ((narrow, theirs.mlp_add.fc1), (wide, theirs.mlp_add.fc2)):
        mlp.weight.data, mlp.bias.data = ours.weight[:, :, None, None], ours.bias
    theirs.mlp_add.norm.eps = norm.eps
    x = feature().double()
    torch.testing.assert_close(module(x), theirs(x))


def test_gc_names_both_numbers_when_the_bottleneck_is_too_narrow():
    with pytest.raises(ValueError, match=r"channels \(4\) .* reduction \(4\)"):
        GC(4)


def test_a2_matches_its_two_attentions_written_as_sums():
    module = build(A2, 16, planes=5, vectors=3)
    x = 3 * feature().double()
    a, b, v = (conv(x).flatten(2) for conv in (module.feature, module.gather, module.distribute))
    y = torch.zeros(2, 5, 99, dtype=x.dtype)
    for k in range(3):
        gather = b[:, k].exp() / b[:, k].exp().sum(1, keepdim=True)  # (B, N), over positions
        vector = (a * gather[:, None]).sum(2)  # (B, planes)
        distribute = v[:, k].exp() / v.exp().sum(1)  # (B, N), over vectors
        y += vector[:, :, None] * distribute[:, None]
    torch.testing.assert_close(module(x), x + module.project(y.reshape(2, 5, 9, 11)))


def fit(module, x):
    y = module.enter(x).flatten(2).transpose(1, 2)  # (B, N, C)
    images, bases = [], []
    for image in y:
        mu = module.mu.clone()
        for _ in range(module.iterations):
            z = (image @ mu.T).exp()
            z = z / z.sum(1, keepdim=True)
            mu = torch.stack([(z[:, k, None] * image).sum(0) / z[:, k].sum() for k in range(4)])
            mu = mu / mu.square().sum(1, keepdim=True).sqrt()
        images.append((z @ mu).T.reshape(x.shape[1:]))
        bases.append(mu)
    return torch.stack(images), torch.stack(bases)


@pytest.mark.parametrize("iterations", [1, 3])
def test_ema_matches_the_iterations_image_by_image(iterations):
    module = build(EMA, 16, bases=4, iterations=iterations)
    x = 3 * feature().double()
    before = module.mu.clone()
    reconstructed, _ = fit(module, x)
    torch.testing.assert_close(module(x), x + module.project(reconstructed.relu()))
    assert torch.equal(module.mu, before), "evaluation must not change the stored bases"


def test_ema_stores_a_moving_average_of_length_one():
    module = build(EMA, 16, bases=4, momentum=0.7).train()
    x = 3 * feature().double()
    mixed = 0.7 * module.mu + 0.3 * fit(module, x)[1].mean(0)
    module(x)
    torch.testing.assert_close(module.mu, mixed / mixed.norm(dim=1, keepdim=True))


def test_ema_averages_the_bases_of_all_processes(monkeypatch):
    module = build(EMA, 16, bases=4, momentum=0.7).train()
    x = 3 * feature().double()
    other = torch.randn_like(module.mu)
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda mean: mean.add_(other))
    mixed = 0.7 * module.mu + 0.3 * (fit(module, x)[1].mean(0) + other) / 2
    module(x)
    torch.testing.assert_close(module.mu, mixed / mixed.norm(dim=1, keepdim=True))


def test_ema_refuses_zero_iterations():
    with pytest.raises(ValueError, match=r"iterations \(0\) must be at least 1"):
        EMA(16, iterations=0)
