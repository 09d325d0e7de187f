"""`gald compare`: conclusion and report of two evaluations, and refusal of incomparable ones."""

import html.parser
import json
import re
import sys

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from gald import cli
from gald.comparison.bootstrap import Difference, mean_iou
from gald.comparison.compare import compare
from gald.comparison.differences import influence, pixel_keys, pixel_scores
from gald.comparison.sections import Scope, conclusion, sections
from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.metrics.trimap import Trimap
from gald.run.results import write_results

NAMES = ("road", "pole", "sky | cloud")


def matrices(images=30, skill=0.6, seed=0, pixels=300):
    """Confusion matrices (N, K, K) of one network; the ground truth is the same for every skill."""
    k = len(NAMES)
    true = np.random.default_rng(99).multinomial(pixels, [0.6, 0.1, 0.3], size=images)
    rng = np.random.default_rng(seed)
    rates = np.full((k, k), (1 - skill) / (k - 1)) + np.eye(k) * (skill - (1 - skill) / (k - 1))
    return np.stack([[rng.multinomial(n, rates[c]) for c, n in enumerate(row)] for row in true])


@pytest.fixture
def write_evaluation(tmp_path):
    """Return a function that writes the folder of an evaluation from confusion matrices."""

    def write(name, confusion, receipt=None, split="val", class_names=NAMES, images=None):
        folder = tmp_path / name
        folder.mkdir()
        counts = ImageCounts()
        for index, matrix in enumerate(confusion):
            image = images[index] if images else f"street_{index:03}"
            counts.add(image, "confusion", torch.from_numpy(matrix.ravel()))
        counts.save(folder / f"images_{split}.npz")
        total = ConfusionMatrix(len(class_names))
        scores = total.scores(torch.from_numpy(confusion.sum(0).ravel()), class_names)
        results = {f"{split}/{key}": value for key, value in scores.items()}
        if receipt:
            results[f"{split}/receipt"] = receipt
        (folder / "results.json").write_text(json.dumps(results))
        return folder

    return write


def test_better_network_is_named_and_the_record_has_the_numbers(write_evaluation, tmp_path, capsys):
    a = write_evaluation("ga", matrices(skill=0.6))
    b = write_evaluation("ga_ld", matrices(skill=0.7, seed=1))
    record = compare(a, b, to=tmp_path / "report", samples=500)
    words = "Of these two trainings ga_ld is better: mIoU of ga_ld is "
    assert record["conclusion"].startswith(words)
    assert record == json.loads((tmp_path / "report" / "comparison.json").read_text())
    miou = record["scores"]["miou"]
    results = [json.loads((folder / "results.json").read_text()) for folder in (a, b)]
    assert [miou["a"], miou["b"]] == pytest.approx([r["val/miou"] for r in results])
    assert 0 < miou["low"] < miou["difference"] < miou["high"] and miou["p"] < 0.01
    assert set(record["scores"]) >= {"iou/road", "iou/pole", "accuracy", "fw_iou"}
    shown = capsys.readouterr().out
    assert shown.startswith("Of these two trainings ga_ld is better") and "sky | cloud" in shown
    back = compare(b, a, to=tmp_path / "back", samples=500)
    assert re.match(
        r"Of these two trainings ga_ld is better: mIoU of ga is \d+\.\d\d points below ga_ld's",
        back["conclusion"],
    )


def test_equal_networks_are_inside_the_noise(write_evaluation, tmp_path):
    a, b = write_evaluation("a", matrices(seed=1)), write_evaluation("b", matrices(seed=2))
    record = compare(a, b, to=tmp_path / "report", samples=500)
    assert record["conclusion"].startswith("Inside the noise: ")
    same = write_evaluation("same", matrices(seed=1))
    record = compare(a, same, to=tmp_path / "same_report", samples=500)
    assert record["conclusion"].startswith("No difference: ")


class Links(html.parser.HTMLParser):
    """Parser that collects the addresses of a page and checks that its tags are closed."""

    def __init__(self):
        super().__init__()
        self.addresses, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_self_contained_and_markdown_finds_its_figures(write_evaluation, tmp_path):
    a = write_evaluation(
        "a", matrices(skill=0.6), class_names=("road", "<b>pole</b>", "sky | cloud")
    )
    b = write_evaluation(
        "b", matrices(skill=0.7), class_names=("road", "<b>pole</b>", "sky | cloud")
    )
    compare(a, b, to=tmp_path / "report", samples=500)
    page = (tmp_path / "report" / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert not links.open
    assert links.addresses
    assert all(address.startswith("data:image/png;base64,iVBOR") for address in links.addresses)
    assert "&lt;b&gt;pole" in page and "<b>pole" not in page and "http" not in page
    text = (tmp_path / "report" / "report.md").read_text()
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (tmp_path / "report" / name).read_bytes().startswith(b"\x89PNG")
    assert text.count("](") == len(links.addresses)
    assert (
        "**Of these two trainings b is better" in text
        and f"a is {a}. b is {b}. Both were evaluated on 30" in text
    )
    assert "sky \\| cloud" in text
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if "| road" in line}
    assert widths == {text.split("| score")[2].splitlines()[0].count("|") + 1}


