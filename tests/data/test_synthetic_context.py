"""Scenes where the effects of GA and LD are known, and that the platform finds them."""

import re

import numpy as np
import pytest
import torch

from gald.config import compose
from gald.data.synthetic_context import SyntheticContext, SyntheticContextDataModule
from gald.run.building import build_own


def scenes(count=60, **options):
    dataset = SyntheticContext(count=count, **options)
    return [dataset.pixels(index) for index in range(count)]


def cue_of(image):
    """Return the slices of the corner with the cue, and its channel: 0 red or 2 blue."""
    ends = (slice(0, 6), slice(-6, None))
    corners = [(rows, columns) for rows in ends for columns in ends]
    spread = [np.ptp(image[corner].mean((0, 1))) for corner in corners]
    corner = corners[int(np.argmax(spread))]
    return corner, int(image[corner].mean((0, 1)).argmax())


def test_cue_names_the_class_of_every_line_and_blob():
    kinds = []
    for image, mask, _ in scenes():
        _, channel = cue_of(image)
        kinds.append(channel)
        assert set(np.unique(mask)) <= ({0, 1, 3} if channel == 0 else {0, 2, 4})
    assert 20 < kinds.count(0) < 40 and set(kinds) == {0, 2}


def test_place_inverts_the_cue_of_dark_lines_and_blobs():
    shares = []
    for image, mask, _ in scenes(place=True):
        same = 1 if cue_of(image)[1] == 0 else 2
        dark = (mask > 0) & (image.mean(2) < 60)
        for part, label in ((~dark, same), (dark, 3 - same)):
            assert set(np.unique(mask[part])) <= {0, label, label + 2}
        shares.append(dark.sum() / (mask > 0).sum())
    assert 0.4 < np.mean(shares) < 0.6 and np.std(shares) < 0.4  # both kinds in most scenes
    assert all((image[mask > 0] > 120).all() for image, mask, _ in scenes())


def test_place_changes_the_fingerprint():
    plain, placed = SyntheticContext(), SyntheticContextDataModule(place=True).make_dataset("train")
    assert plain.fingerprint() != placed.fingerprint()
    assert not np.array_equal(plain.pixels(0).labels, placed.pixels(0).labels)


@pytest.mark.parametrize("place", [False, True])
def test_lines_and_blobs_of_both_kinds_look_the_same(place):
    colours = {label: [] for label in range(1, 5)}
    for image, mask, _ in scenes(200, place=place):
        light = image.mean(2) > 60
        for label, found in colours.items():
            found.append(image[(mask == label) & light])
    means = [np.concatenate(found).mean(0) for found in colours.values()]
    assert np.ptp(means, axis=0).max() < 2


def test_lines_are_thin_and_everywhere_but_near_the_cue():
    thick, lines, seen = 0, 0, np.zeros((24, 24), int)
    for _, mask, _ in scenes(200):
        line = (mask == 1) | (mask == 2)
        block = line[1:, 1:] & line[1:, :-1] & line[:-1, 1:] & line[:-1, :-1]
        thick, lines, seen = thick + block.sum(), lines + line.sum(), seen + line
    assert thick / lines < 0.1
    assert seen.reshape(6, 4, 6, 4).sum((1, 3)).min() > 0  # in every part, also in the corners
    assert min((mask > 0).sum() for _, mask, _ in scenes()) > 24 * 24 * 0.02


def test_scene_depends_on_seed_split_and_index_alone():
    first, other = scenes(3), scenes(3, seed=1)
    again = SyntheticContext(count=9)
    for index, (image, mask, _) in enumerate(first):
        assert np.array_equal(again.pixels(index).image, image)
        assert np.array_equal(again.pixels(index).labels, mask)
        assert not np.array_equal(other[index].image, image)
    assert not np.array_equal(scenes(1, split="val")[0].image, first[0].image)
    assert again.fingerprint() != SyntheticContext(count=9, seed=1).fingerprint()
    larger = SyntheticContextDataModule(size=(30, 40)).make_dataset("test")
    assert larger.pixels(0).labels.shape == (30, 40) and len(larger) == 64


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (23, 24)}, r"size \(\[23, 24\]\) must be .* at least 24"),
        ({"count": 0}, r"count \(0\) must be at least 1"),
        ({"split": "vall"}, r"split \(vall\) is unknown; choose one of train, val, test"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticContext(**options)


@pytest.mark.parametrize(("ga", "knows"), [("none", False), ("psp_bare", True), ("psp", True)])
def test_only_global_aggregation_can_know_the_class(ga, knows):
    """Without it, no score of a line or blob depends on the cue."""
    cfg = compose("train", ["experiment=ablation_synthetic_context", f"model/ga={ga}"])
    torch.manual_seed(0)
    model = build_own(cfg.model, num_classes=5).eval()
    for image, mask, _ in scenes(5):
        other = image.copy()
        other[cue_of(image)[0]] = other[cue_of(image)[0]][..., ::-1]
        batch = torch.from_numpy(np.stack([image, other])).permute(0, 3, 1, 2)
        with torch.no_grad():
            scores = model.logits(batch)[..., torch.from_numpy(mask > 0)]
        assert bool((scores[0] != scores[1]).any()) is knows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (["seed=0,1"], ": inside the noise,"),
        (["data.place=true", "model/head=linear", "~model.head.dropout"], ": better,"),
    ],
    ids=["no place", "place"],
)
def test_planted_effects_are_found_and_no_others(words, verdict, console, tmp_path):
    """GA without a path for x loses the lines; mask gives nothing back, const and affinity do.

    Affinity is better than const only where place matters.
    """
    words = ["experiment=ablation_synthetic_context", *words]
    words += ["hydra.launcher.jobs=2", "hydra.launcher.warm=true", "metrics=detail"]
    done = console("train", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    sweep = tmp_path / "runs" / "ablation_synthetic_context"
    done = console("table", str(sweep), "--split", "test", "--to", "report", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "report" / "report.md").read_text()
    assert verdict in re.search(r"Primary contrast, (.*?) points", page)[1]
    arms = {
        cells[0]: cells[1:]
        for line in page.partition("## Arms")[2].partition("## Scores")[0].splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 7
    }
    assert "better" not in arms["ld=mask"][-1]
    for arm in ("ld=const", "ld=affinity"):
        _, _, difference, interval, _, conclusion = arms[arm]
        assert conclusion == "better" and float(difference) > 25
        assert float(interval.partition(" to ")[0]) > 15
