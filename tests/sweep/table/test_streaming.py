"""A table reads one run at a time, and its numbers are those of the plain formulas."""

import json
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from gald.comparison import bootstrap
from gald.comparison.bootstrap import Difference, Draws, class_iou, mean_iou
from gald.metrics.images import ImageCounts
from gald.sweep.table import analysis
from gald.sweep.table.analysis import analyse
from gald.sweep.table.arms import read_sweep
from gald.sweep.table.contrasts import Estimator

NUMBERS = Difference._fields[:-1]
HEAVY = (
    "torch torchvision torchmetrics timm pytorch_lightning lightning_fabric wandb albumentations"
)


def plain_interval(base, difference, samples, units, seeds, freedom, shared):
    """The formula of `gald.comparison.bootstrap`, for one score."""
    images = max(np.nanvar(samples) - shared, 0) * units / (units - 1)
    error = np.sqrt(images + seeds)

    def reach(level):  # of one side
        weighted = images * stats.t.isf(level, units - 1)
        return (weighted + (seeds * stats.t.isf(level, freedom) if freedom else 0)) / error

    low, high, tail = 1e-15, 0.5 - 1e-14, 0.5
    if error > 0 and abs(difference) > 1e-14:
        excess = reach(low) - abs(difference)
        tail = 0 if excess < 0 else optimize.brentq(lambda x: reach(x) - abs(difference), low, high)
    ends = difference - reach(0.025), difference + reach(0.025)
    above = tail if difference < 0 else 1 - tail
    return Difference(base, base + difference, difference, *ends, error, above, 2 * tail, None)


def plain_contrast(arms, seeds, weights, scores, drawn, units):
    """The formula of `Estimator`, one score after the other: arms and seeds by least squares."""
    arms, seeds, parts = np.array(arms), np.array(seeds), {}
    known = ~np.isnan(scores)
    for pattern in np.unique(known, axis=1).T:
        runs = np.flatnonzero(pattern)
        of_arm = (arms[runs, None] == np.arange(len(weights))).astype(float)
        of_seed = (seeds[runs, None] == np.unique(seeds[runs])).astype(float)
        for design in (np.hstack([of_arm, of_seed]), of_arm):
            wanted = np.append(weights, np.zeros(design.shape[1] - len(weights)))
            solved = np.linalg.lstsq(design.T, wanted, rcond=None)[0]
            freedom = len(runs) - np.linalg.matrix_rank(design)
            if np.allclose(design.T @ solved, wanted) and (freedom or design is of_arm):
                break
        else:
            continue
        for m in np.flatnonzero((known == pattern[:, None]).all(0)):
            y = scores[runs, m]
            fitted = design @ np.linalg.lstsq(design, y, rcond=None)[0]
            samples = np.array([draw[runs, m] @ solved for draw in drawn])
            seeds_part = ((y - fitted) ** 2).sum() / max(freedom, 1)
            x = drawn[:, runs, m]
            x = x[~np.isnan(x).any(1)].T
            rest = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
            of_run = rest.var(1).sum() / max(freedom, 1)
            base, squares = y[np.array(weights)[arms[runs]] < 0].mean(), (solved**2).sum()
            shared = min(of_run, seeds_part) * squares
            parts[m] = plain_interval(
                base, y @ solved, samples, units, seeds_part * squares, freedom, shared
            )
    absent = Difference(*[np.nan] * 9)
    return [parts.get(m, absent) for m in range(scores.shape[1])]


def assert_same(found, expected):
    for name in NUMBERS:
        expectation = pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-9, nan_ok=True)
        assert getattr(found, name) == expectation, name


