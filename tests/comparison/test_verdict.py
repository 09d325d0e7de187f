"""What `gald compare` may say of two trainings: seeds, few images, margins, groups, val."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts

NAMES = ("road", "pole", "sky")


def write(folder, skill, seed=0, images=60, config=None, split="test", groups=None, receipts=None):
    """Write the folder of an evaluation, with the config of its training."""
    true = np.random.default_rng(99).multinomial(300, [0.6, 0.1, 0.3], size=images)
    rng = np.random.default_rng(seed)
    rates = np.full((3, 3), (1 - skill) / 2) + np.eye(3) * (skill - (1 - skill) / 2)
    counts = ImageCounts()
    for place, row in enumerate(true):
        matrix = np.stack([rng.multinomial(n, rates[c]) for c, n in enumerate(row)])
        counts.add(f"frame_{place}", "confusion", torch.from_numpy(matrix.ravel()))
    if groups:
        counts.set_groups({name: groups(name) for name in counts.names})
    folder.mkdir()
    counts.save(folder / f"images_{split}.npz")
    scores = ConfusionMatrix(3).scores(counts_total(counts), NAMES)
    results = {f"{split}/{key}": value for key, value in scores.items()} | {"seed": seed}
    results |= {
        f"{name}/receipt": {"ground_truth_sha256": v} for name, v in (receipts or {}).items()
    }
    (folder / "results.json").write_text(json.dumps(results))
    if config is not None:
        text = f"seed: {seed}\noutput_dir: {folder}\nmodel:\n  ld: {config}\n"
        text += f"data:\n  seed: {seed}\n  root: {folder}\n"
        (folder / "config.yaml").write_text(text)
    return folder


def counts_total(counts):
    return torch.from_numpy(counts.total("confusion"))


@pytest.fixture
def compared(gald_cli, tmp_path, capsys):
    """Return a function that runs `gald compare A B ...`: what it prints, and its record."""

    def run(a: Path, b: Path, *options):
        to = tmp_path / f"report{len(list(tmp_path.iterdir()))}"
        gald_cli("compare", str(a), str(b), "--samples", "300", "--to", str(to), *options)
        record = json.loads((to / "comparison.json").read_text())
        return capsys.readouterr().out, record, (to / "report.md").read_text()

    return run


def test_two_seeds_of_one_arm_are_no_finding(compared, tmp_path):
    a = write(tmp_path / "s0", 0.70, seed=0, config="mask")
    b = write(tmp_path / "s1", 0.74, seed=1, config="mask")
    shown, record, report = compared(a, b)
    assert shown.startswith("Two seeds of one arm: mIoU of s1 is ")
    assert "noise between seeds and no finding about the arm" in shown
    assert record["same_arm"] is True and record["scores"]["miou"]["p"] < 0.05
    assert "better:" not in report and "| same arm |" in report and "| s1 |" not in report


def test_two_checkpoints_of_one_training_are_no_finding_either(compared, tmp_path):
    a = write(tmp_path / "best", 0.70, seed=3, config="mask")
    b = write(tmp_path / "last", 0.74, seed=3, config="mask")
    assert compared(a, b)[0].startswith("One arm and one seed: mIoU of last is ")


def test_one_training_a_side_speaks_of_these_two_trainings(compared, tmp_path):
    a = write(tmp_path / "a", 0.70, config="none")
    b = write(tmp_path / "b", 0.74, seed=1, config="mask")
    shown, record, _ = compared(a, b)
    assert shown.startswith("Of these two trainings b is better: ")
    assert "one training a side says nothing about the arms" in shown
    assert record["same_arm"] is False
    unknown = write(tmp_path / "c", 0.74, seed=2)
    assert compared(a, unknown)[1]["same_arm"] is None


def test_seed_deviation_widens_the_interval_and_may_end_the_finding(compared, tmp_path):
    a = write(tmp_path / "a", 0.70, config="none")
    b = write(tmp_path / "b", 0.74, seed=1, config="mask")
    plain = compared(a, b)[1]["scores"]["miou"]
    shown, record, _ = compared(a, b, "--seed-sd", "0.3")
    wide = record["scores"]["miou"]
    assert shown.startswith("b is better: ") and "seeds included" in shown
    assert wide["error"] == pytest.approx((plain["error"] ** 2 + 2 * 0.003**2) ** 0.5)
    assert wide["low"] < plain["low"] and wide["high"] > plain["high"]
    assert record["scores"]["accuracy"]["error"] > 0 and record["seed_sd"] == 0.3
    shown, record, _ = compared(a, b, "--seed-sd", "5")
    assert shown.startswith("Inside the noise: ") and record["scores"]["miou"]["p"] > 0.05


def test_few_images_give_no_verdict_and_no_tiny_p_value(compared, tmp_path):
    few = [
        write(tmp_path / n, s, seed=i, images=4)
        for i, (n, s) in enumerate([("a", 0.70), ("b", 0.75)])
    ]
    shown, record, report = compared(*few)
    assert shown.startswith("No verdict: 4 images are too few, evaluate 30 or more; mIoU of b is ")
    assert record["scores"]["miou"]["p"] > 0.0005 and "| b |" not in report
    enough = [write(tmp_path / f"{n}30", 0.7 + 0.1 * i, i, images=30) for i, n in enumerate("ab")]
    assert compared(*enough)[0].startswith("Of these two trainings")


def test_margin_tests_equivalence(compared, tmp_path):
    a, b = (write(tmp_path / name, 0.7, seed=i) for i, name in enumerate("ab"))
    assert (
        "Equivalent within a margin of 9 points (two one-sided"
        in compared(a, b, "--margin", "9")[0]
    )
    shown, record, _ = compared(a, b, "--margin", "0.01")
    assert "Not shown to be equivalent within a margin of 0.01 points" in shown
    assert record["margin"] == 0.01


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed-sd", "0"), ("--seed-sd", "-1"), ("--margin", "nan"), ("--block", "0")],
)
def test_options_out_of_range_are_refused(compared, tmp_path, option, value):
    a, b = (write(tmp_path / name, 0.7, seed=i) for i, name in enumerate("ab"))
    with pytest.raises(ValueError, match=f"{option} is {value}; it must be"):
        compared(a, b, option, value)


def test_groups_of_the_images_are_printed_and_drawn(compared, tmp_path):
    video = {"groups": lambda name: "day" if int(name[6:]) < 30 else "dusk"}
    a, b = (write(tmp_path / name, 0.7, seed=i, **video) for i, name in enumerate("ab"))
    shown, record, report = compared(a, b)
    for text in (shown, report):
        assert "4 blocks of about 15 of the 60 images in 2 groups" in text
        assert "2 groups cannot support a claim about other places" in text
    assert (record["groups"], record["drawn_units"]) == (2, 4)
    old = write(tmp_path / "old", 0.7, seed=3)  # a file from before groups has none
    assert compared(a, old)[1]["groups"] == 2
    assert compared(a, b, "--block", "6")[1]["drawn_units"] == 10
    other = write(tmp_path / "other", 0.7, seed=4, groups=lambda name: "day")
    with pytest.raises(
        ValueError, match=r"frame_30 of test in group dusk and .*other has it in day"
    ):
        compared(a, other)


def test_images_that_chose_the_checkpoint_are_marked(compared, tmp_path):
    on_val = [write(tmp_path / f"{n}v", 0.7, i, split="val") for i, n in enumerate("ab")]
    assert "The images of val chose the checkpoints" in compared(*on_val)[0]
    same = {"val": "5a", "test": "5a"}
    leaking = [write(tmp_path / f"{n}s", 0.7, i, receipts=same) for i, n in enumerate("ab")]
    assert "The images of test are those of val, which chose" in compared(*leaking)[2]
    clean = {"val": "5a", "test": "6b"}
    honest = [write(tmp_path / f"{n}h", 0.7, i, receipts=clean) for i, n in enumerate("ab")]
    assert "chose the checkpoints" not in compared(*honest)[0]


def test_a_network_that_reads_the_truth_is_named(compared, tmp_path):
    a, oracle = (write(tmp_path / name, 0.7, receipts={"test": "6b"}) for name in ("a", "oracle"))
    path = oracle / "results.json"
    results = json.loads(path.read_text())
    results["test/receipt"]["reads_truth"] = True
    path.write_text(json.dumps(results))
    shown, _, report = compared(a, oracle)
    for text in (shown, report):
        assert text.count("oracle: the network reads the ground truth, in evaluation too") == 1


def test_a_class_that_only_predictions_have_counts_for_neither(compared, tmp_path):
    def counted(folder, false):
        counts = ImageCounts()
        for place in range(40):
            matrix = np.diag([90, 10, 0])
            if place == 0:  # some pixels of road are taken for sky
                matrix[0, [0, 2]] = 90 - false, false
            counts.add(
                f"frame_{place:02}", "confusion", torch.from_numpy(matrix.astype(int).ravel())
            )
        folder.mkdir()
        counts.save(folder / "images_test.npz")
        scores = ConfusionMatrix(3).scores(counts_total(counts), NAMES)
        results = {f"test/{key}": None if v != v else v for key, v in scores.items()}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    a, b = counted(tmp_path / "a", 0), counted(tmp_path / "b", 1)
    scores = compared(a, b)[1]["scores"]
    # In results.json b loses a third of its mIoU for one pixel of a class that no image has.
    assert scores["miou"]["a"] == 1 and scores["miou"]["difference"] == pytest.approx(0, abs=1e-3)
    assert scores["iou/sky"]["difference"] is None
