"""`gald report RUN`: what the page of a run shows, and what it says where something is missing."""

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from gald import cli
from gald.comparison.names import run_names
from gald.comparison.runs import EvaluatedRun
from gald.metrics.calibration import CalibrationError
from gald.metrics.images import ImageCounts
from gald.painting import short_name
from gald.report import figures, tables
from gald.report.curves import MOST, Curve, read_curves
from gald.report.pictures import choose
from gald.report.stored import Stored, read_stored
from gald.report.training import report_training

TOY = (
    "data=synthetic data.size=[48,64] data.train_transform.crop_size=[40,48] data.train_count=8 "
    "data.val_count=6 data.test_count=3 data.global_batch_size=4 data.num_workers=0 "
    "model.channels=16 model.backbone.name=test_resnet trainer.accelerator=cpu "
    "trainer.max_epochs=2 trainer.log_every_n_steps=1 logger=csv callbacks=[checkpoint]"
)
CHARTS = {"loss", "val_miou", "confusion_matrix", "image_scores", "calibration", "trimap"}
CHARTS |= {"boundary_iou", "boundary_f", "boundary_f_authors", "size_recall", "size_iou"}
PICTURES = {f"{kind}_{n}" for kind in ("worst", "best") for n in (1, 2, 3)}


class Page(HTMLParser):
    """Tags, images, headings and the rows of the tables of a page."""

    def __init__(self, text):
        super().__init__()
        self.images, self.tags, self.rows, self.words = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        self.words.append(data)
        if self.tags and self.tags[-1] in ("td", "th", "span") and self.rows:
            self.rows[-1][-1] += data.strip()

    def row(self, name):
        """The cells after the name of the first row that has it."""
        return next(row[1:] for row in self.rows if row[0].replace("\xa0", " ") == name)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """The folder of one training, and what it printed."""
    folder = tmp_path_factory.mktemp("report") / "mine"
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(sys, "argv", ["gald", "train", *TOY.split(), f"output_dir={folder}"])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder, out.getvalue()


@pytest.fixture
def run(trained_run, tmp_path):
    """A copy of the run, to change."""
    return shutil.copytree(trained_run[0], tmp_path / "mine")


def page_of(folder):
    return Page((folder / "report.html").read_text("utf-8"))


def change_results(run, edit):
    path = run / "results.json"
    results = json.loads(path.read_text())
    edit(results)
    path.write_text(json.dumps(results))


def test_a_training_ends_with_a_report_of_everything(trained_run):
    run, printed = trained_run
    assert f"report: {run / 'report' / 'report.html'}\n" in printed  # and nothing is missing
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {"report.html"} | {f"{name}.png" for name in CHARTS | PICTURES}
    for path in (run / "report").glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")


def test_the_page_is_one_file_and_shows_what_is_stored(trained_run):
    run, _ = trained_run
    results = json.loads((run / "results.json").read_text())
    text = (run / "report" / "report.html").read_text("utf-8")
    page = Page(text)
    assert "http" not in text and not {"script", "link"} & set(page.tags)
    assert len(page.images) == len(CHARTS | PICTURES)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") for image in page.images)
    assert all(len(image["alt"]) > 20 for image in page.images)
    assert page.tags.count("h1") == 1 and page.tags.count("h2") == 8
    for label, key, arrow in (
        ("mIoU", "miou", "↑"),
        ("pixel accuracy", "accuracy", "↑"),
        ("calibration error", "ece", "↓"),
        ("error near boundaries (3 px)", "trimap/3", "↓"),
    ):
        expected = [f"{100 * results[f'{split}/{key}']:.1f}" for split in ("val", "test")]
        assert page.row(f"{label}, % {arrow}") == expected
    sky = page.row("sky")
    assert sky[:3] == [
        f"{100 * results[key]:.1f}" for key in ("val/iou/sky", "test/iou/sky", "val/accuracy/sky")
    ]
    assert page.row("ga")[0] == f"{results['cost/ga/params']:,}"
    for fact in (results["command"], results["commit"], results["val/receipt"]["images_sha256"]):
        assert fact is None or fact in page.text
    assert f"gald report {run}" in page.text and re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d", page.text)


@pytest.mark.integration
def test_a_report_is_written_again_and_replaces_nothing_else(run, gald_cli, capsys):
    (run / "report" / "worst_9.png").write_bytes(b"of an earlier report")
    gald_cli("report", str(run), "--split", "test")
    assert capsys.readouterr().out == f"report: {run / 'report' / 'report.html'}\n"
    names = {path.name for path in (run / "report").iterdir()}
    assert names == {"report.html"} | {f"{n}.png" for n in CHARTS | {"worst_1", "best_1"}}
    page = page_of(run / "report")
    assert "on 3 images of test" in page.text and "test_000" in page.text
    (run / "report" / "notes.txt").write_text("precious")
    before = {path: path.stat().st_mtime_ns for path in (run / "report").iterdir()}
    with pytest.raises(ValueError, match=r"already holds notes\.txt, .* with --to"):
        gald_cli("report", str(run))
    with pytest.raises(ValueError, match=r"checkpoints already holds .*; choose another folder"):
        gald_cli("report", str(run), "--to", str(run / "checkpoints"))
    assert before == {path: path.stat().st_mtime_ns for path in (run / "report").iterdir()}


