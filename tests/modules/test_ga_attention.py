import pytest
import torch

from gald.modules.ga.danet import CAM, PAM, DANet


def feature(channels=16, size=(9, 11), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator)


def build(name, *arguments, **options):
    torch.manual_seed(0)
    return name(*arguments, **options).double().eval()


def test_position_attention_matches_the_naive_softmax():
    module = build(PAM, 16)
    x = 3 * feature().double()
    module.gamma.data.fill_(0.7)
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    assert q.shape[1] == 2
    weights = (q.transpose(1, 2) @ k).softmax(2)  # (B, N, N)
    y = (v @ weights.transpose(1, 2)).reshape(x.shape)
    torch.testing.assert_close(module(x), x + 0.7 * y)


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_channel_attention_matches_a_loop_over_channels(scale):
    module = build(CAM, 16)
    x = scale * feature().double()
    module.gamma.data.fill_(0.7)
    y = torch.empty_like(x)
    for image, out in zip(x, y, strict=True):
        for c in range(16):
            alike = torch.stack([(image[c] * image[d]).sum() for d in range(16)])
            unlike = (alike.max() - alike).exp()
            out[c] = sum(w * channel for w, channel in zip(unlike, image, strict=True))
            out[c] /= unlike.sum()
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
