import pytest
import torch

from gald.modules.ga.gap import GAP


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
