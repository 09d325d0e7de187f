"""Dice, Tversky and Lovasz-softmax, focal and boundary-weighted losses, and their combinations."""

import math
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from gald.loss.boundary import BoundaryCrossEntropy, near_boundary
from gald.loss.combined import Combined
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.loss.dice import Dice
from gald.loss.focal import Focal
from gald.loss.lovasz import Lovasz
from gald.loss.tversky import Tversky
from gald.model.segmentor import SegOutput

K = 4


def draw(seed=0, images=3, size=(6, 7), low=None):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, K, *(low or size), generator=generator)
    mask = torch.randint(0, K, (images, *size), generator=generator, dtype=torch.uint8)
    mask[torch.rand(mask.shape, generator=generator) < 0.2] = 255
    mask[0][mask[0] == 2] = 1  # one class is absent from one image
    return logits, mask


# Slow formulas: one pixel and one class at a time, in Python's floats.


def pixels_of(logits, mask):
    """[(probabilities, label)] of the labelled pixels of an image."""
    p = logits.double().softmax(0).flatten(1).T.tolist()
    return [(row, y) for row, y in zip(p, mask.flatten().tolist(), strict=True) if y != 255]


def slow_region(pixels, of_class, classes):
    present = {y for _, y in pixels}
    chosen = [k for k in range(K) if classes == "all" or k in present]
    if not pixels:
        return 0.0
    return sum(of_class([(p[k], float(y == k)) for p, y in pixels]) for k in chosen) / len(chosen)


def slow_dice(smooth):
    def of_class(pairs):
        hit = sum(p * y for p, y in pairs)
        return 1 - (2 * hit + smooth) / (sum(p + y for p, y in pairs) + smooth)

    return of_class


def slow_tversky(alpha, beta, gamma, smooth):
    def of_class(pairs):
        hit = sum(p * y for p, y in pairs)
        false = sum(p * (1 - y) for p, y in pairs)
        missed = sum((1 - p) * y for p, y in pairs)
        return (1 - (hit + smooth) / (hit + alpha * false + beta * missed + smooth)) ** gamma

    return of_class


def slow_lovasz(pairs):
    """Sum over ranks of the error times the growth of 1 - IoU, from sets of wrong pixels."""
    pairs = sorted(pairs, key=lambda pair: -abs(pair[1] - pair[0]))
    total, before = 0.0, 0.0
    for i, (p, y) in enumerate(pairs, start=1):
        label = {j for j, (_, z) in enumerate(pairs) if z}
        wrong = set(range(i))
        predicted = label ^ wrong
        now = 1 - len(predicted & label) / len(predicted | label)
        total += abs(y - p) * (now - before)
        before = now
    return total


REGIONS = {
    "dice": (Dice, {}, slow_dice(1.0)),
    "dice without smooth": (Dice, {"smooth": 0.0}, slow_dice(0.0)),
    "dice of all": (Dice, {"classes": "all", "smooth": 2.0}, slow_dice(2.0)),
    "tversky": (Tversky, {}, slow_tversky(0.3, 0.7, 1, 1.0)),
    "focal tversky": (Tversky, {"alpha": 0.6, "gamma": 0.75}, slow_tversky(0.6, 0.7, 0.75, 1.0)),
    "tversky of all": (Tversky, {"classes": "all"}, slow_tversky(0.3, 0.7, 1, 1.0)),
    "lovasz": (Lovasz, {}, slow_lovasz),
    "lovasz of all": (Lovasz, {"classes": "all"}, slow_lovasz),
}


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("name", REGIONS)
def test_loss_of_regions_equals_the_slow_formula(name, over):
    build, options, of_class = REGIONS[name]
    logits, mask = draw()
    mask[1] = 255
    groups = [pixels_of(*pair) for pair in zip(logits, mask, strict=True)]
    groups = [[pixel for group in groups for pixel in group]] if over == "batch" else groups
    classes = options.get("classes", "present")
    losses = [slow_region(group, of_class, classes) * len(group) for group in groups]
    expected = sum(losses) / sum(map(len, groups))
    got = build(**options, over=over)(logits, mask)
    assert got.item() == pytest.approx(expected, rel=2e-6)


