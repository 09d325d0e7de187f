import itertools

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from torch import nn

from gald.config import compose
from gald.inference import FullImage, MultiScaleFlip, Slide, base
from gald.profiling.memory import TensorMemoryTracker


class Convolution(nn.Module):
    """A network at stride 4 that counts its passes."""

    def __init__(self, classes=5):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, classes, 5, stride=4, padding=2)
        self.sizes = []

    def logits(self, image):
        self.sizes.append(tuple(image.shape))
        if not image.is_floating_point():
            image = image.float() / 255
        return 20 * self.conv(image)


@pytest.fixture
def model():
    with torch.no_grad():
        yield Convolution().eval()


MODES = {
    "whole": FullImage(),
    "slide": Slide((24, 40)),
    "gaussian": Slide((24, 40), blending="gaussian"),
    "multi_scale": MultiScaleFlip(FullImage(True), (0.5, 1.0, 1.3), align_corners=True),
    "multi_scale_slide": MultiScaleFlip(Slide((24, 40), 0.5), (0.75, 1.0), flip=True),
    "flip": MultiScaleFlip(FullImage(), (1.0,)),
}


def up(x, size, align_corners=False):
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(64, 96), (61, 83), (8, 300), (4, 4)])
def test_strips_and_labels_match_a_plain_resize(model, size, align_corners):
    image = torch.rand(2, 3, *size)
    plain = up(model.logits(image), size, align_corners)
    whole = FullImage(align_corners)
    assert torch.equal(whole(model, image), plain)
    row_strips = torch.cat([scores for _, scores in whole.row_strips(model, image)], 2)
    torch.testing.assert_close(row_strips, plain, rtol=1e-6, atol=1e-6)
    prediction = whole.predict(model, image, confidence=True)
    assert prediction.labels.dtype == torch.uint8
    assert torch.equal(prediction.labels.long(), plain.argmax(1))
    torch.testing.assert_close(prediction.confidence, plain.softmax(1).amax(1))
    assert whole.predict(model, image).confidence is None


def test_an_image_is_split_into_many_strips_and_tiles(model, monkeypatch):
    monkeypatch.setattr(base, "TILE_BYTES_OF_THREAD", 1)
    image = torch.rand(1, 3, 150, 200)
    plain = up(model.logits(image), (150, 200))
    rows, row_strips = zip(*FullImage().row_strips(model, image), strict=True)
    assert [at.start for at in rows] == [0, 32, 64, 96, 128] and rows[-1].stop == 150
    torch.testing.assert_close(torch.cat(row_strips, 2), plain, rtol=1e-6, atol=1e-6)
    assert torch.equal(FullImage().predict(model, image).labels.long(), plain.argmax(1))


@pytest.mark.parametrize("name", MODES)
def test_every_mode_scores_a_batch_as_it_scores_each_image(model, name):
    mode = MODES[name]
    image = torch.rand(3, 3, 53, 71)
    scores = mode(model, image)
    assert scores.shape == (3, 5, 53, 71)
    prediction = mode.predict(model, image, confidence=True)
    assert torch.equal(prediction.labels.long(), scores.argmax(1))
    torch.testing.assert_close(prediction.confidence, scores.softmax(1).amax(1))
    for i in range(3):
        one = mode(model, image[i : i + 1])
        torch.testing.assert_close(one, scores[i : i + 1], rtol=1e-5, atol=1e-5)
        assert torch.equal(mode.predict(model, image[i : i + 1]).labels[0], prediction.labels[i])


@pytest.mark.parametrize("name", MODES)
def test_bytes_and_fractions_give_the_same_scores(model, name):
    image = torch.randint(256, (1, 3, 40, 56), dtype=torch.uint8)
    torch.testing.assert_close(MODES[name](model, image), MODES[name](model, image.float() / 255))