@pytest.mark.integration
def test_a_missing_part_is_one_sentence_and_the_rest_is_there(run, tmp_path, gald_cli, capsys):
    shutil.rmtree(run / "checkpoints")
    (run / "metrics.csv").unlink()
    (run / "config.yaml").unlink()
    gald_cli("report", str(run), "--to", str(tmp_path / "out"))
    printed = capsys.readouterr().out
    for sentence in (
        "There are no curves: there is no metrics.csv, which logger=csv writes.",
        f"The images are not shown: no checkpoint at {run / 'checkpoints' / 'last.ckpt'}; give",
    ):
        assert sentence in printed and sentence in page_of(tmp_path / "out").text
    assert len(printed.splitlines()) == 1
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == CHARTS - {"loss", "val_miou"}
    assert page_of(tmp_path / "out").row("val_0000")  # ranked by name


def test_without_counts_of_images_the_scores_are_shown(run, gald_cli):
    (run / "images_val.npz").unlink()
    gald_cli("report", str(run))
    page = page_of(run / "report")
    assert f"There is no confusion matrix: there is no {run / 'images_val.npz'}" in page.text
    assert page.row("mIoU, % ↑") and page.row("sky")
    (run / "images_val.npz").write_bytes(b"damaged")
    gald_cli("report", str(run))
    assert "cannot be read as image counts" in page_of(run / "report").text


@pytest.mark.integration
def test_images_that_are_others_now_are_not_shown(run, gald_cli, capsys):
    def other_scenes(results):
        results["val/receipt"]["data"]["scene_seed"] = 5

    change_results(run, other_scenes)
    gald_cli("report", str(run))
    printed = capsys.readouterr().out
    assert re.search(r"not shown: the mask of val_000\d has changed since the eval", printed)
    assert not list((run / "report").glob("worst_*"))
    change_results(run, lambda results: results.update({"val/iou/sky": None, "missing_split": "x"}))
    with pytest.raises(ValueError, match=r"--data-root is here, but the data .* leave --data-root"):
        gald_cli("report", str(run), "--data-root", "here")
    gald_cli("report", str(run))
    page = page_of(run / "report")
    assert page.row("sky")[0] == "absent" and "no scores of x: its evaluation" in page.text


@pytest.mark.integration
def test_a_folder_of_an_evaluation_has_a_report_without_costs(run, tmp_path, gald_cli, capsys):
    words = ["split=val", "trainer.accelerator=cpu", "metrics=miou", f"output_dir={tmp_path}/eval"]
    gald_cli("eval", f"ckpt_path={run}", *words)
    capsys.readouterr()
    gald_cli("report", f"{tmp_path}/eval")
    printed = capsys.readouterr().out
    for words in ("no curves", "no calibration", "no boundary and size plots", "no costs"):
        assert words in printed
    names = {path.stem for path in (tmp_path / "eval" / "report").glob("*.png")}
    assert names == {"confusion_matrix", "image_scores"} | PICTURES


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda run: shutil.rmtree(run), "there is no folder .*/mine; give the folder"),
        (lambda run: (run / "results.json").unlink(), "the run has not ended; resume it with"),
        (lambda run: change_results(run, dict.clear), "has no scores; evaluate it with: gald eval"),
    ],
)
def test_a_folder_without_results_is_refused(run, gald_cli, prepare, sentence):
    shutil.rmtree(run / "report")
    prepare(run)
    with pytest.raises((FileNotFoundError, ValueError), match=sentence):
        gald_cli("report", str(run))
    assert not (run / "report").exists()


def test_a_report_that_fails_ends_no_training(run):
    line = report_training(run, None, None, None)  # no network
    assert line.startswith("the report is not written (AttributeError: ")
    assert line.endswith(f"); write it with: gald report {run}") and "\n" not in line
    assert (run / "report" / "report.html").is_file()

    (run / "results.json").unlink()
    assert "there is no" in report_training(run, None, None, None)


def test_the_command_line_is_read_before_libraries_are_imported():
    code = "import sys, gald.report.command; print({'matplotlib', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def stored(matrices, names):
    """The evaluation of images with these confusion matrices (N, K, K)."""
    counts = ImageCounts()
    for index, matrix in enumerate(matrices):
        counts.add(f"image_{index}", "confusion", torch.from_numpy(matrix.ravel()))
    run = EvaluatedRun(None, {}, {}, counts, counts.class_counts(), names, [])
    return Stored(None, {}, "val", ("val",), names, [], run)