def test_tversky_has_dice_and_jaccard_as_special_cases():
    logits, mask = draw()
    torch.testing.assert_close(Tversky(0.5, 0.5, smooth=0.5)(logits, mask), Dice()(logits, mask))
    sure = 100 * F.one_hot(torch.randint(0, K, mask.shape), K).movedim(3, 1).float()
    jaccard = Tversky(1.0, 1.0, smooth=0.0)(sure, mask)
    torch.testing.assert_close(Lovasz()(sure, mask), jaccard)  # both are 1 - IoU


def test_lovasz_gradient_is_that_of_the_slow_formula():
    logits, mask = draw(images=1, size=(3, 4))
    logits = logits.double().requires_grad_()
    p = logits[0].softmax(0).flatten(1)
    known = (mask[0] != 255).flatten()
    total, present = 0.0, [k for k in range(K) if (mask == k).any()]
    for k in present:
        y = (mask[0] == k).flatten()[known].double()
        errors = (y - p[k][known]).abs()
        order = errors.argsort(descending=True)
        y = y[order]
        distance = 1 - (y.sum() - y.cumsum(0)) / (y.sum() + (1 - y).cumsum(0))
        total = total + (errors[order] * distance.diff(prepend=torch.zeros(1))).sum()
    (expected,) = torch.autograd.grad(total / len(present), logits)
    logits = logits.detach().float().requires_grad_()
    (got,) = torch.autograd.grad(Lovasz()(logits, mask), logits)
    torch.testing.assert_close(got, expected.float())


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("weight", [None, [0.5, 2.0, 1.0, 0.0]])
def test_focal_loss_and_gradient_equal_the_formula_at_full_size(gamma, weight):
    logits, mask = draw(size=(12, 14), low=(5, 6))
    logits.requires_grad_()
    score = F.interpolate(logits, mask.shape[1:], mode="bilinear").log_softmax(1)
    valid = mask != 255
    log_p = score.gather(1, mask.long().where(valid, 0)[:, None])[:, 0]
    w = torch.ones(K) if weight is None else torch.tensor(weight)
    w = w[mask.long().where(valid, 0)] * valid
    expected = (-((1 - log_p.exp()) ** gamma) * log_p * w).sum() / w.sum()
    got = Focal(gamma, weight)(logits, mask)
    torch.testing.assert_close(got, expected)
    gradients = [torch.autograd.grad(loss, logits)[0] for loss in (got, expected)]
    torch.testing.assert_close(*gradients)
    if gamma == 0:
        torch.testing.assert_close(got, CrossEntropy(weight)(logits, mask))


def test_focal_gradient_is_finite_where_the_network_is_sure():
    for sign in (1, -1):
        logits = sign * torch.tensor([200.0, 0.0]).view(1, 2, 1, 1).requires_grad_()
        loss = Focal(0.5)(logits, torch.zeros(1, 1, 1, dtype=torch.uint8))
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("width", [1, 2])
def test_pixels_near_a_boundary_are_those_within_its_width_of_another_class(width):
    mask = draw(size=(9, 11))[1]
    mask[:, 2:7, 1:6] = 3
    mask[:, :, 8] = 255  # void is no class, and ends no class
    near = near_boundary(mask, width)
    for b, i, j in torch.cartesian_prod(*map(torch.arange, mask.shape)).tolist():
        rows, columns = (slice(max(0, x - width), x + width + 1) for x in (i, j))
        around = set(mask[b, rows, columns].flatten().tolist()) - {255}
        assert near[b, i, j] == (mask[b, i, j] != 255 and len(around) > 1)


def test_boundary_loss_weighs_pixels_near_boundaries():
    logits, mask = draw(size=(12, 12))
    mask[:, :6, :6] = 1
    each = F.cross_entropy(logits, mask.long(), ignore_index=255, reduction="none")
    factor = torch.where(near_boundary(mask, 1), 4.0, 1.0)
    assert (factor == 1).any()
    expected = (each * factor).sum() / (mask != 255).sum()
    torch.testing.assert_close(BoundaryCrossEntropy(4.0, 1)(logits, mask), expected)
    plain = BoundaryCrossEntropy(factor=1.0)(logits, mask)
    torch.testing.assert_close(plain, CrossEntropy()(logits, mask))


# What holds for every loss.


def several():
    losses = {"a": CrossEntropy([1.0, 2.0, 0.5, 1.0]), "b": Dice(), "c": Lovasz(), "d": None}
    return Combined(losses, {"a": 1.0, "b": 0.5, "c": 0.0})


