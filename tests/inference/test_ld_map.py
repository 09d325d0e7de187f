from types import SimpleNamespace

import pytest
import torch

from gald.inference import FullImage
from gald.inference.ld_map import ld_map


def model_with(values):
    return SimpleNamespace(ld_map=lambda image: values, align_corners=False)


def test_ld_map_is_the_mean_over_channels():
    values = torch.tensor([0.2, 0.6]).view(1, 2, 1, 1).repeat(1, 1, 2, 3)
    result = ld_map(model_with(values), torch.zeros(3, 8, 12), FullImage())
    torch.testing.assert_close(result, torch.full((8, 12), 0.4))


def test_ld_map_of_weights_that_sum_to_one_is_the_largest_weight():
    flat, sharp = torch.full((3, 2, 1), 1 / 3), torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)
    values = torch.cat([flat, sharp.expand(3, 2, 1)], dim=2)[None]
    result = ld_map(model_with(values), torch.zeros(3, 2, 2), FullImage())
    torch.testing.assert_close(result, torch.tensor([[1 / 3, 1.0], [1 / 3, 1.0]]))


@pytest.mark.parametrize("value", [0.5, 1.0])
def test_ld_map_of_one_channel_is_that_channel(value):
    result = ld_map(model_with(torch.full((1, 1, 2, 3), value)), torch.zeros(3, 2, 3), FullImage())
    assert torch.equal(result, torch.full((2, 3), value))


def test_ld_map_is_none_without_distribution_map():
    assert ld_map(model_with(None), torch.zeros(3, 8, 12), FullImage()) is None
