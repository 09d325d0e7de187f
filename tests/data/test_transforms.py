import albumentations as A
import numpy as np
import pytest

from gald.data.transforms import ScaledCrop, TrainTransform


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (40, 60, 3), np.uint8), rng.integers(0, 5, (40, 60), np.uint8)


def test_result_is_a_uint8_crop(pair):
    image, mask = TrainTransform([32, 48])(*pair, (0, 0, 0))
    assert image.shape == (32, 48, 3) and mask.shape == (32, 48)
    assert image.dtype == mask.dtype == np.uint8


def test_same_key_same_crop_whatever_was_drawn_before(pair):
    transform, other = TrainTransform([32, 48]), TrainTransform([32, 48])
    for key in ((0, 0, 3), (0, 1, 3), (1, 0, 3)):
        transform(*pair, key)
    first, second = transform(*pair, (0, 0, 7)), other(*pair, (0, 0, 7))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("key", [(1, 0, 7), (0, 1, 7), (0, 0, 8)])
def test_seed_epoch_and_index_each_change_the_crop(pair, key):
    transform = TrainTransform([32, 48])
    assert not np.array_equal(transform(*pair, (0, 0, 7))[0], transform(*pair, key)[0])


def test_every_spatial_transform_pads_masks_with_void():
    steps = TrainTransform([32, 48]).compose.transforms
    spatial = [step for step in steps if isinstance(step, A.DualTransform)]
    assert any(isinstance(step, ScaledCrop) for step in spatial)
    for step in spatial:
        assert getattr(step, "fill_mask", 255) == 255
        assert hasattr(step, "fill_mask") or isinstance(step, A.HorizontalFlip)


def test_what_lies_outside_of_the_image_is_void():
    image, mask = np.full((20, 20, 3), 200, np.uint8), np.full((20, 20), 3, np.uint8)
    transform = TrainTransform([64, 64], scale=(1, 1), flip=0, color_jitter=0, hue=0)
    image, mask = transform(image, mask, (0, 0, 0))
    assert (mask == 3).sum() == 400 and (mask == 255).sum() == 64 * 64 - 400
    assert (image[mask == 255] == 0).all() and (image[mask == 3] == 200).all()


def test_scaling_makes_no_new_labels(pair):
    transform = TrainTransform([32, 48], scale=(0.4, 2.5))
    seen = {int(v) for i in range(40) for v in np.unique(transform(*pair, (0, 0, i))[1])}
    assert seen == {0, 1, 2, 3, 4, 255}


def test_mask_stays_on_its_image():
    mask = np.zeros((40, 60), np.uint8)
    mask[10:30, 15:45] = 1
    image = np.repeat(mask[:, :, None] * 200, 3, axis=2)
    transform = TrainTransform([36, 48], scale=(0.5, 2.0), color_jitter=0, hue=0)
    for i in range(50):
        out, labels = transform(image, mask, (0, 0, i))
        valid = labels != 255
        agree = (out[:, :, 0] > 100) == (labels == 1)
        assert agree[valid].mean() > 0.95


def test_scale_one_without_chance_is_the_image_itself(pair):
    transform = TrainTransform([40, 60], scale=(1, 1), flip=0, color_jitter=0, hue=0)
    out = transform(*pair, (0, 0, 0))
    assert all(np.array_equal(a, b) for a, b in zip(out, pair, strict=True))


def test_scale_is_that_of_scaling_first_and_cropping_then():
    """Objects of a scaled image are s times larger, s uniform in the range."""
    image = np.zeros((200, 200, 3), np.uint8)
    mask = np.tile((np.arange(200) // 10 % 2).astype(np.uint8), (200, 1))  # stripes 10 px wide
    transform = TrainTransform([200, 200], scale=(0.5, 2.0), flip=0, color_jitter=0, hue=0)
    widths = []
    for i in range(300):
        row = transform(image, mask, (0, 0, i))[1][100]
        edges = np.flatnonzero(np.diff(row[row != 255].astype(int)))
        widths.append(np.median(np.diff(edges)) / 10)
    assert 0.45 < min(widths) < 0.6 and 1.9 < max(widths) < 2.1
    assert abs(np.mean(widths) - 1.25) < 0.08


def test_flips_have_their_rate_and_are_not_tied_to_the_scale():
    ramp = np.tile(np.arange(60, dtype=np.uint8) * 4, (40, 1))
    transform = TrainTransform([40, 60], scale=(0.6, 1.0), flip=0.5, color_jitter=0, hue=0)
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


def test_colour_changes_the_image_and_never_the_mask(pair):
    transform = TrainTransform([40, 60], scale=(1, 1), flip=0)
    image, mask = transform(*pair, (0, 0, 0))
    assert not np.array_equal(image, pair[0]) and np.array_equal(mask, pair[1])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"crop_size": [32]}, r"crop_size \(\[32\]\) must be a height and a width"),
        ({"crop_size": [32, 32], "scale": [2.0, 0.5]}, r"scale \(\[2\.0, 0\.5\]\)"),
    ],
)
def test_wrong_options_name_the_value(options, match):
    with pytest.raises(ValueError, match=match):
        TrainTransform(**options)