LOSSES = {
    "dice": Dice,
    "tversky": partial(Tversky, gamma=0.75),
    "lovasz": Lovasz,
    "focal": partial(Focal, class_weight=[1.0, 2.0, 0.5, 1.0]),
    "boundary": BoundaryCrossEntropy,
    "combined": several,
}
count = partial(torch.bincount, minlength=256)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("main", [True, False])
def test_parts_of_a_batch_sum_to_loss_and_gradient_of_the_batch(name, main):
    loss = LOSSES[name]()
    logits, mask = draw(images=4, size=(8, 8), low=(4, 5))
    logits.requires_grad_()
    mask[0], mask[1, :5] = 255, 255
    both = DeepSupervision(*((loss, CrossEntropy()) if main else (CrossEntropy(), loss)))
    whole = both(SegOutput(logits, -logits), mask)
    total = count(mask.flatten())
    parts = [
        both(SegOutput(logits[i], -logits[i]), mask[i], count(mask[i].flatten()), total)
        for i in (slice(0, 1), slice(1, 3), slice(3, 4))
    ]
    torch.testing.assert_close(sum(parts), whole)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (sum(parts), whole)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_void_gives_zero_loss_and_zero_gradient(name, dtype):
    logits = torch.randn(2, K, 4, 4, dtype=dtype, requires_grad=True)
    value = LOSSES[name]()(logits, torch.full((2, 8, 8), 255, dtype=torch.uint8))
    value.backward()
    assert value.item() == 0 and logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("over", ["image", "batch"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_void_group_is_finite_without_smooth(over, smooth):
    for loss in (Dice(over=over, smooth=smooth), Tversky(gamma=0.5, over=over, smooth=smooth)):
        logits = torch.randn(2, K, 4, 4, requires_grad=True)
        loss(logits, torch.full((2, 4, 4), 255, dtype=torch.uint8)).backward()
        assert logits.grad is not None and (logits.grad == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_logits_and_labels_at_void_pixels_change_nothing(name):
    logits, mask = draw(size=(8, 8))
    loss = LOSSES[name]()
    other = logits.clone().where((mask != 255)[:, None], 50.0)
    torch.testing.assert_close(loss(other, mask), loss(logits, mask))


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name):
    logits, mask = draw(size=(8, 8), low=(4, 4))
    half = (20 * logits).to(torch.bfloat16)
    expected = LOSSES[name]()(half.float(), mask)
    with torch.autocast("cpu", torch.bfloat16):
        got = LOSSES[name]()(half, mask)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_deterministic_mode_computes_the_same_loss_and_gradient(name):
    logits, mask = draw(size=(8, 8), low=(4, 4))
    logits.requires_grad_()
    results = []
    for strict in (False, True):
        torch.use_deterministic_algorithms(strict)
        try:
            loss = LOSSES[name]()(logits, mask)
            results.append((loss.detach(), torch.autograd.grad(loss, logits)[0]))
        finally:
            torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_logits_are_resized_to_the_mask_as_in_the_model(name, align_corners):
    logits, mask = draw(size=(8, 9), low=(3, 4))
    full = F.interpolate(logits, mask.shape[-2:], mode="bilinear", align_corners=align_corners)
    loss = LOSSES[name]()
    torch.testing.assert_close(loss(logits, mask, align_corners), loss(full, mask))


@pytest.mark.parametrize("name", LOSSES)
def test_label_beyond_the_classes_is_an_error(name):
    logits, mask = draw()
    mask[0, 0, 0] = K
    with pytest.raises((RuntimeError, IndexError)):
        LOSSES[name]()(logits, mask)


@pytest.mark.parametrize("name", LOSSES)
def test_right_answer_has_a_small_loss_and_descent_leads_to_it(name):
    _, mask = draw(size=(8, 8))
    logits = torch.zeros(3, K, 8, 8, requires_grad=True)
    loss, optimizer = LOSSES[name](), torch.optim.Adam([logits], lr=0.2)
    first = loss(logits, mask).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss(logits, mask).backward()
        optimizer.step()
    assert loss(logits, mask) < 0.2 * first
    valid = mask != 255
    assert (logits.argmax(1) == mask)[valid].float().mean() > 0.95


@pytest.mark.parametrize("build", [Dice, Tversky, Lovasz])
def test_loss_over_a_batch_is_refused_for_a_part_of_the_step(build):
    logits, mask = draw()
    pixels = count(mask.flatten())
    for place, loss in (
        ("loss.main", DeepSupervision(build(over="batch"), CrossEntropy())),
        ("loss.aux", DeepSupervision(CrossEntropy(), build(over="batch"))),
        (
            r"loss.main.losses.b",
            DeepSupervision(Combined({"b": build(over="batch")}, {"b": 1.0}), CrossEntropy()),
        ),
    ):
        out = SegOutput(logits, logits)
        torch.testing.assert_close(loss(out, mask, pixels, pixels), loss(out, mask))
        with pytest.raises(ValueError, match=rf"; set {place}\.over=image, or use one device"):
            loss(out, mask, pixels, 2 * pixels)


def test_combined_is_the_weighted_sum_and_skips_losses_of_weight_zero():
    logits, mask = draw(size=(8, 8), low=(4, 4))

    class Plain(torch.nn.Module):  # a loss of someone else, which resizes nothing
        def forward(self, logits, mask):
            assert logits.shape[-2:] == mask.shape[-2:]
            return logits.mean()

    class Never(torch.nn.Module):
        def forward(self, *_):
            raise AssertionError

    losses = {"dice": Dice(), "plain": Plain(), "never": Never()}
    both = Combined(losses, {"dice": 0.5, "plain": 2.0, "never": 0.0})
    full = F.interpolate(logits, mask.shape[1:], mode="bilinear")
    expected = 0.5 * Dice()(logits, mask) + 2 * full.mean()
    torch.testing.assert_close(both(logits, mask), expected)
    whole = DeepSupervision(both, CrossEntropy())(SegOutput(logits, None), mask)
    torch.testing.assert_close(whole, expected)


@pytest.mark.parametrize(
    ("build", "match"),
    [
        (lambda: Dice(over="pixel"), r"over \(pixel\) must be image or batch"),
        (lambda: Lovasz(classes="some"), r"classes \(some\) must be present or all"),
        (lambda: Dice(classes="all", smooth=0), r"no gradient; set smooth=1\.0 or classes=present"),
        (lambda: Tversky(0, 0), r"alpha=0 and beta=0 every prediction has loss 0; set alpha="),
        (lambda: Focal(-1), r"gamma \(-1\) must be 0 or more"),
        (lambda: Focal(class_weight=[1.0])(*draw()), r"has 1 factors for 4 classes"),
        (lambda: BoundaryCrossEntropy(width=0), r"width \(0\) must be 1 or more"),
        (lambda: Combined({"dice": Dice()}, {"dise": 1.0}), r"no dise; did you mean dice\?"),
        (lambda: Combined({"dice": None, "a": Dice()}, {"dice": 1.0}), r"no dice; known are a"),
        (lambda: Combined({"dice": Dice()}, {"dice": 0.0}), r"loss\.main\.weights\.dice=1\.0"),
    ],
)
def test_options_without_sense_are_refused(build, match):
    with pytest.raises(ValueError, match=match):
        build()


@pytest.mark.parametrize("name", ["DiceLoss", "TverskyLoss", "LovaszLoss", "FocalLoss"])
def test_losses_agree_with_segmentation_models_pytorch(name):
    theirs = pytest.importorskip(
        "segmentation_models_pytorch.losses", reason="segmentation_models_pytorch is not installed"
    )
    logits, mask = draw(images=2, size=(24, 24))
    weights = {"alpha": 0.3, "beta": 0.7}
    ours, options = {
        "DiceLoss": (Dice(over="batch", smooth=0.0), {}),
        "TverskyLoss": (Tversky(over="batch", smooth=0.5), {"smooth": 0.5, **weights}),
        "LovaszLoss": (Lovasz(over="batch"), {}),
        "FocalLoss": (None, {}),
    }[name]
    assert all((mask == k).any() for k in range(K))
    if ours is None:  # a sigmoid for each class, so that two classes with 0 and x are the same
        binary = logits[:, :1]
        logits = torch.cat([torch.zeros_like(binary), binary], 1)
        label = (mask == 1).byte()
        got = Focal()(logits, label)
        expected = theirs.FocalLoss("binary", gamma=2.0)(binary, label[:, None].long())
    else:
        got, expected = (
            ours(logits, mask),
            getattr(theirs, name)("multiclass", ignore_index=255, **options)(logits, mask.long()),
        )
    torch.testing.assert_close(got, expected)


def test_slow_formula_of_lovasz_is_one_minus_iou_of_sure_answers():
    pairs = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)]  # one hit, one false, one missed
    assert math.isclose(slow_lovasz(pairs), 1 - 1 / 3)
