import pytest
import torch
from torch.nn import functional as F

from gald.loss.bands import cross_entropy as banded
from gald.loss.bands.cross_entropy import Target, banded_cross_entropy, first_pass
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.loss.ohem import OhemCrossEntropy
from gald.model.segmentor import SegOutput
from gald.profiling.memory import TensorMemoryTracker

WEIGHT = [0.5, 2.0, 0.0, 1.0, 3.0]
SIZES = [  # of logits and mask: one band, several, uneven, one cell, one axis, none, smaller
    ((3, 4), (24, 32)),
    ((9, 7), (70, 53)),
    ((1, 1), (33, 5)),
    ((40, 5), (40, 37)),
    ((35, 20), (35, 20)),
    ((24, 31), (21, 9)),
]


def draw(size, of_mask, images=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(images, 5, *size, generator=generator)
    mask = torch.randint(0, 5, (images, *of_mask), generator=generator, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < 0.2] = 255
    return logits, mask


def at_full_size(logits, mask, align_corners):
    if logits.shape[-2:] == mask.shape[-2:]:
        return logits
    if logits.dtype == torch.float32:
        return F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=align_corners)
    for axis in (2, 3):  # sums in float64, with torch's factors of float32
        size = mask.shape[axis - 1]
        unit = torch.eye(logits.shape[axis])[None]
        factors = F.interpolate(unit, size, mode="linear", align_corners=align_corners)[0]
        logits = (logits.movedim(axis, 3) @ factors.double()).movedim(3, axis)
    return logits


def with_gradient(function, logits):
    logits = logits.clone().requires_grad_()
    value = function(logits)
    value.backward()
    return value.detach(), logits.grad


def assert_close(got, expected):
    (value, gradient), (its_value, its_gradient) = got, expected
    assert (value - its_value).abs() <= 1e-6 * its_value.abs()
    assert (gradient - its_gradient).abs().max() <= 1e-6 * its_gradient.abs().max()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("size", "of_mask"), SIZES)
def test_loss_and_gradient_are_those_of_torch_at_full_size(
    size, of_mask, align_corners, monkeypatch
):
    logits, mask = draw(size, of_mask)
    for budget in (1, 2**30):  # an image and band at a time, and all at once
        monkeypatch.setattr(banded, "BAND_BYTES_OF_CPU", budget)
        for weight in (None, WEIGHT):
            for smoothing in (0.0, 0.1):
                ours = CrossEntropy(weight, smoothing)

                def plain(x, weight=weight, smoothing=smoothing):
                    factors = None if weight is None else torch.tensor(weight).double()
                    full, target = at_full_size(x, mask, align_corners), mask.long()
                    return F.cross_entropy(
                        full, target, factors, ignore_index=255, label_smoothing=smoothing
                    )

                got = with_gradient(lambda x, ours=ours: ours(x, mask, align_corners), logits)
                assert_close(got, with_gradient(plain, logits.double()))


def plain_ohem(logits, mask, threshold, min_kept):
    """Keep the pixels of one image or batch by sorting them; return the loss and the pixels."""
    losses = F.cross_entropy(logits, mask.long(), ignore_index=255, reduction="none")
    probability = torch.exp(-losses.detach())
    labelled = (mask != 255).flatten().nonzero()[:, 0]
    ordered = probability.flatten()[labelled].sort().values
    highest = threshold
    if min_kept:
        highest = max(threshold, ordered[min(min_kept, len(ordered)) - 1])
    kept = (mask != 255) & (probability <= highest)
    return losses[kept].mean(), kept


@pytest.mark.parametrize("min_kept", [0, 300, 1500, 10**6])
@pytest.mark.parametrize("align_corners", [False, True])
def test_ohem_keeps_the_same_pixels_and_has_the_same_gradient(min_kept, align_corners):
    for seed in range(3):
        logits, mask = draw((9, 7), (70, 53), seed=seed)
        loss = OhemCrossEntropy(0.4, min_kept, over="batch")

        def plain(x, mask=mask):
            return plain_ohem(at_full_size(x, mask, align_corners), mask, 0.4, min_kept)[0]

        got = with_gradient(lambda x, m=mask, f=loss: f(x, m, align_corners), logits)
        assert_close(got, with_gradient(plain, logits))
        kept = plain_ohem(at_full_size(logits, mask, align_corners), mask, 0.4, min_kept)[1]
        losses, _ = first_pass(logits, Target(mask, align_corners=align_corners))
        assert loss._hard(losses, mask != 255).equal(kept)


