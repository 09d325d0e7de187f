import pytest
import torch

from gald.model.ld.lowlevel import LowLevelAffinity


def random_inputs(size=(5, 6)):
    generator = torch.Generator().manual_seed(1)
    context, x = torch.randn(2, 2, 8, *size, generator=generator).double().unbind()
    maps = [torch.randn(2, 4, 4 * size[0], 4 * size[1], generator=generator).double()]
    maps.append(torch.randn(2, 6, 2 * size[0], 2 * size[1], generator=generator).double())
    return context, x, (*maps, x)


def build(low_stride=4, **arguments):
    torch.manual_seed(0)
    module = LowLevelAffinity((4, 6, 8), (2, 4, 8), 8, low_stride, width=3, **arguments)
    torch.nn.init.normal_(module.decide.weight)
    return module.double().eval()


@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 6)])
@pytest.mark.parametrize(("low_stride", "times"), [(2, 4), (4, 2)])
def test_output_matches_the_formula_with_blocks_of_the_early_map_averaged(size, low_stride, times):
    context, x, maps = random_inputs(size)
    module = build(low_stride, groups=2)
    early = module.from_early(maps[{2: 0, 4: 1}[low_stride]])
    blocks = early.unflatten(3, (size[1], times)).unflatten(2, (size[0], times)).mean(dim=(3, 5))
    features = torch.cat([module.from_context(context), module.from_x(x), blocks], 1)
    gate = 1 / (1 + torch.exp(-module.decide(module.compare(features))))
    gate = gate.repeat_interleave(4, dim=1)
    torch.testing.assert_close(module(context, x, maps), gate * context + (1 - gate) * x)


def test_only_the_chosen_early_map_is_read():
    context, x, maps = random_inputs()
    ld_map = build().distribution_map(context, x, maps)
    changed = build().distribution_map(context, x, (-maps[0], maps[1], -maps[2]))
    assert torch.equal(ld_map, changed)
    assert not torch.allclose(
        ld_map, build().distribution_map(context, x, (maps[0], -maps[1], maps[2]))
    )


def test_no_aggregation_gives_x_exactly():
    _, x, maps = random_inputs()
    assert torch.equal(build()(x, x, maps), x)


def test_it_starts_without_a_preference():
    torch.manual_seed(0)
    module = LowLevelAffinity((4, 6, 8), (2, 4, 8), 8).double()
    assert (module.distribution_map(*random_inputs()) - 0.5).abs().max() < 0.1


def test_missing_stride_and_groups_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"low_stride \(16\) must be .* \[2, 4, 8\]"):
        build(16)
    with pytest.raises(ValueError, match=r"channels \(8\) must be divisible by groups \(3\)"):
        build(groups=3)
