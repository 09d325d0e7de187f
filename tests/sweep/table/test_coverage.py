"""Coverage of the intervals and false stars of a whole report, in simulated sweeps."""

import numpy as np
import pytest

from gald.comparison.bootstrap import Draws, units_with
from gald.comparison.units import Units
from gald.sweep.table.contrasts import Estimator
from gald.sweep.table.table import print_table

VIDEOS = (62, 171)  # frames of the two videos of CamVid's test split
CORRELATION = 0.36  # of an image's influence with that of the next frame
PAIRED, SHARED = 0.54, 0.63  # points of mIoU: of a run, and of a seed in all arms
SHARE = 0.16  # of the paired variance that other images would not repeat
IMAGES = 0.35  # points: standard error of a difference if frames were independent


def frames(rng, arms):
    """Draw the influence of each frame on each arm, correlated within a video (arms, frames)."""
    videos = []
    for count in VIDEOS:
        noise = rng.normal(size=(arms, count))
        for frame in range(1, count):
            kept = (1 - CORRELATION**2) ** 0.5 * noise[:, frame]
            noise[:, frame] = CORRELATION * noise[:, frame - 1] + kept
        videos.append(noise)
    return np.hstack(videos) * IMAGES * (sum(VIDEOS) / 2) ** 0.5


def mean_score(sums):
    return (sums[..., 0] / sums[..., 1])[..., None]


def coverage(arms, seeds, sweeps, block=None, grouped=True):
    """Return how often the interval of a difference of two equal arms contains 0."""
    rng = np.random.default_rng(0)
    names = [
        f"{video}_{n}" for video, count in zip("ab", VIDEOS, strict=True) for n in range(count)
    ]
    units = Units.of(names, [name[0] for name in names] if grouped else None, block)
    arm, seed = np.repeat(np.arange(arms), seeds), np.tile(np.arange(seeds), arms)
    weights, draws = np.eye(arms)[1] - np.eye(arms)[0], Draws(units.count, 600)
    contained = 0
    for _ in range(sweeps):
        run = rng.normal(0, SHARED, seeds)[seed] + rng.normal(
            0, PAIRED * (1 - SHARE) ** 0.5, len(arm)
        )
        own = rng.normal(0, PAIRED * (SHARE * len(names)) ** 0.5, (len(arm), len(names)))
        score = frames(rng, arms)[arm] + run[:, None] + own
        counts = np.stack([units.sums(np.stack([one, np.ones_like(one)], 1)) for one in score])
        scores = mean_score(counts.sum(1))
        drawn = np.stack([np.concatenate(list(draws.score(c, mean_score))) for c in counts], 1)
        estimator = Estimator(arm, seed, scores, units_with(mean_score(counts[0])))
        ((found, _),) = estimator.estimate([weights], drawn)
        contained += bool(found.low[0] <= 0 <= found.high[0])
    return contained / sweeps


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 10, 30])
def test_intervals_of_correlated_frames_contain_the_truth_in_93_to_97_of_100_sweeps(seeds):
    """94.3, 96.3 and 94.0 of 100; the standard error of 600 sweeps is 1."""
    assert 0.93 <= coverage(9, seeds, 600) <= 0.97


@pytest.mark.slow
def test_frames_drawn_as_if_independent_contain_it_less_often():
    assert coverage(9, 10, 300, grouped=False) < 0.92


def test_coverage_with_blocks_in_few_sweeps():
    assert coverage(4, 5, 60) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("primary", [None, "ld=mask on mIoU"])
def test_reports_without_an_effect_rarely_have_any_star(toy_sweep, capsys, primary):
    """Two families at 5%: 10 of 100 reports may have a star; 8 of 40 would be 1 of 40 by chance."""
    rng = np.random.default_rng(1)
    starred = 0
    for number in range(40):
        noise = {
            (g, d, s): rng.normal(0, 0.005)
            for g in "ab"
            for d in ("none", "mask")
            for s in range(3)
        }
        folder = toy_sweep(
            lambda ga, ld, seed, noise=noise: 0.7 + noise[ga, ld, seed],
            ga=("a", "b"),
            name=f"sweep{number}",
            primary=primary,
        )
        found = print_table(folder, samples=400)
        capsys.readouterr()
        results = [*found.differences, *found.main_effects, *found.given, *found.interactions]
        results += [one for scores in found.other_scores.values() for one in scores]
        results += [found.answer] if found.answer else []
        starred += any(one.clear for one in results) or any((p < 0.05).any() for p in found.class_p)
    assert starred <= 8