@pytest.mark.parametrize("main", [CrossEntropy(WEIGHT), OhemCrossEntropy(0.4, 99, over="image")])
def test_in_low_precision_the_gradient_is_that_of_float32(main):
    logits, mask = draw((9, 7), (70, 53))
    loss = DeepSupervision(main, CrossEntropy(), align_corners=True)
    low = logits.bfloat16()
    expected = with_gradient(lambda x: loss(SegOutput(x, None), mask), low.float())
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = with_gradient(lambda x: loss(SegOutput(x, None), mask), low)
    assert value == expected[0] and gradient.dtype == torch.bfloat16
    assert gradient.equal(expected[1].bfloat16())


def test_a_loss_of_the_user_gets_logits_of_the_masks_size():
    logits, mask = draw((9, 7), (70, 53))
    sizes = []

    class Own(torch.nn.Module):
        def forward(self, logits, mask):
            sizes.append(logits.shape[-2:])
            return logits.sum() * 0

    DeepSupervision(Own(), CrossEntropy())(SegOutput(logits, logits), mask)
    assert sizes == [(70, 53)]


def test_a_gradient_is_computed_only_where_it_is_needed():
    logits, mask = draw((9, 7), (70, 53))
    expected = CrossEntropy()(logits.requires_grad_(), mask)
    with torch.no_grad():
        assert CrossEntropy()(logits, mask) == expected
    assert not CrossEntropy()(logits.detach(), mask).requires_grad


def test_a_gradient_can_be_scaled_and_taken_twice_but_not_be_derived():
    logits, mask = draw((9, 7), (70, 53))
    once = with_gradient(lambda x: CrossEntropy()(x, mask), logits)
    twice = with_gradient(lambda x: 4 * CrossEntropy()(x, mask), logits)
    assert twice[1].equal(4 * once[1])
    leaf = logits.clone().requires_grad_()
    value = CrossEntropy()(leaf, mask)
    for _ in range(2):
        torch.testing.assert_close(torch.autograd.grad(value, leaf, retain_graph=True)[0], once[1])
    with pytest.raises(ValueError, match=r"no second derivative, .* use torch\.nn\.functional"):
        torch.autograd.grad(CrossEntropy()(leaf, mask), leaf, create_graph=True)


def test_matrix_precision_is_full_in_the_loss_and_restored_after():
    logits, mask = draw((9, 7), (70, 53))
    expected = CrossEntropy()(logits, mask)
    torch.set_float32_matmul_precision("medium")
    try:
        assert CrossEntropy()(logits, mask) == expected
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_memory_does_not_grow_with_classes_times_pixels():
    peaks = []
    for rows in (128, 512):
        logits = torch.randn(1, 150, rows // 8, 16, requires_grad=True)
        mask = torch.randint(0, 150, (1, rows, 128), dtype=torch.uint8)
        with TensorMemoryTracker([logits, mask]) as memory:
            banded_cross_entropy(logits, Target(mask)).backward()
        peaks.append(memory.peak)
    full = 4 * 150 * 512 * 128
    assert peaks[1] < full / 4
    assert peaks[1] - peaks[0] < full / 16  # the gradient of the logits, of an eighth of the side


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("min_kept", [0, 7, 150, 700, 10**6])
@pytest.mark.parametrize("ties", [False, True])
def test_ohem_keeps_exactly_the_pixels_that_sorting_chooses(over, min_kept, ties):
    logits, mask = draw((14, 15), (14, 15))
    if ties:
        logits = logits.round()
    losses, valid = first_pass(logits, Target(mask))[0], mask != 255
    kept = torch.zeros_like(valid)
    for group in range(3) if over == "image" else [slice(None)]:
        probability = torch.exp(-losses[group][valid[group]])
        last = probability.sort().values[min(min_kept, len(probability)) - 1] if min_kept else 0
        kept[group] = valid[group] & (torch.exp(-losses[group]) <= max(0.3, last))
    loss = OhemCrossEntropy(0.3, min_kept, over=over)
    gradient = with_gradient(lambda x: loss(x, mask), logits)[1]
    assert torch.equal(gradient.abs().sum(1) > 0, kept)
