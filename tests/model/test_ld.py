import pytest
import torch
import torch.nn.functional as F

from gald.model.ld.affinity import Affinity
from gald.model.ld.mask import Mask
from gald.model.ld.none import NoDistribution


def pair(size=(17, 23), channels=16):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, channels, *size, generator=generator).unbind()


def test_no_distribution_returns_the_context_itself():
    context, x = pair()
    assert NoDistribution()(context, x) is context


def test_mask_output_is_context_times_one_plus_map():
    context, x = pair()
    module = Mask(16).eval()
    expected = context + context * module.distribution_map(context, x)
    torch.testing.assert_close(module(context, x), expected)


@pytest.mark.parametrize(("relu", "minimum"), [(True, 0.5), (False, 0.0)])
def test_relu_before_the_sigmoid_keeps_the_mask_above_one_half(relu, minimum):
    context, x = pair()
    ld_map = Mask(16, pre_sigmoid_relu=relu).train().distribution_map(context, x)
    assert ld_map.min() >= minimum
    assert bool(ld_map.min() < 0.5) is not relu


def test_mask_ignores_the_local_feature():
    context, x = pair()
    module = Mask(16).eval()
    assert torch.equal(module(context, x), module(context, -x))


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_unpadded_mask_works_from_its_minimum_and_names_both_sizes_below(steps):
    least = 2 ** (steps + 1) - 1
    module = Mask(16, steps=steps, padding=0).train()
    context, x = pair((least, least))
    assert module(context[:1], x[:1]).shape == context[:1].shape
    context, x = pair((least + 5, least - 1))
    message = rf"\({least + 5}x{least - 1}\) must be at least {least}x{least} .* set padding=1"
    with pytest.raises(ValueError, match=message):
        module(context, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, r"steps \(0\) must be at least 1"),
        ({"padding": 2}, r"padding \(2\) must be 0 or 1"),
    ],
)
def test_mask_refuses_an_unknown_option(arguments, message):
    with pytest.raises(ValueError, match=message):
        Mask(16, **arguments)


@pytest.mark.parametrize("training", [True, False])
def test_affinity_returns_x_exactly_when_there_is_no_aggregation(training):
    _, x = pair()
    assert torch.equal(Affinity(16).train(training)(x, x), x)


def test_affinity_starts_without_a_preference():
    torch.manual_seed(0)
    context, x = pair()
    ld_map = Affinity(16).train().distribution_map(context, x)
    assert (ld_map - 0.5).abs().max() < 0.1


@pytest.mark.parametrize(("bias", "takes"), [(50.0, "context"), (-50.0, "x")])
def test_affinity_takes_the_context_at_one_and_keeps_x_at_zero(bias, takes):
    context, x = pair()
    module = Affinity(16).eval()
    torch.nn.init.constant_(module.decide.bias, bias)
    torch.testing.assert_close(module(context, x), {"context": context, "x": x}[takes])


def test_affinity_decides_per_channel_group():
    context, x = pair()
    module = Affinity(16, groups=2).eval()
    module.decide.bias.data = torch.tensor([50.0, -50.0])
    y = module(context, x)
    torch.testing.assert_close(y[:, :8], context[:, :8])
    torch.testing.assert_close(y[:, 8:], x[:, 8:])


def test_affinity_uses_both_features():
    torch.manual_seed(0)
    context, x = pair()
    module = Affinity(16).eval()
    ld_map = module.distribution_map(context, x)
    assert not torch.equal(ld_map, module.distribution_map(-context, x))
    assert not torch.equal(ld_map, module.distribution_map(context, -x))


def test_affinity_can_learn_to_keep_local_detail_at_edges():
    # Two flat halves; the target is the context inside them and the local feature at the edge.
    torch.manual_seed(0)
    x = torch.zeros(1, 8, 12, 12)
    x[..., 6:] = 1.0
    context = x + 1.0
    target = context.clone()
    target[..., 5:7] = x[..., 5:7]
    module = Affinity(8, groups=1).train()
    optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
    for _ in range(60):
        loss = (module(context, x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ld_map = module.distribution_map(context, x)[0, 0]
    assert ld_map[:, 5:7].max() < 0.2
    assert ld_map[2:-2, 2:4].min() > 0.8


def test_affinity_survives_products_beyond_float16_and_is_the_formula_in_float32():
    torch.manual_seed(0)
    context, x = pair()
    context = context + x.mean(dim=(2, 3), keepdim=True)
    module = Affinity(16).eval()
    u, v = module.from_context(context), module.from_x(x)
    mean = F.avg_pool2d(v, 3, stride=1, padding=1, count_include_pad=False)
    features = torch.cat([u * v, u - v, (v - mean).abs()], dim=1)
    expected = torch.sigmoid(module.decide(module.compare(features)))
    assert torch.equal(module.distribution_map(context, x), expected)
    large = 1000 * context, 1000 * x
    with torch.autocast("cpu", dtype=torch.float16):
        assert (module.from_context(large[0]) * module.from_x(large[1])).isinf().any()
        rounded = module.distribution_map(*large)
    assert rounded.isfinite().all()
    assert (rounded - module.distribution_map(*large)).abs().mean() < 0.001


def test_affinity_names_both_numbers_when_groups_do_not_divide():
    with pytest.raises(ValueError, match=r"channels \(20\) must be divisible by groups \(8\)"):
        Affinity(20)
