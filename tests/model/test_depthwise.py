import copy
import pickle

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from timm.layers import Conv2dSame
from torch import nn

from gald.config import compose
from gald.model.backbone import TimmBackbone
from gald.model.depthwise import DepthwiseConv2d, fast_depthwise, has_depthwise
from gald.profiling.flops import MacCounter

LAST = torch.channels_last


def build(*overrides):
    return instantiate(compose("train", ["model.channels=16", *overrides]).model, num_classes=5)


def gradients(conv, x, dtype=None):
    x = x.clone().requires_grad_()
    conv.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        y = conv(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in conv.parameters())]


CASES = [
    (nn.Conv2d, {"padding": 2}),
    (nn.Conv2d, {"padding": 4, "dilation": 2, "bias": False}),
    (nn.Conv2d, {"padding": (8, 0), "dilation": (2, 1)}),
    (nn.Conv2d, {"padding": 3, "dilation": 2}),
    (nn.Conv2d, {"padding": (6, 3), "dilation": 3, "bias": False}),
    (nn.Conv2d, {"padding": 9, "dilation": 2}),  # wider than the kernel reaches
    (nn.Conv2d, {"padding": 2, "stride": 2, "dilation": 2}),
    (Conv2dSame, {"stride": 2}),
    (Conv2dSame, {"dilation": 3, "bias": False}),
]


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, LAST])
def test_output_is_equal_and_gradients_differ_by_rounding(kind, options, layout):
    torch.manual_seed(0)
    plain = kind(6, 6, 5, groups=6, **options)
    fast = nn.Sequential(copy.deepcopy(plain))
    fast_depthwise(fast)
    assert type(fast[0]) is not kind and fast[0].state_dict().keys() == plain.state_dict().keys()
    x = torch.randn(2, 6, 17, 16).to(memory_format=layout)
    expected, got = gradients(plain, x), gradients(fast, x)
    assert got[0].equal(expected[0])
    for a, b in zip(got, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()
    # Under autocast the gradients are nearer to those of float32 than torch's own.
    low, theirs = gradients(fast, x, torch.bfloat16), gradients(plain, x, torch.bfloat16)
    assert low[0].equal(theirs[0]) and low[0].dtype == torch.bfloat16
    for a, b in zip(low[1:], expected[1:], strict=True):
        assert a.dtype == b.dtype and (a - b).abs().max() <= 0.03 * b.abs().max()


def test_the_gradient_is_that_of_finite_differences_and_has_a_gradient():
    conv = nn.Sequential(nn.Conv2d(2, 2, 3, padding=2, dilation=2, groups=2)).double()
    fast_depthwise(conv)
    x = torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(conv, x) and torch.autograd.gradgradcheck(conv, x)


def test_only_depth_wise_convolutions_are_replaced():
    class Own(nn.Conv2d):
        pass

    net = nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 1, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3),
    )
    assert not has_depthwise(net)
    net.append(Own(4, 4, 3, groups=4))
    fast_depthwise(net)
    assert {type(module) for module in net} == {nn.Conv2d, Own} and has_depthwise(net)


def test_a_copy_and_a_pickled_network_keep_the_class_and_the_gradient():
    conv = nn.Sequential(nn.Conv2d(4, 4, 3, dilation=2, groups=4))
    fast_depthwise(conv)
    x = torch.randn(1, 4, 9, 9)
    expected = gradients(conv, x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert type(other[0]) is DepthwiseConv2d
        for a, b in zip(gradients(other, x), expected, strict=True):
            assert a.equal(b)


@pytest.fixture(scope="module")
def mobile():
    overrides = ("model.backbone.name=test_efficientnet", "model/ga=none", "model/aux_head=none")
    off = build(*overrides, "model.channels_last=false", "model.fast_depthwise=false")
    on = build(*overrides)
    on.load_state_dict(off.state_dict())
    return off.eval(), on.eval()


def test_a_mobile_network_on_a_cpu_has_channels_last_maps_by_default(mobile):
    off, on = mobile
    image = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    maps = on.aggregate(image).maps
    assert all(m.is_contiguous(memory_format=LAST) for m in maps)
    assert not off.aggregate(image).maps[-1].is_contiguous(memory_format=LAST)
    torch.testing.assert_close(on.logits(image), off.logits(image), rtol=1e-4, atol=1e-5)
    resnet = build("model.backbone.name=test_resnet").eval()
    assert not resnet.aggregate(image).maps[-1].is_contiguous(memory_format=LAST)


@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_with_avx2_only_the_backbone_trains_in_channels_last(mobile, capability, monkeypatch):
    network = copy.deepcopy(mobile[1]).train()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    maps = network.aggregate(torch.rand(2, 3, 64, 96)).maps
    inner = [m.is_contiguous(memory_format=LAST) for m in maps]
    usual = [m.is_contiguous() for m in maps]
    assert (all(usual) and not any(inner)) if capability == "AVX2" else all(inner)


def test_a_fast_network_counts_the_same_multiply_adds(mobile):
    counts = []
    for network in mobile:
        image = torch.rand(1, 3, 64, 64)
        with MacCounter() as counter:
            network.logits(image).sum().backward()
        counts.append(counter.macs)
    assert counts[0] == counts[1]


@pytest.mark.integration
def test_an_exported_graph_has_plain_convolutions(mobile):
    image = torch.rand(1, 3, 64, 64)
    program = torch.export.export(mobile[1].backbone, (image,))
    names = {str(node.target) for node in program.graph.nodes}
    assert "aten.conv2d.default" in names and not any("depthwise" in n.lower() for n in names)


def test_checkpointed_gradients_are_equal():
    torch.manual_seed(0)
    image = torch.rand(2, 3, 64, 64)
    results = []
    for on in (False, True):
        torch.manual_seed(0)
        net = TimmBackbone("test_efficientnet", output_stride=16, grad_checkpointing=on)
        fast_depthwise(net)
        with torch.autocast("cpu", torch.bfloat16):
            loss = net(image)[-1].float().square().mean()
        loss.backward()
        results.append([p.grad for p in net.parameters() if p.grad is not None])
    for a, b in zip(*results, strict=True):
        assert a.equal(b)


def test_an_unknown_layout_is_refused():
    sentence = r"model\.channels_last is 'fast'; set model\.channels_last to auto, true or false"
    with pytest.raises(InstantiationException, match=sentence):
        build("model.backbone.name=test_resnet", "model.channels_last=fast")
