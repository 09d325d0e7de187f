import random
from pathlib import Path

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from scipy.stats import ks_2samp
from torchvision.transforms import functional as tv

from gald.config import CONF_DIR
from gald.data.transforms import (
    TrainTransform,
    Window,
    color_matrix,
    cut_image,
    cut_labels,
    fill_void,
    mean_luma,
)

PLAIN = {"flip": 0, "color_jitter": 0, "hue": 0}


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (40, 60, 3), np.uint8), rng.integers(0, 5, (40, 60), np.uint8)


def test_result_is_a_uint8_crop(pair):
    image, mask = TrainTransform([32, 48])(*pair, (0, 0, 0))
    assert image.shape == (32, 48, 3) and mask.shape == (32, 48)
    assert image.dtype == mask.dtype == np.uint8


def test_the_same_key_gives_the_same_crop_after_any_other_draws(pair):
    extra = [A.GaussNoise(p=0.5), A.Affine(translate_percent=0.1, p=0.5)]
    transform, other = (TrainTransform([32, 48], extra=extra) for _ in range(2))
    for key in ((0, 0, 3), (0, 1, 3), (1, 0, 3)):
        transform(*pair, key)
    first, second = transform(*pair, (0, 0, 7)), other(*pair, (0, 0, 7))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("key", [(1, 0, 7), (0, 1, 7), (0, 0, 8)])
def test_seed_epoch_and_index_each_change_the_crop(pair, key):
    transform = TrainTransform([32, 48])
    assert not np.array_equal(transform(*pair, (0, 0, 7))[0], transform(*pair, key)[0])


# cropping first equals scaling first


def scale_then_crop(image, labels, window, size, lut):
    """Reference: map and scale the whole image, pad it with void, and crop it at the window."""
    factor = [side / part for side, part in zip(size, window[2:], strict=True)]
    height, width = (round(f * n) for f, n in zip(factor, labels.shape, strict=True))
    top, left = (round(f * n) for f, n in zip(factor, window[:2], strict=True))
    mode = cv2.INTER_AREA if factor[0] < 0.5 else cv2.INTER_LINEAR
    image = cv2.resize(image, (width, height), interpolation=mode)
    nearest = [
        np.floor((np.arange(n) + 0.5) / f).astype(int)
        for n, f in zip((height, width), factor, strict=True)
    ]
    mask = lut[labels[np.ix_(*nearest)]]
    image = np.pad(image, ((size[0],) * 2, (size[1],) * 2, (0, 0)))
    mask = np.pad(mask, ((size[0],) * 2, (size[1],) * 2), constant_values=255)
    rows = slice(size[0] + top, 2 * size[0] + top)
    columns = slice(size[1] + left, 2 * size[1] + left)
    return image[rows, columns], mask[rows, columns]


# The whole image scales to whole pixels, and the corner of the crop lies on one.
WINDOWS = [
    ((48, 64), Window(6, 12, 24, 32)),  # twice as large
    ((48, 48), Window(10, 20, 32, 32)),  # 3/2
    ((32, 32), Window(7, 9, 32, 32)),  # unchanged
    ((24, 36), Window(8, 8, 32, 48)),  # 3/4
    ((20, 30), Window(0, 20, 40, 60)),  # half the size, beyond the right edge
    ((16, 16), Window(-8, -4, 64, 64)),  # a quarter of the size, around the image
    ((80, 80), Window(-20, -10, 40, 40)),  # twice as large, over the corner
]


@pytest.mark.parametrize(("size", "window"), WINDOWS, ids=str)
def test_the_crop_equals_scaling_the_whole_image_first(pair, size, window):
    image, labels = np.tile(pair[0], (2, 2, 1)), np.tile(pair[1], (2, 2))
    lut = np.array([255, 3, 1, 4, 0, *[254] * 251], np.uint8)
    expected_image, expected_mask = scale_then_crop(image, labels, window, size, lut)
    assert np.array_equal(cut_labels(labels, window, size, lut), expected_mask)
    got = cut_image(image, window, size)
    differs = (got != expected_image).any(axis=2)
    if window.height >= size[0]:
        assert not differs.any()
    else:  # enlarged: pixels at the border of the window lack their neighbours outside
        inner = np.zeros_like(differs)
        inner[1:-1, 1:-1] = True
        # void is not mixed into the image, where scaling first would not mix it in either
        beside_void = cv2.dilate((expected_mask == 255).astype(np.uint8), np.ones((3, 3)))
        assert not (differs & inner & (beside_void == 0)).any()