@pytest.mark.parametrize("blending", ["uniform", "gaussian"])
@pytest.mark.parametrize("window", [(48, 64), (100, 64), (500, 500)])
def test_one_window_equals_the_whole_image(model, window, blending):
    image = torch.rand(2, 3, 48, 64)
    slide = Slide(window, blending=blending)
    assert torch.equal(
        slide(model, image), torch.cat([s for _, s in FullImage().row_strips(model, image)], 2)
    )
    assert torch.equal(slide.predict(model, image).labels, FullImage().predict(model, image).labels)
    scales = (0.5, 1.0)
    both = (MultiScaleFlip(over, scales)(model, image) for over in (slide, FullImage()))
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("blending", ["uniform", "gaussian"])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("size", "window", "stride"),
    [((50, 70), (24, 32), (16, 20)), ((50, 70), (24, 32), (24, 32)), ((20, 70), (24, 32), (3, 11))],
)
def test_sliding_matches_a_slow_loop(model, size, window, stride, align_corners, blending):
    image = torch.rand(1, 3, *size)
    total, weight = torch.zeros(1, 5, *size), torch.zeros(size)
    height, width = min(size[0], window[0]), min(size[1], window[1])
    for top, left in itertools.product(
        sorted({min(i, size[0] - height) for i in range(0, size[0], stride[0])}),
        sorted({min(i, size[1] - width) for i in range(0, size[1], stride[1])}),
    ):
        box = (..., slice(top, top + height), slice(left, left + width))
        bump = torch.ones(height, width)
        if blending == "gaussian":
            y, x = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
            squares = (y[:, None] / (height / 8)) ** 2 + (x[None] / (width / 8)) ** 2
            bump = torch.exp(-squares / 2)
        total[box] += bump * up(model.logits(image[box]), (height, width), align_corners)
        weight[box] += bump
    slide = Slide(window, stride=stride, blending=blending, align_corners=align_corners)
    scores = slide(model, image)
    torch.testing.assert_close(scores, total / weight, rtol=1e-4, atol=1e-4)
    assert torch.equal(slide.predict(model, image).labels.long(), (total / weight).argmax(1))


def test_number_of_windows_per_pass_follows_max_bytes(model):
    image = torch.rand(1, 3, 100, 100)
    few, many = Slide((40, 40), max_bytes=1), Slide((40, 40))
    model.sizes.clear()
    a = few(model, image)
    assert model.sizes == [(1, 3, 40, 40)] * 16
    model.sizes.clear()
    b = many(model, image)
    assert model.sizes == [(1, 3, 40, 40), (15, 3, 40, 40)]
    torch.testing.assert_close(a, b)
    with TensorMemoryTracker([image, *model.parameters()]) as one:
        model.logits(image[..., :40, :40])
    model.sizes.clear()
    Slide((40, 40), max_bytes=4 * one.peak)(model, image)
    assert [size[0] for size in model.sizes] == [1, 4, 4, 4, 3]


def test_default_overlap_gives_the_authors_windows():
    # lxtGH/GALD-DGCNet eval.py on Cityscapes: 832, overlap 1/3
    assert Slide((832, 832)).stride == (555, 555)
    assert Slide((513, 513)).stride == (342, 342)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("over", ["whole", "slide"])
def test_scores_of_several_scales_are_the_logarithm_of_the_mean_probability(
    model, over, align_corners
):
    over = {
        "whole": FullImage(align_corners),
        "slide": Slide((24, 32), align_corners=align_corners),
    }[over]
    image = torch.rand(2, 3, 49, 67)
    mean = torch.zeros(2, 5, 49, 67)
    for size, flip in itertools.product([(25, 34), (49, 67), (74, 101)], [False, True]):
        scaled = up(image, size)
        scores = over(model, scaled.flip(-1) if flip else scaled)
        scores = up(scores.flip(-1) if flip else scores, (49, 67), align_corners)
        mean += scores.softmax(1) / 6
    mode = MultiScaleFlip(over, (0.5, 1.0, 1.5), align_corners=align_corners)
    scores = mode(model, image)
    torch.testing.assert_close(scores, mean.log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores.exp().sum(1), torch.ones(2, 49, 67))


def test_size_for_inspection_is_the_scale_nearest_to_one():
    image = torch.rand(1, 3, 37, 50)
    assert all(
        MODES[name].at_network_size(image) is image for name in ("whole", "slide", "multi_scale")
    )
    half = MultiScaleFlip(FullImage(), (0.25, 0.5), flip=False)
    assert half.at_network_size(image).shape[-2:] == (19, 25)


def test_a_scale_leaves_a_side_at_least_one_pixel(model):
    image = torch.randint(0, 256, (1, 3, 1, 40), dtype=torch.uint8)
    labels = MultiScaleFlip(FullImage(), [0.25, 1.0]).predict(model, image).labels
    assert labels.shape == (1, 1, 40)


def test_labels_keep_their_precision_under_autocast_and_fast_matmul(model):
    image = torch.rand(1, 3, 64, 64)
    exact = FullImage().predict(model, image, confidence=True)
    logits = model.logits(image)
    model.logits = lambda _: logits
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            prediction = FullImage().predict(model, image, confidence=True)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(exact.labels, prediction.labels)
    assert torch.equal(exact.confidence, prediction.confidence)


def test_first_of_equal_classes_wins_and_nan_is_void(model):
    model.logits = lambda image: torch.zeros(1, 200, 4, 4)
    assert FullImage().predict(model, torch.rand(1, 3, 16, 16)).labels.max() == 0
    model.logits = lambda image: torch.full((1, 200, 4, 4), torch.nan)
    assert FullImage().predict(model, torch.rand(1, 3, 16, 16)).labels.min() == 255


