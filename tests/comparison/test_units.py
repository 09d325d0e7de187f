"""What a bootstrap draws, of which population it speaks, and rare classes."""

import numpy as np
import pytest

from gald.comparison.bootstrap import mean_iou, paired_bootstrap, true_mean_iou
from gald.comparison.units import Units

CAMVID = [f"seq_{n}" for n in range(62)] + [f"zip_{n}" for n in range(171)]  # not zero-padded


def test_images_without_groups_are_drawn_one_by_one_and_said_to_be():
    units = Units.of(["b", "a"], None)
    assert units.of_image.tolist() == [0, 1] and units.count == 2
    assert "drawn one by one, as if they were independent" in units.words
    assert "have no groups (data.groups)" in units.words and "--block 20" in units.words


def test_many_groups_are_drawn_as_wholes():
    names = [f"{n:02}" for n in range(24)]
    units = Units.of(names, [f"place {int(name) % 12}" for name in names])
    assert units.count == units.groups == 12
    assert units.of_image[0] == units.of_image[12] != units.of_image[1]
    assert "12 groups of images, 24 images in all" in units.words
    counts = np.arange(24 * 3).reshape(24, 3)
    sums = units.sums(counts)
    for unit in range(12):
        assert sums[unit].tolist() == counts[units.of_image == unit].sum(0).tolist()


def test_ten_groups_are_many_and_nine_are_cut_in_blocks():
    names = [f"{n:02}" for n in range(90)]
    ten = Units.of(names, [name[-1] for name in names])
    assert ten.count == 10 and ten.block == 0
    nine = Units.of(names, [str(int(name) % 9) for name in names])
    assert nine.groups == 9 and nine.block == 10  # a whole group


def test_a_block_has_images_of_one_group_only():
    groups = ["ab"[n % 2] for n in range(80)]  # the names of two videos alternate
    units = Units.of([f"{n:02}" for n in range(80)], groups)
    assert units.count == 4
    for unit in range(4):
        assert len({groups[image] for image in np.flatnonzero(units.of_image == unit)}) == 1


def test_two_videos_are_cut_in_blocks_and_cannot_speak_of_other_places():
    units = Units.of(CAMVID, [name[:3] for name in CAMVID])
    assert units.count == 12 and units.groups == 2  # 3 of 62 frames, 9 of 171
    sizes = np.bincount(units.of_image)
    assert sizes.min() >= 19 and sizes.max() <= 21
    # Frames of a block follow each other: frame 9 is before frame 10.
    assert units.of_image[9] == units.of_image[10] == units.of_image[0] != units.of_image[30]
    assert "12 blocks of about 20 of the 233 images in 2 groups" in units.words
    assert "2 groups cannot support a claim about other places" in units.words
    assert "speak of more images of these 2 groups" in units.words


def test_block_is_an_option_with_and_without_groups():
    assert Units.of(CAMVID, None, 20).count == 12
    assert "12 blocks of about 20 of the 233 images in the order of" in (
        Units.of(CAMVID, None, 20).words
    )
    many = [str(n // 5) for n in range(233)]
    assert Units.of(CAMVID, many, 5).block == 5
    small = Units.of(["1", "2", "3", "4", "5"], ["v"] * 5)
    assert small.block == 1 and small.count == 5 and "this group" in small.words
    # A block longer than each group is a whole group, and not as long as it was asked to be.
    assert "2 blocks of about 171 of the" in Units.of(CAMVID, [n[:3] for n in CAMVID], 5000).words
    own = Units.of(["1", "2", "3"], ["x", "y", "z"])
    assert own.count == 3 and "each a group of its own" in own.words
    with pytest.raises(ValueError, match="--block is 0; it must be 1 or more, as in --block 20"):
        Units.of(CAMVID, None, 0)
    with pytest.raises(ValueError, match=r"--block 400 makes one block of 233 .* take --block 58"):
        Units.of(CAMVID, None, 400)


def test_one_false_pixel_of_a_rare_class_is_no_finding():
    """Two equal networks but for 4 false pixels in 30 images; a class is in 3 of 200 images."""
    rng = np.random.default_rng(0)
    true = rng.integers(300, 700, (200, 20))
    true[:, 19] = 0
    true[[20, 90, 150], 19] = 200
    hits = (true * 0.6).astype(int)
    first = np.stack([hits, true, true], 1)
    second = first.copy()
    second[rng.choice(200, 30, replace=False), 2, 19] += 4
    found = paired_bootstrap(first, second, true_mean_iou, 2000)
    assert not found.clear and found.p > 0.05
    assert -0.008 < found.low < found.difference < 0 < found.high
    assert found.a == pytest.approx(mean_iou(first.sum(0)))
    # Counted as a class of score 0 wherever no drawn image has it, it costs a twentieth.
    drawn = rng.integers(200, size=(2000, 200))
    naive = [mean_iou(second[d].sum(0)) - mean_iou(first[d].sum(0)) for d in drawn]
    assert np.quantile(naive, 0.025) < -0.02 and np.quantile(naive, 0.975) < 0