def draw_scale_first(rng, shape, size, scale):
    """Draw scale and corner by scaling the whole image, then cropping; in source pixels."""
    s = rng.uniform(*scale)
    height, width = (round(s * n) for n in shape)
    corner = [
        rng.integers(min(0, n - side), max(0, n - side) + 1)
        for n, side in zip((height, width), size, strict=True)
    ]
    return s, corner[0] / s, corner[1] / s, void_share(shape, size, s, corner)


def void_share(shape, size, s, corner):
    kept = 1.0
    for n, side, first in zip(shape, size, corner, strict=True):
        kept *= max(0, min(first + side, round(s * n)) - max(first, 0)) / side
    return 1 - kept


@pytest.mark.integration
@pytest.mark.one_in(2)
@pytest.mark.parametrize("shape", [(1024, 2048), (600, 500)])
def test_scale_position_and_void_are_distributed_as_with_scaling_first(shape):
    size, scale = (769, 769), (0.5, 2.0)
    transform = TrainTransform(size, scale)
    ours, theirs = [], []
    for i in range(20000):
        window = transform.draw_window(shape, np.random.default_rng((0, i)))
        s = size[0] / window.height
        void = void_share(shape, size, s, [s * window.top, s * window.left])
        ours.append((s, window.top, window.left, void))
        theirs.append(draw_scale_first(np.random.default_rng((1, i)), shape, size, scale))
    for column, name in enumerate(("scale", "top", "left", "void")):
        a, b = (np.round([draw[column] for draw in draws], 2) for draws in (ours, theirs))
        # twenty thousand draws of one distribution differ by 0.016 in one of a hundred cases
        assert ks_2samp(a, b).statistic < 0.02, name


def test_every_window_covers_as_much_of_the_image_as_possible():
    transform = TrainTransform([32, 48], (0.5, 2.0))
    for i in range(500):
        window = transform.draw_window((40, 60), np.random.default_rng(i))
        for first, side, size in ((window[0], window[2], 40), (window[1], window[3], 60)):
            kept = min(first + side, size) - max(first, 0)
            assert kept == min(side, size)


def test_pixels_outside_of_the_image_are_void():
    image, mask = np.full((20, 20, 3), 200, np.uint8), np.full((20, 20), 3, np.uint8)
    transform = TrainTransform([64, 64], scale=(1, 1), **PLAIN)
    image, mask = transform(image, mask, (0, 0, 0))
    assert (mask == 3).sum() == 400 and (mask == 255).sum() == 64 * 64 - 400
    assert (image[mask == 255] == 0).all() and (image[mask == 3] == 200).all()


