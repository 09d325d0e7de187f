import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gald.inference import Whole


class Convolutions(nn.Module):
    """A network at stride 4 that sees little more than the pixels below each cell."""

    def __init__(self, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 5, stride=4, padding=2)

    def logits(self, image):
        return 20 * self.conv(image)


@pytest.fixture
def model():
    with torch.no_grad():
        yield Convolutions().eval()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (61, 83), (8, 300)])
def test_strips_and_labels_are_those_of_the_plain_way(model, size, align_corners):
    image = torch.rand(2, 3, *size)
    plain = F.interpolate(
        model.logits(image), size=size, mode="bilinear", align_corners=align_corners
    )
    whole = Whole(align_corners)
    assert torch.equal(whole(model, image), plain)
    strips = list(whole.strips(model, image))
    assert [rows.start for rows, _ in strips] == list(range(0, size[0], 8))
    torch.testing.assert_close(torch.cat([s for _, s in strips], 2), plain, rtol=0, atol=1e-5)
    prediction = whole.predict(model, image, confidence=True)
    assert prediction.labels.dtype == torch.uint8
    assert torch.equal(prediction.labels.long(), plain.argmax(1))
    torch.testing.assert_close(prediction.confidence, plain.softmax(1).amax(1))
    assert whole.predict(model, image).confidence is None