def test_the_last_of_many_classes_is_found(model):
    logits = torch.zeros(1, 255, 4, 4)
    logits[:, 254] = 1
    model.logits = lambda image: logits
    assert FullImage().predict(model, torch.rand(1, 3, 16, 16)).labels.min() == 254


@pytest.mark.parametrize("name", MODES)
def test_memory_stays_below_that_of_full_size_scores(name):
    model = Convolution(classes=64).eval()
    model.conv.stride = (8, 8)
    mode = {
        **MODES,
        "slide": Slide((256, 256)),
        "gaussian": Slide((256, 256), blending="gaussian"),
        "multi_scale_slide": MultiScaleFlip(Slide((256, 256)), (0.75, 1.0)),
    }[name]
    image = torch.rand(1, 3, 512, 512)
    with TensorMemoryTracker([image, *model.parameters()]) as memory:
        mode.predict(model, image, confidence=True)
    assert memory.peak < 64 * 512 * 512 * 4 / 3


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Slide((64, 64), stride=(65, 64)), "stride 65 is larger than window 64"),
        (lambda: Slide((64, 64), stride=(0, 64)), "at least 1 px"),
        (lambda: Slide((64,)), "height and a width"),
        (lambda: Slide((64, 64), overlap=1.0), "overlap is 1.0"),
        (lambda: Slide(blending="cosine"), "choose one of uniform, gaussian"),
        (lambda: MultiScaleFlip(FullImage(), ()), "positive factors"),
        (lambda: MultiScaleFlip(FullImage(), (1.0, 0.0)), "positive factors"),
    ],
)
def test_invalid_arguments_are_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("overrides", "check"),
    [
        (["inference=slide", "inference.window=[512,256]"], lambda m: m.window == (512, 256)),
        (["inference=multi_scale"], lambda m: isinstance(m.over, FullImage) and len(m.scales) == 6),
        (["inference=multi_scale", "inference.scales=[1.0]"], lambda m: m.scales == (1.0,)),
        (
            ["inference=multi_scale_slide", "inference.over.window=[64,64]"],
            lambda m: m.over.window == (64, 64),
        ),
        (
            ["inference=multi_scale_slide", "model.align_corners=true"],
            lambda m: m.align_corners and m.over.align_corners,
        ),
    ],
)
def test_modes_are_chosen_by_overrides(overrides, check):
    assert check(instantiate(compose("train", overrides).inference))


class Noting(Convolution):
    """A network that notes the type and the layout of its passes."""

    def __init__(self):
        super().__init__()
        self.passes = set()

    def logits(self, image):
        inner = image.is_contiguous(memory_format=torch.channels_last)
        logits = super().logits(image)
        self.passes.add((logits.dtype, inner))
        return logits


BF16 = {
    "whole": FullImage(precision="bf16"),
    "slide": Slide((24, 40), precision="bf16"),
    "multi_scale": MultiScaleFlip(FullImage(), (0.5, 1.0), precision="bf16"),
    "multi_scale of bf16": MultiScaleFlip(FullImage(precision="bf16"), (0.5, 1.0)),
    "multi_scale_slide": MultiScaleFlip(Slide((24, 40)), (0.5, 1.0), precision="bf16"),
}


@pytest.mark.parametrize("mode", BF16)
def test_every_pass_of_bf16_is_in_bfloat16_with_channels_innermost(mode):
    model, image = Noting().eval(), torch.randint(256, (1, 3, 61, 83), dtype=torch.uint8)
    labels, confidence = BF16[mode].predict(model, image, confidence=True)
    assert model.passes == {(torch.bfloat16, True)}
    assert BF16[mode](model, image).dtype == confidence.dtype == torch.float32
    full = {"whole": FullImage(), "slide": Slide((24, 40))}
    over = full["slide" if "slide" in mode else "whole"]
    reference = over if mode in full else MultiScaleFlip(over, (0.5, 1.0))
    assert (reference.predict(model, image).labels == labels).float().mean() > 0.95
    assert (torch.float32, False) in model.passes


def test_precision_of_several_scales_leaves_the_given_mode_as_it_is():
    over = FullImage()
    assert MultiScaleFlip(over, precision="bf16").over.precision == "bf16"
    assert over.precision is None


@pytest.mark.parametrize("mode", [FullImage, Slide])
def test_unknown_precision_is_refused(mode):
    with pytest.raises(ValueError, match=r"inference\.precision is 'fp8'; choose bf16, or null"):
        mode(precision="fp8")


def test_device_without_bfloat16_is_refused(model, monkeypatch):
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda device: False)
    message = "bf16 needs bfloat16, which cpu does not have; use inference.precision=null"
    with pytest.raises(ValueError, match=message):
        FullImage(precision="bf16").predict(model, torch.zeros(1, 3, 8, 8))
