import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.loss.ohem import OhemCrossEntropy
from gald.model.segmentor import SegOutput

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("GALD_GOLDEN", ROOT.parent / "shared" / "golden"))


@pytest.mark.parametrize("case", range(4))
def test_ohem_reproduces_golden_loss_and_gradient(case):
    path = GOLDEN / "ohem_cross_entropy.npz"
    if not path.exists():
        pytest.skip(f"there is no {path}; set GALD_GOLDEN to the folder of golden outputs")
    data = {k.split("/")[1]: v for k, v in np.load(path).items() if k.startswith(f"case{case}/")}
    logits = torch.from_numpy(data["logits"]).requires_grad_()
    loss = OhemCrossEntropy(float(data["thresh"]), int(data["min_kept"]))(
        logits, torch.from_numpy(data["target"])
    )
    loss.backward()
    assert logits.grad is not None
    torch.testing.assert_close(loss.item(), float(data["loss"]), rtol=1e-5, atol=0)
    torch.testing.assert_close(logits.grad, torch.from_numpy(data["logits_grad"]))


def test_ohem_keeps_the_pixels_of_lowest_probability_in_a_hand_made_case():
    # Two classes; the true class has probability .9, .6, .2, .99, and the last pixel is void.
    p = torch.tensor([0.9, 0.6, 0.2, 0.99, 0.01])
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    mask = torch.tensor([[[0, 0, 0, 0, 255]]], dtype=torch.uint8)
    below = OhemCrossEntropy(threshold=0.7, min_kept=1)(logits, mask)
    torch.testing.assert_close(below, -(p[1].log() + p[2].log()) / 2)
    at_least_three = OhemCrossEntropy(threshold=0.1, min_kept=3)(logits, mask)
    torch.testing.assert_close(at_least_three, -(p[0].log() + p[1].log() + p[2].log()) / 3)


def test_ohem_without_min_kept_leaves_the_choice_to_the_threshold():
    p = torch.tensor([0.9, 0.6, 0.2])
    logits = torch.stack([p.log(), (1 - p).log()])[None, :, None]
    mask = torch.zeros(1, 1, 3, dtype=torch.uint8)
    loss = OhemCrossEntropy(threshold=0.7, min_kept=0)(logits, mask)
    torch.testing.assert_close(loss, -(p[1].log() + p[2].log()) / 2)
    assert OhemCrossEntropy(threshold=0.1, min_kept=0)(logits, mask) == 0


def test_class_weights_may_be_integers():
    logits, mask = torch.randn(1, 3, 4, 4), torch.randint(0, 3, (1, 4, 4))
    assert CrossEntropy([1, 1, 10])(logits, mask) == CrossEntropy([1.0, 1.0, 10.0])(logits, mask)


LOSSES = [
    CrossEntropy(),
    CrossEntropy([1.0, 2.0, 0.5]),
    CrossEntropy(label_smoothing=0.1),
    OhemCrossEntropy(min_kept=20, over="image"),
]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("main", [True, False])
def test_parts_of_a_batch_sum_to_the_loss_of_the_batch(loss, main):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=generator)
    mask = torch.randint(0, 3, (4, 8, 8), generator=generator)
    mask[0], mask[1, :5], mask[2, :1] = 255, 255, 255
    both = DeepSupervision(*((loss, CrossEntropy()) if main else (CrossEntropy(), loss)))
    count = partial(torch.bincount, minlength=256)
    parts = [
        both(
            SegOutput(logits[rows], -logits[rows]),
            mask[rows],
            count(mask[rows].flatten()),
            count(mask.flatten()),
        )
        for rows in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(parts), both(SegOutput(logits, -logits), mask))


def test_ohem_over_an_image_is_ohem_of_each_image():
    logits, mask = torch.randn(3, 4, 8, 8), torch.randint(0, 4, (3, 8, 8))
    mask[0, :5] = 255
    alone = OhemCrossEntropy(0.3, min_kept=10)
    counts = [(part != 255).sum() for part in mask]
    means = [
        alone(one[None], part[None]) * count
        for one, part, count in zip(logits, mask, counts, strict=True)
    ]
    each = OhemCrossEntropy(0.3, min_kept=10, over="image")(logits, mask)
    torch.testing.assert_close(each, sum(means) / sum(counts))


def test_ohem_over_a_batch_is_refused_for_a_part_of_the_step():
    loss = DeepSupervision(OhemCrossEntropy(), CrossEntropy())
    out, mask = SegOutput(torch.randn(1, 3, 4, 4), None), torch.zeros(1, 4, 4, dtype=torch.uint8)
    pixels = torch.bincount(mask.flatten(), minlength=256)
    torch.testing.assert_close(loss(out, mask, pixels, pixels), loss(out, mask))
    with pytest.raises(ValueError, match=r"set loss\.main\.over=image"):
        loss(out, mask, pixels, 2 * pixels)


@pytest.mark.parametrize("loss", LOSSES)
def test_deterministic_mode_computes_the_same_loss(loss):
    logits, mask = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5), dtype=torch.uint8)
    mask[0, :2] = 255
    expected = loss(logits, mask)
    torch.use_deterministic_algorithms(True)
    try:
        torch.testing.assert_close(loss(logits, mask), expected)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("loss", [CrossEntropy(), OhemCrossEntropy(), CrossEntropy([1.0, 2.0])])
def test_void_crop_gives_zero_loss_and_zero_gradient(loss):
    logits = torch.randn(1, 2, 4, 4, requires_grad=True)
    value = loss(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    value.backward()
    assert value.item() == 0
    assert logits.grad is not None and logits.grad.abs().sum() == 0


@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 3.0]])
def test_cross_entropy_equals_torch_mean_over_labelled_pixels(weight):
    logits, mask = torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5), dtype=torch.uint8)
    mask[0, :2] = 255
    expected = F.cross_entropy(
        logits,
        mask.long(),
        weight=None if weight is None else torch.tensor(weight),
        ignore_index=255,
    )
    torch.testing.assert_close(CrossEntropy(weight)(logits, mask), expected)


def test_cross_entropy_names_both_numbers_when_weights_do_not_fit():
    with pytest.raises(ValueError, match=r"has 2 factors for 3 classes"):
        CrossEntropy([1.0, 1.0])(torch.randn(1, 3, 2, 2), torch.zeros(1, 2, 2))


def test_deep_supervision_resizes_as_its_option_says():
    mask = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    out = SegOutput(torch.randn(1, 3, 4, 4), torch.randn(1, 3, 2, 2))
    full = SegOutput(*(F.interpolate(x, (8, 8), mode="bilinear", align_corners=True) for x in out))
    loss = DeepSupervision(CrossEntropy(), CrossEntropy(), align_corners=True)
    torch.testing.assert_close(loss(out, mask), loss(full, mask))


def test_deep_supervision_adds_the_weighted_auxiliary_loss_at_mask_size():
    mask = torch.randint(0, 3, (1, 8, 8), dtype=torch.uint8)
    out = SegOutput(torch.randn(1, 3, 4, 4), torch.randn(1, 3, 2, 2))
    loss = DeepSupervision(CrossEntropy(), CrossEntropy(), weight=0.4)
    parts = [
        F.cross_entropy(F.interpolate(x, (8, 8), mode="bilinear"), mask.long())
        for x in (out.logits, out.aux)
    ]
    torch.testing.assert_close(loss(out, mask), parts[0] + 0.4 * parts[1])
    torch.testing.assert_close(loss(SegOutput(out.logits, None), mask), parts[0])
