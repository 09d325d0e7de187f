import pytest
import torch
from timm.layers import GlobalContext

from gald.modules.ga.a2 import A2
from gald.modules.ga.gap import GAP
from gald.modules.ga.gc import GC


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
        scene = sum(p.exp() / total * column for p, column in zip(logits, columns, strict=True))
        z = narrow.weight @ scene + narrow.bias
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
        share = b[:, k].exp() / b[:, k].exp().sum(1, keepdim=True)  # (B, N), over positions
        vector = (a * share[:, None]).sum(2)  # (B, planes)
        handed = v[:, k].exp() / v.exp().sum(1)  # (B, N), over vectors
        y += vector[:, :, None] * handed[:, None]
    torch.testing.assert_close(module(x), x + module.project(y.reshape(2, 5, 9, 11)))