def test_scores_equal_those_of_the_metric():
    sums = matrices(images=4).astype(np.float64)
    sums[0, 2] = sums[0, :, 2] = 0  # class 2 is neither true nor predicted
    counts = np.stack([sums.diagonal(axis1=1, axis2=2), sums.sum(2), sums.sum(1)], 1)
    metric = ConfusionMatrix(3)
    for row, matrix in zip(pixel_scores(counts), sums, strict=True):
        expected = metric.scores(torch.from_numpy(matrix.astype(np.int64).ravel()), NAMES)
        for key, value in zip(pixel_keys(NAMES), row, strict=True):
            assert value == pytest.approx(expected[key], nan_ok=True), key


METRICS = {
    name: {"_target_": f"gald.metrics.{name}.{kind}", "_partial_": True, **options}
    for name, kind, options in (
        ("confusion", "ConfusionMatrix", {}),
        ("boundary_iou", "BoundaryIoU", {"widths": [1, 3]}),
        ("boundary_f", "BoundaryF", {"widths": [1, 0.02]}),
        ("trimap", "Trimap", {"farthest": 12}),
        ("size", "ObjectSize", {"edges": [0.1, 0.4]}),
        ("thin", "ThinClasses", {"max_width": 0.2}),
    )
}


def write_shifted_evaluation(folder, shift, images=8):
    """Write the folder of an evaluation of predictions shifted sideways by some pixels."""
    rng = np.random.default_rng(0)
    metrics = {name: make(num_classes=3) for name, make in instantiate(METRICS).items()}
    counts = ImageCounts()
    for index in range(images):
        mask = np.zeros((32, 40), np.uint8)
        x, y = rng.integers(3, 20, 2)
        mask[y : y + 5, x : x + 12] = 1
        mask[:, 34:36] = 2
        labels = torch.from_numpy(np.roll(mask, shift, 1))
        for metric in metrics.values():
            vector = metric.count(LabelMap(labels, None), torch.from_numpy(mask))
            counts.add(f"street_{index}", metric.name, vector)
    folder.mkdir()
    counts.save(folder / "images_val.npz")
    results = {"val/receipt": {"metrics": METRICS}}
    for metric in metrics.values():
        total = torch.from_numpy(counts.dense(metric.name).sum(0))
        results |= {f"val/{k}": v for k, v in metric.scores(total, NAMES).items()}
    write_results(folder / "results.json", results)
    return folder


@pytest.mark.integration
def test_every_metric_of_the_receipt_is_compared_by_its_own_definition(tmp_path):
    a = write_shifted_evaluation(tmp_path / "a", shift=2)
    b = write_shifted_evaluation(tmp_path / "b", shift=1)
    scores = compare(a, b, to=tmp_path / "report", samples=300)["scores"]
    for side, folder in (("a", a), ("b", b)):
        results = json.loads((folder / "results.json").read_text())
        for key, row in scores.items():
            stored = results[f"val/{key}"]
            assert (row[side] is None) == (stored is None or np.isnan(stored)), key
            assert row[side] is None or row[side] == pytest.approx(stored), key
    expected = {"boundary_iou/1", "boundary_f/0.02/pole", "trimap/12", "size/iou/to_10%"}
    assert expected | {"thin/miou"} <= scores.keys()
    assert not {"thin/classes", "size/objects/to_10%"} & scores.keys()
    text = (tmp_path / "report" / "report.md").read_text()
    for name in ("boundary_iou", "boundary_f", "trimap", "size_recall", "boundary_iou_classes"):
        assert f"({name}.png)" in text
    # trimap at 1 px; eight images give no verdict
    assert re.search(r"\| 1 \| \d+\.\d+ \| \d+\.\d+ \| -\d.* no verdict \|", text)


def test_receipt_cannot_call_foreign_code(write_evaluation, tmp_path):
    a, b = (
        write_evaluation("a", matrices(), {"metrics": {"x": {"_target_": "os.system"}}}),
        tmp_path,
    )
    with pytest.raises(ValueError, match=r"os\.system"):
        compare(a, write_evaluation("b", matrices(seed=1)), to=b / "report")