@pytest.mark.integration
def test_numbers_are_those_of_the_plain_formulas(toy_sweep):
    def skill(ga, ld, seed):
        return 0.7 + 0.03 * seed * (ga == "psp") + 0.05 * (ld == "mask") - 0.02 * (ga == "psp")

    sweep = read_sweep(toy_sweep(skill, seeds=(0, 1)))
    found = analyse(sweep, 0, samples=60, seed=5)
    runs = [run for arm in sweep.arms for run in arm.runs.values()]
    drawn = np.random.default_rng(5).integers(30, size=(60, 30))
    arms, seeds = np.repeat(np.arange(4), 2), np.tile(np.arange(2), 4)
    sums = [np.stack([run.class_counts[images].sum(0) for images in drawn]) for run in runs]
    whole = [run.class_counts.sum(0) for run in runs]
    boundary = next(metric for metric in runs[0].metrics if metric.name == "boundary_f")
    names = runs[0].class_names

    def boundary_f(counts):
        return boundary.scores(torch.from_numpy(counts), names)["boundary_f/3"]

    tables = [run.images.dense("boundary_f") for run in runs]
    (other,) = found.other_scores.values()
    weights = np.eye(4)[1:] - np.eye(4)[0]
    for arm, weight in enumerate(weights):
        for results, scores, scores_drawn in (
            (found.differences, [mean_iou(one) for one in whole], [mean_iou(one) for one in sums]),
            (
                other,
                [boundary_f(table.sum(0)) for table in tables],
                [[boundary_f(table[images].sum(0)) for images in drawn] for table in tables],
            ),
        ):
            scores, scores_drawn = np.array(scores)[:, None], np.array(scores_drawn).T[..., None]
            (expected,) = plain_contrast(arms, seeds, weight, scores, scores_drawn, 30)
            assert_same(results[arm].estimate, expected)
        iou, iou_drawn = np.array([*map(class_iou, whole)]), np.stack([*map(class_iou, sums)], 1)
        for k, expected in enumerate(plain_contrast(arms, seeds, weight, iou, iou_drawn, 30)):
            assert_same(found.classes[arm].of(k), expected)


def test_scores_that_some_runs_lack_are_estimated_from_the_others():
    rng = np.random.default_rng(0)
    arms, seeds = np.repeat(np.arange(4), 3), np.tile([0, 1, 7], 4)
    scores, drawn = rng.random((12, 6)), rng.random((80, 12, 6))
    scores[[0, 5], 1], scores[3:6, 2], scores[[0, 5], 4], scores[:, 5] = np.nan, np.nan, np.nan, 0.5
    drawn[:, np.isnan(scores)] = np.nan
    drawn[:7, 4, 0] = np.nan  # a rare class that seven draws lack
    contrasts = [np.array(w, float) for w in ([-1, 1, 0, 0], [-1, 0, 0, 1], [1, -1, -1, 1])]
    estimator = Estimator(arms, seeds, scores, 40)
    at_once = [found for found, _ in estimator.estimate(contrasts, drawn)]
    blocks = [
        [found for found, _ in estimator.estimate(contrasts, drawn[..., first : first + 2], first)]
        for first in (0, 2, 4)
    ]
    for number, weights in enumerate(contrasts):
        plain = plain_contrast(arms, seeds, weights, scores, drawn, 40)
        for m, expected in enumerate(plain):
            assert_same(at_once[number].of(m), expected)
        for name in NUMBERS:
            joined = np.concatenate([getattr(part[number], name) for part in blocks])
            np.testing.assert_allclose(joined, getattr(at_once[number], name), rtol=1e-9, atol=1e-9)
    assert np.isnan(at_once[0].p[2]) and np.isfinite(at_once[1].p[2])


def test_equal_runs_differ_by_nothing_at_all():
    scores = np.tile(np.random.default_rng(0).random((1, 3, 1)), (1, 3, 1)).reshape(9, 1) / 3
    drawn = np.tile(np.random.default_rng(1).random((50, 3, 1)), (1, 3, 1)) / 3
    arms, seeds = np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)
    for weights in ([-1, 1, 0], [-1, 0.5, 0.5]):
        ((found, freedom),) = Estimator(arms, seeds, scores, 9).estimate([np.array(weights)], drawn)
        assert found.p == 1 and not found.clear and found.low == found.high == 0 == found.difference
        assert freedom == 4