def test_images_are_ranked_by_the_mean_iou_of_their_classes():
    half, whole, void = [[1, 1], [0, 0]], [[2, 0], [0, 2]], [[0, 0], [0, 0]]
    run = stored(np.array([half, whole, void, [[0, 2], [0, 2]]]), ("a", "b"))
    scores = tables.image_scores(run)
    np.testing.assert_allclose(scores, [0.25, 1.0, np.nan, 0.25])
    chosen = choose(run.evaluated, scores)
    assert [(one.kind, one.name, one.accuracy) for one in chosen] == [
        ("worst", "image_0", 0.5),
        ("best", "image_1", 1.0),
    ]
    alone = stored(np.array([half]), ("a", "b"))
    assert [one.kind for one in choose(alone.evaluated, tables.image_scores(alone))] == ["worst"]


def test_confusions_are_counted_by_hand():
    run = stored(np.array([[[6, 3, 1], [0, 0, 0], [1, 0, 4]]]), ("a", "b", "c"))
    rows = [[cell.text for cell in row] for row in tables.confusions(run).rows]
    assert rows == [
        ["a", "b", "30.0", "60.0"],
        ["a", "c", "10.0", "20.0"],
        ["c", "a", "20.0", "20.0"],
    ]
    found = {row[0].text: [cell.text for cell in row[1:]] for row in tables.classes(run, None).rows}
    # IoU and recall are those of results.json, which is empty here
    assert found["a"] == ["absent", "absent", "85.7", "66.7", "1", "b", "30.0"]
    assert found["b"] == ["absent", "absent", "0.0", "0.0", "0", "", ""]


def test_the_page_says_that_a_network_reads_the_truth():
    run = stored(np.array([[[6, 3], [0, 4]]]), ("a", "b"))
    run.results["val/receipt"] = {"features": "5a"}
    assert "ground truth" not in tables.conclusion(run)
    run.results["val/receipt"]["reads_truth"] = True
    assert tables.conclusion(run).endswith("an upper bound and not those of a method.")


def test_the_curve_of_calibration_has_the_error_of_the_metric():
    metric = CalibrationError(2, bins=4)
    rng = np.random.default_rng(0)
    labels, mask = rng.integers(0, 2, (2, 30, 30), np.uint8)
    confidence = rng.uniform(0.5, 1, (30, 30)).astype(np.float32)
    counts = torch.from_numpy(metric.count_arrays(labels, mask, confidence).ravel())
    share, accuracy, mean = metric.reliability(counts)
    assert share[:1] == 0 and torch.isnan(accuracy[0]) and float(share.sum()) == pytest.approx(1)
    gap = (share * (accuracy - mean).abs()).nansum()
    assert float(gap) == pytest.approx(metric.scores(counts, ())["ece"])


def test_curves_are_the_finite_numbers_of_whole_lines(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text('step,train/loss,"a,b"\n1,2.5,\n2,nan,7\nx,1,1\n3,1.5,8\n4,0.1')
    curves = read_curves(path)
    assert curves["train/loss"] == ([1, 3], [2.5, 1.5]) and curves["a,b"] == ([2, 3], [7, 8])
    path.write_text("step,a\n" + "".join(f"{n},{n}\n" for n in range(3 * MOST + 1)))
    steps = read_curves(path)["a"].steps
    assert len(steps) <= MOST and steps[-1] == 3 * MOST
    for text, words in (("", "no column step"), ("a,b\n1,2\n", "no column"), ("step\n", "no numb")):
        path.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_curves(path)


def test_legends_show_every_name_as_it_is(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "to_png", lambda figure: shown.append(figure) or b"")
    names = ["_hidden", "$x$", "z" * 300]
    figures.curves_chart(dict.fromkeys(names, Curve([1, 2], [0.5, 1.0])), "title", "label")
    legend = shown[0].axes[0].get_legend()
    assert [text.get_text() for text in legend.get_texts()] == [short_name(n) for n in names]


def test_names_of_runs_are_as_short_as_they_tell_them_apart(tmp_path):
    folders = [tmp_path / "a" / "ga", tmp_path / "a" / "ld", tmp_path / "b" / "ld"]
    assert run_names(folders[:2]) == ["ga", "ld"]
    assert run_names(folders[1:]) == ["a/ld", "b/ld"]
    assert run_names([tmp_path / "demo" / "2026-11-22_12-00-00"]) == ["demo/2026-11-22_12-00-00"]


@pytest.mark.integration
def test_old_runs_have_a_report(gald_cli, tmp_path):
    old = Path(__file__).parents[1] / "run" / "old_run"
    gald_cli("report", str(old), "--to", str(tmp_path / "out"))
    assert page_of(tmp_path / "out").row("mIoU, % ↑")
    assert read_stored(old).evaluated is not None