def test_influence_is_the_change_when_an_image_is_left_out():
    a, b = (
        np.stack([m.diagonal(axis1=1, axis2=2), m.sum(2), m.sum(1)], 1)
        for m in (matrices(images=6), matrices(images=6, seed=1))
    )
    keep = np.arange(6) != 2
    whole = mean_iou(b.sum(0)) - mean_iou(a.sum(0))
    without = mean_iou(b[keep].sum(0)) - mean_iou(a[keep].sum(0))
    assert influence(a, b)[2] == pytest.approx(whole - without)


def test_images_that_cannot_be_shown_are_listed_with_the_reason(write_evaluation, tmp_path, capsys):
    a, b = matrices(seed=1), matrices(seed=1)
    b[7, 0] = [b[7, 0].sum(), 0, 0]  # all road pixels of one image are right
    compare(write_evaluation("a", a), write_evaluation("b", b), to=tmp_path / "report", samples=200)
    text = (tmp_path / "report" / "report.md").read_text()
    assert re.search(r"\| street_007 \| \+0\.\d+ \|", text)
    assert "The images are not shown: no checkpoint at" in text
    assert "The images are not shown: no checkpoint at" in capsys.readouterr().out.replace(
        "\n", " "
    )


def difference(value, low, high, p):
    return Difference(*map(np.array, (0.5, 0.5 + value, value, low, high, 0.1, 0.5, p, 99)))


def test_a_difference_clear_alone_may_not_be_clear_among_several():
    alone = difference(0.02, 0.001, 0.04, 0.03)
    sure = difference(0.02, 0.01, 0.03, 0.0002)
    noise = difference(0.0, -0.01, 0.01, 0.9)
    rows = {"alone": alone, "sure": sure, "noise": noise}
    # mIoU is the one score that is not corrected; the means and the classes are one family.
    found = {"miou": alone, "accuracy": alone} | {f"iou/{k}": v for k, v in rows.items()}
    parts = sections(found, [ConfusionMatrix(3)], dict.fromkeys(rows, 9), Scope(100))
    means, classes = parts
    assert [row[-1] for row in means.rows] == ["B", "B?"]
    assert [row[-2:] for row in classes.rows] == [["B?", "9"], ["B", "9"], ["noise", "9"]]
    assert "2 of 3 intervals exclude 0; about 0.2 would by chance" in classes.words
    assert "for all 4 scores of this report besides mIoU 1 remain" in classes.words


def test_lower_error_near_boundaries_is_better():
    rows = {"miou": difference(0.0, -0.1, 0.1, 1.0)}
    rows |= {f"trimap/{px}": difference(-0.1, -0.2, -0.05, 0.0002) for px in (1, 3)}
    parts = sections(rows, [ConfusionMatrix(2), Trimap(2)], {"a": 1, "b": 1}, Scope(100))
    part = next(part for part in parts if "lower is better" in part.title)
    assert [row[-1] for row in part.rows] == ["B", "B"]
    assert part.figure[0] == "trimap.png" and part.figure[1].startswith(b"\x89PNG")


def test_conclusion_of_a_difference_inside_the_noise():
    sentence = conclusion(difference(0.003, -0.004, 0.01, 0.354), Scope(101))
    assert sentence == (
        "Inside the noise: mIoU of B is 0.30 points above A's, and the interval contains 0 "
        "(95% interval -0.40 to +1.00, p 0.35, 101 images)."
    )


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"confusion": matrices(29)}, r"on 30 images of val and .*b on 29, with 29 in"),
        ({"class_names": ("road", "mast", "sky | cloud")}, r"3 classes.* 3 \(mast, pole differs\)"),
        ({"class_names": ("pole", "road", "sky | cloud")}, "the order differs"),
        ({"receipt": {"inference": {"flip": True}}}, "with inference.flip = False and .*with True"),
        (
            {"receipt": {"ground_truth_sha256": "77"}},
            "with ground_truth_sha256 = 12 and .*b with 77",
        ),
        ({"split": "test"}, r"there is no .*b/images_val.npz; give a folder written by gald"),
        ({"images": [f"lane_{i}" for i in range(30)]}, "on 30, with 0 in common; evaluate both"),
        ({"confusion": matrices(30)[:, :, ::-1].swapaxes(1, 2)}, "classes of .* images differ"),
    ],
)
def test_incomparable_evaluations_are_refused_in_one_sentence(
    write_evaluation, tmp_path, changes, sentence
):
    a = write_evaluation(
        "a", matrices(), {"inference": {"flip": False}, "ground_truth_sha256": "12"}
    )
    b = write_evaluation("b", **({"confusion": matrices(seed=1), "receipt": {"seed": 1}} | changes))
    with pytest.raises((ValueError, FileNotFoundError), match=sentence) as raised:
        compare(a, b, to=tmp_path / "report", samples=200)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "report").exists()