def test_classes_that_do_not_fit_into_memory_are_drawn_in_turn(toy_sweep, monkeypatch):
    sweep = read_sweep(toy_sweep())
    at_once = analyse(sweep, 0, samples=200)
    monkeypatch.setattr(analysis, "CLASS_CELLS", 12 * 200 * 2)
    in_turn = analyse(sweep, 0, samples=200)
    assert len(in_turn.classes) == 3 and in_turn.classes[0].p.shape == (3,)
    for one, other in zip(in_turn.classes, at_once.classes, strict=True):
        for name in NUMBERS:
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)


def test_draws_that_are_not_kept_are_drawn_again(monkeypatch):
    counts = np.random.default_rng(1).integers(0, 9, (300, 3, 4))
    kept = np.concatenate(list(Draws(300, 100, 3).score(counts, mean_iou)))
    first = np.concatenate(list(Draws(300, 100, 3).score(counts, mean_iou, 40)))
    monkeypatch.setattr(bootstrap, "KEPT_CELLS", 0)
    monkeypatch.setattr(bootstrap, "BLOCK_CELLS", 300 * 7)
    again = np.concatenate(list(Draws(300, 100, 3).score(counts, mean_iou)))
    assert kept.tolist() == again.tolist() and kept[:40].tolist() == first.tolist()


def test_counts_of_two_runs_at_most_are_in_memory(toy_sweep, monkeypatch):
    load, alive, most = ImageCounts.load, weakref.WeakSet(), []

    def counted(path):
        images = load(path)
        alive.add(images)
        most.append(len(alive))
        return images

    monkeypatch.setattr(ImageCounts, "load", counted)
    analyse(read_sweep(toy_sweep()), 0, samples=100)
    assert len(most) == 24 and max(most) <= 3  # the first one, to compare with, and two in turn


def test_run_that_is_evaluated_again_meanwhile_is_refused(toy_sweep):
    folder = toy_sweep(lambda ga, ld, seed: 0.6 + 0.1 * seed)
    sweep = read_sweep(folder)
    (folder / "cell_1" / "images_val.npz").write_bytes(
        (folder / "cell_0" / "images_val.npz").read_bytes()
    )
    with pytest.raises(ValueError, match=r"cell_1/images_val\.npz has changed since it was read"):
        analyse(sweep, 0, samples=100)


def test_run_with_counts_of_another_setting_of_a_metric_is_listed(toy_sweep):
    folder = toy_sweep()
    path = folder / "cell_3" / "images_val.npz"
    counts, other = ImageCounts.load(path), ImageCounts()
    for number, name in enumerate(counts.names):
        matrix = counts.dense("confusion")[number]
        other.add(name, "confusion", torch.from_numpy(matrix))
        other.add(name, "boundary_f", torch.arange(1, 3 * 8 + 1))  # of three widths
    other.save(path)
    results = json.loads((folder / "cell_3" / "results.json").read_text())
    del results["val/receipt"]["metrics"]
    (folder / "cell_3" / "results.json").write_text(json.dumps(results))
    (missing,) = read_sweep(folder).missing_cells
    assert missing.state == "unreadable"
    assert "has 24 counts of boundary_f for an image, but the metric of" in missing.reason
    assert missing.reason.endswith("has 12; evaluate both with the same metrics")


@pytest.mark.integration
def test_table_and_audit_import_neither_torch_nor_figures_that_nobody_asked_for(toy_sweep):
    code = f"""
import sys
from gald import cli

folder = sys.argv[1]
for words in (["table", folder, "--samples", "100"], ["sweep", "audit", folder]):
    sys.argv = ["gald", *words]
    try:
        cli.main()
    except SystemExit as end:
        assert not end.code
print(len(sys.modules), sorted(set({HEAVY!r}.split() + ["matplotlib"]) & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(toy_sweep())], capture_output=True, text=True, check=True
    )
    assert "only the declared factors differ" in done.stdout
    count, _, found = done.stdout.splitlines()[-1].partition(" ")
    assert found == "[]" and int(count) < 1200
