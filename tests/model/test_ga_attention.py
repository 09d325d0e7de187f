import math

import pytest
import torch

from gald.model.ga.ann import ANN
from gald.model.ga.cc import CrissCross
from gald.model.ga.danet import CAM, PAM, DANet
from gald.model.ga.dnl import DNL
from gald.model.ga.isa import ISA
from gald.model.ga.nonlocal_block import NonLocal


def feature(channels=16, size=(9, 11), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator)


def build(name, *arguments, **options):
    torch.manual_seed(0)
    return name(*arguments, **options).double().eval()


@pytest.mark.parametrize(("key_channels", "width"), [(None, 2), (20, 20)])
def test_position_attention_matches_the_naive_softmax(key_channels, width):
    module = build(PAM, 16, key_channels=key_channels)
    x = 3 * feature().double()
    module.gamma.data.fill_(0.7)
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    assert q.shape[1] == width
    weights = (q.transpose(1, 2) @ k).softmax(2)  # (B, N, N)
    y = (v @ weights.transpose(1, 2)).reshape(x.shape)
    torch.testing.assert_close(module(x), x + 0.7 * y)


@pytest.mark.parametrize(("name", "options"), [(NonLocal, {}), (CrissCross, {"recurrences": 1})])
def test_bare_block_is_the_attention_without_x(name, options):
    whole, bare = build(name, 16, **options), build(name, 16, residual=False, **options)
    x = feature().double()
    torch.testing.assert_close(bare(x), whole(x) - x)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_channel_attention_matches_a_loop_over_channels(scale):
    module = build(CAM, 16)
    x = scale * feature().double()
    module.gamma.data.fill_(0.7)
    y = torch.empty_like(x)
    for image, out in zip(x, y, strict=True):
        for c in range(16):
            similarity = torch.stack([(image[c] * image[d]).sum() for d in range(16)])
            weights = (similarity.max() - similarity).exp()
            out[c] = sum(w * channel for w, channel in zip(weights, image, strict=True))
            out[c] /= weights.sum()
    torch.testing.assert_close(module(x), x + 0.7 * y)


def test_channel_attention_survives_sums_beyond_float16():
    module = CAM(16)
    x = feature(size=(64, 64), scale=30.0)
    with torch.autocast("cpu", dtype=torch.float16):
        torch.testing.assert_close(module(x), module.double()(x.double()).float())


def test_danet_sums_both_attentions():
    module = build(DANet, 16, key_channels=3)
    x = feature().double()
    position, channel = module.position, module.channel
    assert position[0].query.out_channels == 3
    expected = position[1](position[0](x)) + channel[1](channel[0](x))
    torch.testing.assert_close(module(x), expected)


def masked_attention(x, projections, allowed):
    q, k, v = (conv(x).flatten(2) for conv in projections)
    logits = q.transpose(1, 2) @ k / math.sqrt(q.shape[1])
    weights = logits.masked_fill(~allowed, -math.inf).softmax(2)  # (B, N, N)
    return (v @ weights.transpose(1, 2)).reshape(x.shape)


@pytest.mark.parametrize("size", [(8, 12), (9, 11), (7, 4), (3, 2), (1, 1)])
def test_isa_matches_dense_attention_with_two_masks(size):
    module = build(ISA, 16, block=4)
    x = 3 * feature(size=size).double()
    positions = torch.cartesian_prod(*(torch.arange(length) for length in size)).reshape(-1, 2)
    far = (positions[:, None] % 4 == positions[None] % 4).all(2)  # (N, N)
    near = (positions[:, None] // 4 == positions[None] // 4).all(2)
    z = masked_attention(masked_attention(x, module.far, far), module.near, near)
    torch.testing.assert_close(module(x), module.fuse(torch.cat([x, z], 1)))


def test_isa_reaches_every_position_on_whole_blocks():
    module = build(ISA, 4, block=4)
    x = feature(4, (8, 12)).double().requires_grad_()
    module.fuse.act = torch.nn.Identity()
    module(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0].any(dim=0).all()


def test_isa_has_finite_gradients_where_groups_are_empty():
    x = feature(size=(5, 1)).requires_grad_()
    module = ISA(16)
    module(x).sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (x, *module.parameters()))


def test_isa_needs_a_block():
    with pytest.raises(ValueError, match=r"block \(0\) must be at least 1"):
        ISA(16, block=0)


def test_ann_matches_attention_to_regions_averaged_one_by_one():
    module = build(ANN, 16, bins=(1, 2, 3))
    x = 3 * feature().double()
    q, v = module.query(x), module.value(x)
    keys, values = [], []
    for cells in (1, 2, 3):
        for i in range(cells):
            for j in range(cells):
                rows = slice(i * 9 // cells, -(-(i + 1) * 9 // cells))
                columns = slice(j * 11 // cells, -(-(j + 1) * 11 // cells))
                keys.append(q[:, :, rows, columns].mean(dim=(2, 3)))
                values.append(v[:, :, rows, columns].mean(dim=(2, 3)))
    logits = torch.einsum("bcn,sbc->bns", q.flatten(2), torch.stack(keys)) / math.sqrt(8)
    y = torch.einsum("bns,sbc->bcn", logits.softmax(2), torch.stack(values))
    y = module.project(y.reshape(2, 8, 9, 11))
    torch.testing.assert_close(module(x), module.fuse(torch.cat([x, y], 1)))


@pytest.mark.parametrize("temperature", [1.0, 0.05])
def test_dnl_matches_two_softmaxes_over_centred_pairs_and_over_positions(temperature):
    module = build(DNL, 16, temperature=temperature)
    x = 3 * feature().double()
    q, k, v, m = (
        conv(x).flatten(2) for conv in (module.query, module.key, module.value, module.salience)
    )
    q, k = (part - part.sum(2, keepdim=True) / 99 for part in (q, k))
    logits = q.transpose(1, 2) @ k / math.sqrt(8) / temperature  # (B, N, N)
    weights = logits.softmax(2) + m.softmax(2)
    y = (v @ weights.transpose(1, 2)).reshape(2, 8, 9, 11)
    torch.testing.assert_close(module(x), x + module.project(y))


def test_dnl_survives_logits_beyond_float16_and_refuses_a_temperature_of_zero():
    module = DNL(16, temperature=1e-4).eval()
    with torch.autocast("cpu", dtype=torch.float16):
        assert module(feature(scale=100.0)).isfinite().all()
    with pytest.raises(ValueError, match=r"temperature \(0\) must be above 0; set .*=0.05"):
        DNL(16, temperature=0)