def test_a_setting_that_is_null_equals_one_of_before_it_existed(write_evaluation, tmp_path):
    old = {"inference": {"over": {"flip": False}}}
    new = {"inference": {"over": {"flip": False, "precision": None}, "precision": None}}
    a, b = write_evaluation("a", matrices(), old), write_evaluation("b", matrices(seed=1), new)
    compare(a, b, to=tmp_path / "report", samples=200)
    changed = {"inference": new["inference"] | {"precision": "bf16"}}
    c = write_evaluation("c", matrices(seed=1), changed)
    with pytest.raises(ValueError, match=r"precision = None and .*with bf16"):
        compare(b, c, to=tmp_path / "other", samples=200)


def test_same_folder_filled_folder_and_few_samples_are_refused(write_evaluation, tmp_path):
    a, b = write_evaluation("a", matrices()), write_evaluation("b", matrices(seed=1))
    with pytest.raises(ValueError, match="is given twice"):
        compare(a, a / ".." / "a", to=tmp_path / "report")
    with pytest.raises(
        ValueError, match="already holds something; choose another folder with --to"
    ):
        compare(a, b, to=a)
    with pytest.raises(ValueError, match="--samples is 5"):
        compare(a, b, to=tmp_path / "report", samples=5)
    (b / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"b/results.json is not valid JSON"):
        compare(a, b, to=tmp_path / "report")


def test_failed_write_leaves_nothing(write_evaluation, tmp_path, monkeypatch):
    a, b = write_evaluation("a", matrices()), write_evaluation("b", matrices(seed=1))

    def disk_full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(OSError, match="No space left"):
        compare(a, b, to=tmp_path / "new" / "report", samples=200)
    assert list((tmp_path / "new").iterdir()) == []


def test_interruption_leaves_nothing(write_evaluation, tmp_path, monkeypatch, capsys):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gald.comparison.compare.differences", interrupted)
    folders = [str(write_evaluation(name, matrices(seed=i))) for i, name in enumerate("ab")]
    to = tmp_path / "report"
    monkeypatch.setattr(sys, "argv", ["gald", "compare", *folders, "--to", str(to)])
    with pytest.raises(SystemExit):
        cli.main()
    assert "interrupted, nothing was written" in capsys.readouterr().err
    assert not to.exists()


def test_default_split_is_the_one_that_both_have(write_evaluation, tmp_path, monkeypatch):
    folders = [
        write_evaluation(name, matrices(seed=i), split="test") for i, name in enumerate("ab")
    ]
    monkeypatch.chdir(tmp_path)
    command = ["gald", "compare", *map(str, folders), "--samples", "200", "--seed", "3"]
    monkeypatch.setattr(sys, "argv", command)
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    cli.main()
    (folder,) = (tmp_path / "runs" / "compare").iterdir()
    record = json.loads((folder / "comparison.json").read_text())
    assert (record["split"], record["samples"], record["seed"]) == ("test", 200, 3)


@pytest.mark.integration
def test_two_networks_are_compared_from_the_command_line(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("GALD_TRACEBACK", "1")

    def gald_cli(*arguments):
        monkeypatch.setattr(sys, "argv", ["gald", *map(str, arguments)])
        cli.main()

    data = ["data=synthetic", "data.size=[32,40]", "data.val_count=4", "data.num_workers=0"]
    data += ["metrics=miou", "trainer.accelerator=cpu"]
    for name, ld in (("a", "none"), ("b", "mask")):
        run = trained(f"model/ld={ld}")
        gald_cli("eval", f"ckpt_path={run}", *data, f"output_dir={tmp_path / name}")
        best = run / "checkpoints" / "best.ckpt"
    to = tmp_path / "report"
    gald_cli("compare", tmp_path / "a", tmp_path / "b", "--to", to, "--samples", 100)
    assert (to / "images.png").read_bytes().startswith(b"\x89PNG")
    assert (to / "report.html").read_text().count("data:image/png;base64,") == 2

    content = torch.load(best, weights_only=True)
    torch.save(content | {"since": 1}, best)  # now the sheet would show another network
    again = tmp_path / "again"
    gald_cli("compare", tmp_path / "a", tmp_path / "b", "--to", again, "--samples", 100)
    assert not (again / "images.png").exists()
    assert (
        f"The images are not shown: {best} has changed since" in (again / "report.md").read_text()
    )
