"""A new metric of which less is better is compared the right way round, from its own file alone."""

import csv
import json

import numpy as np
import pytest
import torch

from gald.comparison.compare import compare
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.sweep.cells import declare
from gald.sweep.table.table import print_table

NAMES = ("road", "pole")
PIXELS = 1000
METRIC = '''
import numpy as np
from gald.metrics.base import CountMetric


class WrongPixels(CountMetric):
    """Share of the pixels with a wrong class."""

    name, label, higher_is_better = "wrong", "wrong pixels", False

    def __init__(self, num_classes):
        super().__init__(num_classes, 2)

    def count_arrays(self, labels, mask, confidence):
        return np.array([(labels != mask).sum(), mask.size])

    def scores(self, counts, class_names):
        wrong, pixels = counts.tolist()
        return {"wrong": wrong / pixels if pixels else float("nan")}
'''


@pytest.fixture
def evaluation(tmp_path, monkeypatch):
    """Writes an evaluation by a metric of a user, at a given share of wrong pixels."""
    (tmp_path / "wrongness.py").write_text(METRIC)
    monkeypatch.syspath_prepend(tmp_path)

    def write(name, wrong, seed=0):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(seed)
        counts, total = ImageCounts(), np.zeros((2, 2), np.int64)
        for index in range(40):
            errors = rng.binomial(PIXELS // 2, wrong, 2)
            matrix = np.array([[500 - errors[0], errors[0]], [errors[1], 500 - errors[1]]])
            counts.add(f"street_{index}", "confusion", torch.from_numpy(matrix.ravel()))
            counts.add(f"street_{index}", "wrong", torch.tensor([errors.sum(), PIXELS]))
            total += matrix
        counts.save(folder / "images_val.npz")
        scores = ConfusionMatrix(2).scores(torch.from_numpy(total.ravel()), NAMES)
        scores["wrong"] = 1 - float(np.trace(total)) / total.sum()
        metric = {"_target_": "wrongness.WrongPixels", "_partial_": True}
        results = {f"val/{key}": value for key, value in scores.items()}
        results |= {"val/receipt": {"metrics": {"wrong": metric}}, "seed": seed}
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write


def test_compare_finds_the_network_with_fewer_errors_better(evaluation, tmp_path, capsys):
    record = compare(
        evaluation("good", 0.1),
        evaluation("bad", 0.2, 1),
        to=tmp_path / "report",
        samples=500,
        trust="wrongness",
    )
    assert record["scores"]["wrong"]["difference"] == pytest.approx(0.1, abs=0.01)
    row = next(line for line in capsys.readouterr().out.splitlines() if "wrong" in line)
    assert "(lower is" in row and row.rstrip(" │┃|").endswith(" good")
    report = (tmp_path / "report" / "report.md").read_text()
    line = next(line for line in report.splitlines() if line.startswith("| wrong"))
    assert line.endswith("| good |")


def test_table_finds_the_arm_with_fewer_errors_better(evaluation, tmp_path, capsys):
    grid = [(ld, seed) for ld in ("none", "mask") for seed in (0, 1, 2)]
    words = [[f"model/ld={ld}", f"seed={seed}"] for ld, seed in grid]
    cells = declare(tmp_path / "sweep", "sweep", ["gald", "train", "-m"], words)
    for cell, (ld, seed) in zip(cells, grid, strict=True):
        evaluation(f"sweep/{cell.folder}", 0.2 if ld == "none" else 0.1, 10 * cell.number + seed)
        path = tmp_path / "sweep" / cell.folder / "results.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seed": seed}))
    analysis = print_table(
        tmp_path / "sweep", to=tmp_path / "report", samples=500, trust=["wrongness"]
    )
    (column,) = analysis.other_scores
    (result, *_) = analysis.other_scores[column]
    assert column.title == "wrong pixels, lower is better" and not column.higher_is_better
    assert result.estimate.difference == pytest.approx(-0.1, abs=0.01)
    assert result.conclusion == "better"
    with (tmp_path / "report" / "table.csv").open() as file:
        row = {row["arm"]: row for row in csv.DictReader(file)}["ld=mask"]
    assert row["conclusion"] == "better" and float(row[f"{column.title} difference"]) < 0