@pytest.mark.parametrize("path", sorted((CONF_DIR / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_padding_of_every_config_is_void(path: Path):
    node = yaml.safe_load(path.read_text())["train_transform"]
    transform = instantiate(node)
    size = 7  # far smaller than any crop
    lut = np.full(256, 254, np.uint8)
    lut[:2] = 0, 1
    for i in range(20):
        labels = np.full((size, size), i % 2, np.uint8)
        image, mask = transform(np.full((size, size, 3), 90, np.uint8), labels, (i,), lut)
        assert set(np.unique(mask)) == {i % 2, 255}
        assert image.shape[:2] == mask.shape == tuple(node["crop_size"])


def test_albumentations_fills_masks_with_void():
    transforms = [
        A.PadIfNeeded(50, 50, p=1),
        A.OneOf([A.Affine(rotate=(40, 50), p=1), A.Rotate((40, 50), p=1)], p=1),
    ]
    transform = TrainTransform([40, 40], scale=(1, 1), extra=transforms, **PLAIN)
    image = np.full((40, 40, 3), 9, np.uint8)
    for i in range(6):
        _, mask = transform(image, np.full((40, 40), 3, np.uint8), (i,))
        assert set(np.unique(mask)) == {3, 255}, "0 is the default fill of albumentations"
    spared = A.CoarseDropout(fill_mask=None)
    fill_void(spared)
    assert spared.fill_mask is None  # the user chose not to change the mask


def parts_of(preset):
    extra = yaml.safe_load((CONF_DIR / "augment" / f"{preset}.yaml").read_text())["extra"]
    return [(preset, name, {**part, "p": 1.0}) for name, part in extra.items()]


@pytest.mark.parametrize(
    ("preset", "name", "part"),
    [*parts_of("strong"), *parts_of("weather")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_part_of_a_preset_depends_only_on_the_key_and_leaves_no_wrong_label(preset, name, part):
    """Labels stay on their pixels, or become void where nothing of the image is seen."""
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 255, (48, 64, 3), np.uint8), np.full((48, 64), 3, np.uint8)

    def make():
        return TrainTransform([48, 64], scale=(1, 1), extra={name: instantiate(part)}, **PLAIN)

    keys = [(0, epoch, image) for epoch in (0, 1) for image in range(4)]
    first, second = make(), make()
    before = [first(image, labels, key) for key in keys]
    np.random.seed(1)
    random.seed(1)
    after = {key: second(image, labels, key) for key in reversed(keys)}
    for key, (pixels, mask) in zip(keys, before, strict=True):
        assert np.array_equal(pixels, after[key][0]) and np.array_equal(mask, after[key][1])
        assert pixels.dtype == np.uint8 and pixels.shape == image.shape
        assert set(np.unique(mask)) <= ({3, 255} if name in ("affine", "erase") else {3})
    assert len({pixels.tobytes() for pixels, _ in before}) > 1 or name == "grey"
    assert not np.array_equal(before[0][0], image)


def test_null_leaves_a_transform_out(pair):
    noise = A.GaussNoise(p=1)
    by_name = TrainTransform([40, 60], (1, 1), extra={"noise": noise, "blur": None}, **PLAIN)
    in_list = TrainTransform([40, 60], (1, 1), extra=[noise], **PLAIN)
    assert np.array_equal(by_name(*pair, (0,))[0], in_list(*pair, (0,))[0])
    nothing = TrainTransform([40, 60], (1, 1), extra={"noise": None}, **PLAIN)
    assert np.array_equal(nothing(*pair, (0,))[0], pair[0])


def test_scaling_creates_no_new_labels(pair):
    transform = TrainTransform([32, 48], scale=(0.4, 2.5))
    seen = {int(v) for i in range(40) for v in np.unique(transform(*pair, (0, 0, i))[1])}
    assert seen == {0, 1, 2, 3, 4, 255}


def test_mask_stays_on_its_image():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 15:45] = 1
    image = np.repeat(mask[:, :, None] * 200, 3, axis=2)
    transform = TrainTransform([36, 48], scale=(0.5, 2.0), color_jitter=0)
    for i in range(50):
        out, labels = transform(image, mask, (0, 0, i))
        valid = labels != 255
        agree = (out[:, :, 0] > 100) == (labels == 1)
        assert agree[valid].mean() > 0.95


def test_scale_1_without_randomness_is_the_identity(pair):
    transform = TrainTransform([40, 60], scale=(1, 1), **PLAIN)
    out = transform(*pair, (0, 0, 0))
    assert all(np.array_equal(a, b) for a, b in zip(out, pair, strict=True))


def test_flips_have_their_rate_and_are_independent_of_the_scale():
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    transform = TrainTransform([40, 60], scale=(0.6, 1.0), flip=0.5, color_jitter=0)
    flips, scales = [], []
    for i in range(400):
        _, mask = transform(np.repeat(ramp[:, :, None], 3, 2), ramp // 4, (0, 0, i))
        rows = mask[(mask != 255).any(1)]
        row = rows[len(rows) // 2].astype(int)
        row = row[row != 255]
        flips.append(row[-1] < row[0])
        scales.append(len(row))
    assert 0.42 < np.mean(flips) < 0.58
    assert abs(np.corrcoef(flips, scales)[0, 1]) < 0.15
    assert abs(np.corrcoef(flips[1:], flips[:-1])[0, 1]) < 0.15


def test_source_is_read_and_never_written(pair, tmp_path):
    stored = np.memmap(tmp_path / "image", np.uint8, "w+", shape=pair[0].shape)
    stored[:] = pair[0]
    stored.flush()
    image = np.memmap(tmp_path / "image", np.uint8, "r", shape=pair[0].shape)
    transform = TrainTransform([32, 48])
    for i in range(10):
        got, _ = transform(image, pair[1], (i,))
        assert np.array_equal(got, transform(*pair, (i,))[0])
    assert np.array_equal(stored, pair[0])


# colour


def test_colour_changes_the_image_and_never_the_mask(pair):
    transform = TrainTransform([40, 60], scale=(1, 1), flip=0)
    image, mask = transform(*pair, (0, 0, 0))
    assert not np.array_equal(image, pair[0]) and np.array_equal(mask, pair[1])


def test_colours_change_in_both_directions_within_the_range():
    grey = np.full((8, 8, 3), 100, np.uint8)  # its contrast and saturation cannot change
    transform = TrainTransform([8, 8], (1, 1), flip=0, color_jitter=0.3)
    values = [transform(grey, grey[..., 0], (i,))[0].mean() for i in range(200)]
    assert 70 <= min(values) < 75 and 125 < max(values) <= 130

    reddish = np.full((8, 8, 3), (150, 100, 100), np.uint8)
    transform = TrainTransform([8, 8], (1, 1), flip=0, color_jitter=0, hue=0.1)
    turned = [transform(reddish, grey[..., 0], (i,))[0][0, 0].astype(int) for i in range(200)]
    greener = np.mean([green > blue for _, green, blue in turned])
    assert 0.4 < greener < 0.6


@pytest.mark.parametrize(
    ("factors", "peer"),
    [
        ((1.2, 1, 1), lambda x: tv.adjust_brightness(x, 1.2)),
        ((1, 0.7, 1), lambda x: tv.adjust_contrast(x, 0.7)),
        ((1, 1, 0.6), lambda x: tv.adjust_saturation(x, 0.6)),
        (
            (0.8, 1.2, 1.1),
            lambda x: tv.adjust_saturation(
                tv.adjust_contrast(tv.adjust_brightness(x, 0.8), 1.2), 1.1
            ),
        ),
    ],
)
def test_colour_matrix_agrees_with_torchvision(pair, factors, peer):
    image = 80 + pair[0] // 4  # no value is clipped
    matrix = color_matrix(*factors, 0.0, mean_luma(image))
    expected = peer(torch.from_numpy(image).permute(2, 0, 1)).permute(1, 2, 0).numpy()
    difference = cv2.transform(image, matrix).astype(int) - expected.astype(int)
    assert np.abs(difference).max() <= 3  # torchvision truncates after each step


def test_hue_rotates_colours_and_keeps_luminance_and_grey():
    colours = np.array([[[200, 90, 90], [90, 160, 120], [128, 128, 128]]], np.uint8)
    turned = cv2.transform(colours, color_matrix(1, 1, 1, 0.25, 0.0)).astype(float)
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(turned @ luma - colours @ luma).max() < 1.5
    assert np.abs(turned[0, 2] - 128).max() <= 1
    assert np.abs(turned[0, 0] - colours[0, 0]).max() > 30
    whole = cv2.transform(colours, color_matrix(1, 1, 1, 1.0, 0.0))
    assert np.abs(whole.astype(int) - colours).max() <= 1


# options


def test_cat_max_ratio_avoids_crops_of_one_class():
    mask = np.zeros((100, 100), np.uint8)
    mask[:, 60:] = 1
    image = np.zeros((100, 100, 3), np.uint8)

    def largest(**options):
        transform = TrainTransform([30, 30], scale=(1, 1), **PLAIN, **options)
        masks = (transform(image, mask, (i,))[1] for i in range(100))
        return np.array([max(np.mean(m == 0), np.mean(m == 1)) for m in masks])

    assert (largest() > 0.75).mean() > 0.5
    assert (largest(cat_max_ratio=0.75) > 0.75).mean() < 0.1


def test_cat_max_ratio_ignores_void_and_stops_after_ten_crops():
    labels = np.full((20, 20), 255, np.uint8)
    transform = TrainTransform([30, 30], (1, 1), cat_max_ratio=0.5)
    assert (transform(np.zeros((20, 20, 3), np.uint8), labels, (0,))[1] == 255).all()
    one_class = np.zeros((60, 60), np.uint8)
    windows, own = [], transform.draw_window
    transform.draw_window = lambda *where: windows.append(own(*where)) or windows[-1]
    assert (transform(np.zeros((60, 60, 3), np.uint8), one_class, (0,))[1] == 0).any()
    assert len(windows) == 10
    labels[:10] = np.arange(20) % 2  # each labelled class covers a half, void more than that
    windows.clear()
    transform(np.zeros((20, 20, 3), np.uint8), labels, (0,))
    assert len(windows) == 1


def test_a_crop_with_a_target_class_contains_it(pair):
    labels = np.full((200, 300), 7, np.uint8)
    labels[150, 20] = labels[10:13, 250:254] = 9
    lut = np.full(256, 254, np.uint8)
    lut[[7, 9]] = 0, 1
    image = np.zeros((200, 300, 3), np.uint8)
    transform = TrainTransform([40, 40], scale=(1.0, 2.0))
    places = set()
    for i in range(60):
        mask = transform(image, labels, (i,), lut, target_class=1)[1]
        assert (mask == 1).any()
        places.add((mask == 1).nonzero()[0][0] // 8)
    assert len(places) > 3  # anywhere in the crop, not always in its centre


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"crop_size": [32]}, r"crop_size \(\[32\]\) must be a height and a width"),
        ({"crop_size": [32, 32], "scale": [2.0, 0.5]}, r"scale \(\[2\.0, 0\.5\]\)"),
        ({"crop_size": [32, 32], "cat_max_ratio": 75}, r"cat_max_ratio \(75\) must be a fraction"),
    ],
)
def test_wrong_options_name_the_value(options, match):
    with pytest.raises(ValueError, match=match):
        TrainTransform(**options)
