import pytest
import torch
from torch.nn import functional as F

from gald.model.neck import FPN

WIDTHS, STRIDES = (3, 4, 5, 6), (4, 8, 16, 32)


@pytest.mark.parametrize("align_corners", [False, True])
def test_fpn_adds_each_level_to_the_finer_ones_and_fuses_all_at_its_stride(align_corners):
    torch.manual_seed(0)
    neck = FPN(WIDTHS, STRIDES, 7, stride=8, align_corners=align_corners).double().eval()
    maps = [
        torch.randn(2, w, 64 // s, 96 // s).double() for w, s in zip(WIDTHS, STRIDES, strict=True)
    ]
    above, levels = 0, []
    parts = [*zip(neck.lateral, neck.smooth, maps, strict=True)]
    for lateral, smooth, level in parts[::-1]:
        if levels:
            above = above.repeat_interleave(2, 2).repeat_interleave(2, 3)
        above = lateral(level) + above
        levels.insert(0, smooth(above))
    resized = [
        F.interpolate(level, (8, 12), mode="bilinear", align_corners=align_corners)
        for level in levels
    ]
    expected = [*levels, neck.fuse(torch.cat(resized, 1))]
    for found, wanted in zip(neck(tuple(maps)), expected, strict=True):
        torch.testing.assert_close(found, wanted)
    assert neck.strides == (4, 8, 16, 32, 8)


@pytest.mark.parametrize(("stride", "level"), [(1, 0), (4, 0), (15, 1), (16, 2), (99, 3)])
def test_fused_map_of_fpn_has_the_coarsest_level_with_at_most_its_stride(stride, level):
    assert FPN(WIDTHS, STRIDES, 7, stride=stride).level == level
