import pytest
import torch
from timm.layers import SEModule
from timm.layers.cbam import CbamModule

from gald.model.ld.cbam import CBAM
from gald.model.ld.const import ConstantMix
from gald.model.ld.gate import Gate
from gald.model.ld.se import SqueezeExcitation

SIZES = [(1, 1), (1, 5), (6, 7)]


def pair(size=(6, 7), channels=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).double().unbind()


def randomise(module):
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return module.double().eval()


def test_constant_mix_starts_as_the_mean_of_both():
    context, x = pair()
    torch.testing.assert_close(ConstantMix(16).double()(context, x), (context + x) / 2)


@pytest.mark.parametrize("size", SIZES)
def test_gate_matches_a_loop_over_positions(size):
    torch.manual_seed(0)
    context, x = pair(size)
    module = Gate(16).double()
    weight, bias = module.decide.weight[:, :, 0, 0], module.decide.bias
    expected = torch.empty_like(x)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, (2, *size))).tolist():
        c, f = context[b, :, i, j], x[b, :, i, j]
        gate = 1 / (1 + torch.exp(-(weight[:, :16] @ c + weight[:, 16:] @ f + bias)))
        expected[b, :, i, j] = gate * c + (1 - gate) * f
    torch.testing.assert_close(module(context, x), expected)


@pytest.mark.parametrize(("bias", "takes"), [(50.0, "context"), (-50.0, "x")])
def test_gate_takes_the_context_at_one_and_keeps_x_at_zero(bias, takes):
    context, x = pair()
    module = Gate(16).double()
    torch.nn.init.constant_(module.decide.bias, bias)
    torch.testing.assert_close(module(context, x), {"context": context, "x": x}[takes])


@pytest.mark.parametrize("size", SIZES)
def test_squeeze_excitation_matches_timm_with_the_same_weights(size):
    context, x = pair(size, 32)
    module = randomise(SqueezeExcitation(32, reduction=4))
    theirs = SEModule(32, rd_channels=8).double()
    theirs.fc1.load_state_dict(module.squeeze.state_dict())
    theirs.fc2.load_state_dict(module.excite.state_dict())
    torch.testing.assert_close(module(context, x), theirs(context))


def test_squeeze_excitation_map_has_no_positions_and_ignores_x():
    context, x = pair()
    module = SqueezeExcitation(16).double()
    ld_map = module.distribution_map(context, x)
    assert ld_map.shape == context.shape
    assert torch.equal(ld_map, ld_map[:, :, :1, :1].expand_as(ld_map))
    assert not torch.equal(ld_map[:, :1], ld_map[:, 1:2])
    assert torch.equal(ld_map, module.distribution_map(context, -x))


@pytest.mark.parametrize("size", SIZES)
def test_cbam_matches_timm_with_the_same_weights(size):
    context, x = pair(size, 32)
    module = randomise(CBAM(32, reduction=4, kernel_size=5))
    theirs = CbamModule(32, rd_channels=8, spatial_kernel_size=5).double().eval()
    theirs.channel.fc1.load_state_dict(module.squeeze.state_dict())
    theirs.channel.fc2.load_state_dict(module.excite.state_dict())
    theirs.spatial.conv.conv.load_state_dict(module.score.conv.state_dict())
    theirs.spatial.conv.bn.load_state_dict(module.score.norm.state_dict())
    torch.testing.assert_close(module(context, x), theirs(context))


def test_cbam_names_an_even_kernel_and_the_remedy():
    with pytest.raises(ValueError, match=r"kernel_size \(6\) must be odd .* choose 7"):
        CBAM(16, kernel_size=6)


@pytest.mark.parametrize("module", [SqueezeExcitation(16), CBAM(16)])
def test_float16_maps_whose_sum_overflows_stay_finite(module):
    context = torch.full((2, 16, 64, 64), 300.0, dtype=torch.float16)
    with torch.autocast("cpu", dtype=torch.float16):
        y = module.eval()(context, context)
    assert y.isfinite().all()
    assert y.dtype == torch.float16
