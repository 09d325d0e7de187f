import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from gald.inference import LabelMap
from gald.metrics.boundary_f import BoundaryF, BoundaryFDecoupleSegNets


def scores_of(metric, pairs):
    for labels, mask in pairs:
        prediction = LabelMap(torch.from_numpy(labels)[None], None)
        metric.update(prediction, torch.from_numpy(mask)[None])
    return metric.scores(metric.compute(), [f"c{i}" for i in range(metric.num_classes)])


def contour_of(labels, index):
    """Pixels of a class with a pixel of another class, except void, in their 3x3 neighbourhood."""
    other = (labels != index) & (labels != 255)
    return (labels == index) & ndimage.binary_dilation(other, np.ones((3, 3)))


def near(marked, width):
    return ndimage.distance_transform_edt(~marked) <= width if marked.any() else marked


@pytest.mark.parametrize("void", [False, True])
def test_standard_score_equals_that_from_scipy(void, random_masks):
    pairs = [random_masks(seed, void) for seed in range(3)]
    ours = scores_of(BoundaryF(4, widths=(1, 2, 12, 0.05)), pairs)
    for key, width in (
        ("1", 1),
        ("2", 2),
        ("12", 12),
        ("0.05", math.ceil(0.05 * math.hypot(37, 45))),
    ):
        for index in range(4):
            sums = np.zeros(4)
            for labels, mask in pairs:
                labels = np.where(mask == 255, 255, labels)
                true, predicted = contour_of(mask, index), contour_of(labels, index)
                hit = (true & near(predicted, width)).sum(), (predicted & near(true, width)).sum()
                sums += [true.sum(), predicted.sum(), *hit]
            recall, precision = sums[2] / sums[0], sums[3] / sums[1]
            expected = 2 * precision * recall / (precision + recall)
            assert ours[f"boundary_f/{key}/c{index}"] == pytest.approx(expected, abs=1e-12)
        mean = np.mean([ours[f"boundary_f/{key}/c{i}"] for i in range(4)])
        assert ours[f"boundary_f/{key}"] == pytest.approx(mean)


def contour_of_authors(inside):
    marked = np.zeros(inside.shape, bool)
    rows, columns = inside.shape
    for y, x in np.ndindex(rows, columns):
        for below, right in ((0, 1), (1, 0), (1, 1)):
            if y + below < rows and x + right < columns:
                marked[y, x] |= inside[y, x] != inside[y + below, x + right]
    return marked


@pytest.mark.parametrize("void", [False, True])
def test_authors_score_is_the_mean_of_images_and_classes(void, random_masks):
    pairs = [random_masks(seed, void, k=3) for seed in range(3)]
    ours = scores_of(BoundaryFDecoupleSegNets(5, widths=(1, 11, 0.03)), pairs)
    for key, width in (("1", 1), ("11", 11), ("0.03", math.ceil(0.03 * math.hypot(37, 45)))):
        scores = np.ones((3, 5))
        for image, (labels, mask) in enumerate(pairs):
            for index in range(3):  # classes 3 and 4 are absent and score 1
                known = mask != 255
                true = contour_of_authors((mask == index) & known)
                predicted = contour_of_authors((labels == index) & known)
                recall = (true & near(predicted, width)).sum() / true.sum()
                precision = (predicted & near(true, width)).sum() / predicted.sum()
                scores[image, index] = 2 * precision * recall / (precision + recall)
        assert ours[f"boundary_f_authors/{key}"] == pytest.approx(scores.mean(), abs=1e-9)
        assert ours[f"boundary_f_authors/{key}/c1"] == pytest.approx(scores[:, 1].mean(), abs=1e-9)


@pytest.mark.parametrize("widths", [(30, 8, 1, 200), (1, 15)])  # 15 px are not whole blocks
@pytest.mark.parametrize("seed", range(3))
def test_matches_far_away_are_found_at_any_width_and_place(seed, widths):
    # A few objects of many classes in a large image: most pixels of a contour have no match.
    generator = np.random.default_rng(seed)
    labels, mask = np.zeros((2, 90, 120), np.uint8)
    for index in range(1, 30):
        for side in (labels, mask):
            y, x = generator.integers(0, (90, 120))
            side[y : y + 4, x : x + 6] = index
    metric = BoundaryF(30, widths)
    counts = metric.count_arrays(labels, mask, None)
    for index in range(30):
        true, predicted = contour_of(mask, index), contour_of(labels, index)
        hits = [(true & near(predicted, w)).sum() for w in widths]
        hits += [(predicted & near(true, w)).sum() for w in widths]
        assert counts[index].tolist() == [true.sum(), predicted.sum(), *hits]


def test_a_class_that_is_only_predicted_scores_zero_in_both_protocols():
    mask, labels = np.zeros((2, 8, 8), np.uint8)
    labels[2:5, 2:5] = 1
    assert scores_of(BoundaryF(2), [(labels, mask)])["boundary_f/1/c1"] == 0
    authors = scores_of(BoundaryFDecoupleSegNets(2, widths=(1,)), [(labels, mask)])
    assert authors["boundary_f_authors/1/c1"] == 0


def test_class_without_contour_is_nan_in_the_standard_protocol():
    flat = np.zeros((8, 8), np.uint8)
    result = scores_of(BoundaryF(2), [(flat, flat)])
    assert math.isnan(result["boundary_f/1/c0"]) and math.isnan(result["boundary_f/1"])
