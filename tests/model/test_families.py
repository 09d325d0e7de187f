"""Every family of timm takes images of any size with true strides, or is refused."""

import re

import pytest
import timm
import torch

from gald.model.backbone import TimmBackbone

SMALL = ("test_", "atto", "femto", "pico", "nano", "xxtiny", "xxs", "xx_small", "_ti", "tiny")
SMALL += ("_m0", "_s0", "_b0", "_050", "_t0", "small", "18", "26", "_s", "base")
# One model for each way of fitting an image: as it is, resized to patches, padded to a stride or
# to windows; and one with a table of attention weights.
FITTED = {
    "test_resnet": (2, 4, 8, 16, 32),
    "test_convnext": (4, 8, 16, 32),
    "test_vit": (16, 16, 16),
    "dla46_c": (2, 4, 8, 16, 32),
    "tiny_vit_5m_224": (4, 8, 16, 32),
    "test_maxvit": (2, 4, 8, 16, 32),
}
REFUSED = {
    "levit_128s": "takes only images of 224x224 px",
    "crossvit_tiny_240": "gives a map of 14x14 cells for an image of 240x240 px, which is not its",
    "pit_ti_224": "gives a map of 27x27 cells for an image of 224x224 px, which is not its stride",
}
SLOW = ("crossvit_tiny_240",)  # refused as pit_ti_224 is


def cells(size, strides):
    return [tuple(-(-side // stride) for side in size) for stride in strides]


def check_sizes(backbone, sizes):
    for size in sizes:
        for training in (True, False):
            with torch.no_grad():
                maps = backbone.train(training)(torch.rand(2, 3, *size))
            assert [tuple(m.shape[-2:]) for m in maps] == cells(size, backbone.strides), size
            assert tuple(m.shape[1] for m in maps) == backbone.channels
            assert all(m.isfinite().all() for m in maps)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", FITTED)
def test_maps_have_the_stated_strides_at_any_size(name):
    backbone = TimmBackbone(name)
    assert backbone.strides == FITTED[name]
    check_sizes(backbone, [(33, 50), (5, 7)])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in REFUSED]
)
def test_a_backbone_for_one_size_is_refused_with_a_remedy(name):
    sentence = rf"^{name} {REFUSED[name]}.*; choose another backbone, .*name=resnet18$"
    with pytest.raises(ValueError, match=sentence):
        TimmBackbone(name)


def test_padding_keeps_features_in_place_and_is_black():
    backbone = TimmBackbone("test_convnext").eval()
    image = torch.rand(1, 3, 33, 50)
    black = torch.zeros(1, 3, 64, 64)
    black[..., :33, :50] = image
    with torch.no_grad():
        for ours, whole in zip(backbone(image), backbone(black), strict=True):
            h, w = ours.shape[-2:]
            torch.testing.assert_close(ours, whole[..., :h, :w], rtol=0, atol=0)


@pytest.mark.integration
def test_attention_tables_follow_new_weights_also_in_evaluation_mode():
    first, second = TimmBackbone("tiny_vit_5m_224").eval(), TimmBackbone("tiny_vit_5m_224").eval()
    image = torch.rand(1, 3, 33, 50)
    with torch.no_grad():
        for key, table in second.named_parameters():
            if "attention_biases" in key:
                table.normal_()
        expected = second(image)[-1]
        first(image)
        first.load_state_dict(second.state_dict())
        torch.testing.assert_close(first(image)[-1], expected)


def smallest(family):
    """The name that sounds smallest; the names of a family do not sort by size."""
    names = timm.list_models(module=family)
    return next((n for word in SMALL for n in names if word in n), names[0])


@pytest.mark.slow
@pytest.mark.parametrize("family", timm.list_modules())
def test_every_family_works_at_odd_sizes_or_is_refused_in_one_sentence(family):
    name = smallest(family)
    try:
        backbone = TimmBackbone(name)
    except ValueError as error:
        sentence = str(error)
        assert re.fullmatch(rf"{name} [^\n]+; choose another backbone, [^\n]+", sentence)
        print(sentence)
        return
    assert list(backbone.strides) == sorted(backbone.strides)
    check_sizes(backbone, [(65, 97), (33, 50), (5, 7)])
