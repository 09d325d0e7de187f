"""Names of classes, files, folders, runs and arms are text in every format."""

import csv
import html
import io
import json
import math
import re
import shutil
import sys
from html.parser import HTMLParser

import fake
import numpy as np
import pytest
import yaml
from markdown_it import MarkdownIt
from matplotlib.text import Text

from gald.comparison.bootstrap import Difference
from gald.comparison.report import Section, write_report
from gald.data.folder_classes import read_classes
from gald.logger.mlflow import metric_key
from gald.painting import add_legend, new_figure, short_name, to_png
from gald.prediction.prediction import Prediction
from gald.prediction.serve import shares_table
from gald.run.class_names import unusable
from gald.run.markdown import as_markdown
from gald.run.results import read_results
from gald.sweep.cells import declare
from gald.sweep.table.figures import class_chart
from gald.sweep.table.latex import latex_table
from gald.sweep.table.spreadsheet import cell

NAME = 'a [/] b | <script> $x$ =1+1 "q"\n---'
PLACE = 'a [/] b | <script> $x$ =1+1 "q"'  # a folder in a folder
FILE = 'a [b] | <script> $x$ =1+1 "q"'
CLASSES = (NAME, "vehicle", "=1+1")
TINY = ["model.backbone.name=test_resnet", "model.channels=16", "trainer.max_epochs=1"]
TINY += ["data=folder", "data.num_workers=0", "data.global_batch_size=3", "trainer.accelerator=cpu"]
TINY += ["data.train_transform.crop_size=[24,32]", "metrics=miou", "logger=csv"]
AWKWARD = [
    NAME,
    "[red]x[/red]",
    "**b**",
    "_i_ *j*",
    "`c`",
    "[a](http://b)",
    "![a](b)",
    "# h",
    "a\\|b",
]
AWKWARD += ["$x$ and $y$", "&lt;b&gt;", "a\n\nb", "1. a", "~~s~~", "{{ 7 * 7 }}", "</td><script>"]


class Page(HTMLParser):
    """Elements and text of a page; `cells` are the texts of the cells of its tables."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.rows, self.is_cell = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.cells.append("")
            self.rows[-1] += 1
            self.is_cell = True

    def handle_endtag(self, tag):
        self.is_cell &= tag not in ("td", "th")

    def handle_data(self, data):
        if self.is_cell:
            self.cells[-1] += data


def rendered(markdown):
    return Page(MarkdownIt("commonmark").enable("table").render(markdown))


def one_line(text):
    return " ".join(text.split())


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a hostile name; its data have hostile names of classes and files."""
    home = tmp_path_factory.mktemp("text") / PLACE
    data = fake.folder(home / "data")
    listed = (data / "classes.yaml").read_text().replace("name: road", f"name: {json.dumps(NAME)}")
    (data / "classes.yaml").write_text(listed.replace("name: other", "name: '=1+1'"))
    for split in ("train", "val", "test"):
        for kind, suffix in (("images", "jpg"), ("masks", "png")):
            path = data / kind / split / f"0.{suffix}"
            path.rename(path.with_name(f"{FILE}.{suffix}"))
    return home


@pytest.fixture(scope="module")
def run(home, console):
    done = console("train", *TINY, f"data.root={home}/data", f"output_dir={home}/run", cwd=home)
    assert done.returncode == 0, done.stderr
    assert 'a [/] b | <script> $x$ =1+1 "q"' in done.stdout
    return home / "run"


@pytest.mark.slow
def test_training_writes_the_scores_of_each_class(run):
    results = read_results(run / "results.json")
    assert [key[9:] for key in results if key.startswith("test/iou/")] == list(CLASSES)
    with (run / "metrics.csv").open(newline="") as file:
        row = [row for row in csv.DictReader(file) if row["val/miou"]][-1]
    assert all(math.isfinite(float(row[f"val/iou/{name}"])) for name in CLASSES)
    assert float(row["val/miou"]) == pytest.approx(results["val/miou"], abs=1e-6)


@pytest.mark.slow
def test_every_verb_reads_and_writes_the_names_unharmed(run, home, gald_cli, capsys):
    options = ["split=test", "trainer.accelerator=cpu", "metrics=miou"]
    gald_cli("eval", f"ckpt_path={run}", f"output_dir={home}/eval", *options)
    before, after = (read_results(folder / "results.json") for folder in (run, home / "eval"))
    assert {k: after[k] for k in after if k.startswith("test/iou/")} == {
        k: before[k] for k in before if k.startswith("test/iou/")
    }
    moved = f"data.root={home}/data"
    gald_cli("eval", "--check", f"{home}/eval/results.json", moved, "trainer.accelerator=cpu")
    gald_cli("compare", str(run), f"{home}/eval", "--split", "test", "--to", f"{home}/compare")
    assert "not shown" not in capsys.readouterr().out
    check_report(home / "compare", CLASSES)
    record = json.loads((home / "compare" / "comparison.json").read_text())
    assert {f"iou/{name}" for name in CLASSES} <= record["scores"].keys()

    report(run, home, gald_cli, capsys)
    gald_cli("export", str(run), "--to", f"{home}/export", "--format", "pretrained")
    card = (home / "export" / "README.md").read_text()
    _, front, body = card.split("---\n", 2)
    assert yaml.safe_load(front)["library_name"] == "gald"
    page = rendered(body)
    assert "script" not in page.tags and "em" not in page.tags
    assert page.rows == [3] * 4
    assert [html.unescape(text) for text in page.cells[4::3]] == [one_line(n) for n in CLASSES]
    assert json.loads((home / "export" / "config.json").read_text())["class_names"] == [*CLASSES]

    picture = home / "data" / "images" / "test" / f"{FILE}.jpg"
    gald_cli("predict", f"{home}/export", str(picture), "--to", f"{home}/out", "--overlay")
    assert (home / "out" / "masks" / f"{FILE}.png").is_file()
    gald_cli("viz", f"{home}/export", "--image", str(picture), "--to", f"{home}/viz")
    assert (home / "viz" / "prediction.png").is_file()
    assert gald_ends(gald_cli, "data", "verify", "folder", moved, "--output", f"{home}/v.json") == 0
    assert set(CLASSES) <= {key[12:] for key in json.loads((home / "v.json").read_text())}
    assert gald_ends(gald_cli, "data", "stats", "folder", moved) == 0
    browse = ("data", "browse", "folder", moved, "--class", NAME, "--output", f"{home}/b.png")
    assert gald_ends(gald_cli, *browse) == 0
    assert (home / "b.png").stat().st_size


def report(run, home, gald_cli, capsys):
    """Check the report of a training, and of the same run after its data have moved."""
    assert (run / "report" / "worst_1.png").stat().st_size
    copied = shutil.copytree(run, home / "copied")
    path = copied / "results.json"
    path.write_text(path.read_text().replace(json.dumps(f"{home}/data")[1:-1], "/gone/data"))
    gald_cli("report", str(copied), "--split", "test")
    assert "The images are not shown: " in capsys.readouterr().out
    assert not list((copied / "report").glob("worst_*"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        gald_cli("report", str(copied), "--data-root", "/nowhere")
    moved = ("--data-root", f"{home}/data", "--to", f"{home}/report")
    gald_cli("report", str(copied), "--split", "test", *moved)
    assert "not shown" not in capsys.readouterr().out
    for folder in (run / "report", home / "report"):
        text = (folder / "report.html").read_text()
        page = Page(text)
        assert "script" not in page.tags and text.count("<script") == 0
        assert {one_line(name) for name in CLASSES} <= {one_line(cell) for cell in page.cells}
        assert FILE in html.unescape(text)


def gald_ends(gald_cli, *words):
    """Run a verb, and return its exit code."""
    try:
        gald_cli(*words)
    except SystemExit as stop:
        return stop.code
    return 0


def check_report(folder, names):
    page = Page((folder / "report.html").read_text())
    assert "script" not in page.tags
    assert set(names) <= set(page.cells)
    page = rendered((folder / "report.md").read_text())
    assert not {"script", "em", "a"} & set(page.tags)
    assert {one_line(name) for name in names} <= set(map(one_line, page.cells))


@pytest.mark.slow
def test_table_has_arms_of_any_name(run, gald_cli, home):
    sweep = home / "sweep"
    values = (NAME, "=1+1", "-0.5", "0.5")
    words = [[f"task.x={value}", "seed=0"] for value in values]
    for one in declare(sweep, PLACE, ["gald", "train", "-m"], words):
        shutil.copytree(run, sweep / one.folder)
    gald_cli("table", str(sweep), "--to", f"{home}/table", "--samples", "100")
    assert gald_ends(gald_cli, "sweep", "status", str(sweep)) == 0
    arms = [f"x={value}" for value in values]
    check_report(home / "table", arms)
    with (home / "table" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == arms
    assert [row["task.x"] for row in rows] == [NAME, "'=1+1", "-0.5", "0.5"]
    assert all(math.isfinite(float(row["mIoU"])) for row in rows)
    tex = (home / "table" / "table.tex").read_text()
    lines = [line for line in tex.splitlines() if line.endswith(r" \\")]
    assert len(lines) == 5 and len({line.count(" & ") for line in lines}) == 1
    assert "<" not in tex.replace("$<$", "") and "$x$" not in tex


@pytest.mark.parametrize("text", AWKWARD)
def test_text_in_markdown_is_that_text(text, tmp_path):
    table = f"| a | b |\n|---|---|\n| {as_markdown(text)} | {as_markdown(text)} |\n"
    page = rendered(f"x {as_markdown(text)}\n\n{table}")
    assert set(page.tags) == {"p", "table", "thead", "tbody", "tr", "th", "td"}
    assert page.cells[2:] == [one_line(text)] * 2
    assert page.rows == [2, 2]
    section = Section(text, text, (text, "b"), [[text, "1"]])
    write_report(tmp_path, text, text, text, [section])
    page = Page((tmp_path / "report.html").read_text())
    assert "script" not in page.tags and page.rows == [2, 2]
    assert page.cells[2] == text


def test_a_file_name_that_is_not_utf_8_is_shown_by_its_bytes(tmp_path):
    name = "caf\udce9.png"  # as Python reads it
    write_report(tmp_path, name, name, name, [Section(name, name, (name,), [[name]])])
    for report in ("report.md", "report.html"):
        assert "caf\\udce9.png" in html.unescape((tmp_path / report).read_text("utf-8"))
    figure = new_figure(2, 2)
    figure.subplots().set_title(name)
    assert to_png(figure)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("=1", "'=1"),
        ("+a", "'+a"),
        ("@x", "'@x"),
        ("\tx", "'\tx"),
        ("-", "'-"),
        ("-1-x", "'-1-x"),
        ("-inf", "'-inf"),
    ]
    + [(number, number) for number in ("-1.5", "+2", "-1e-05", "1.", "nan", "", "road", "a=1")],
)
def test_a_cell_of_a_spreadsheet_is_no_formula_and_numbers_stay(text, shown):
    assert cell(text) == shown


@pytest.mark.parametrize("text", AWKWARD)
def test_text_in_latex_is_in_one_cell(text):
    table = latex_table(["a", "b"], [[text, "-1"], [text, "1"]], text)
    rows = [line for line in table.splitlines() if line.endswith(r" \\")]
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert not any(re.match(r" *[\[*]", row) for row in rows)  # an option of the row before
    assert table.count("{") - table.count(r"\{") == table.count("}") - table.count(r"\}")


def test_figures_show_names_as_they_are_and_long_ones_leave_room():
    names = ["$x$", r"$\frac{$", "a $b$ c$", "\tx", "_a", "x" * 300, NAME, "道路"]
    figure = new_figure(4, 4)
    figure.subplots().set_title("$x$")
    add_legend(figure, names, [(0, 0, 0)] * len(names), 3)
    assert to_png(figure).startswith(b"\x89PNG")
    assert not any(text.get_parse_math() for text in figure.findobj(Text))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [short_name(n) for n in names]
    half = np.full(len(names), 0.5)
    rows = [Difference(*[half] * len(Difference._fields))] * 2
    assert class_chart(["$a$", "y" * 300], names, rows, [half > 1] * 2, "z" * 300).startswith(
        b"\x89PNG"
    )


def test_the_page_of_serve_has_no_element_of_a_name():
    labels = np.zeros((2, 2), np.uint8)
    palette = ((1, 2, 3), (4, 5, 6))
    prediction = Prediction(np.zeros((2, 2, 3), np.uint8), labels, None, None, (NAME, "b"), palette)
    page = Page(shares_table(prediction))
    assert "script" not in page.tags and page.cells[0] == NAME


def test_scores_of_two_classes_have_two_names_in_mlflow():
    names = ["a|b", "ab", "a,b", "道路", "街", "x/../y", "x/y", "/", "//", "z" * 300, "z" * 301]
    keys = [metric_key(f"val/iou/{name}") for name in names]
    assert len(set(keys)) == len(names)
    assert all(re.fullmatch(r"[\w. -]+(/[\w. -]+)*", key, re.ASCII) for key in keys)
    assert not any(".." in key or len(key) > 250 for key in keys)
    assert metric_key("val/iou/road") == "val/iou/road"
    assert metric_key("lr-SGD/backbone, no decay") == "lr-SGD/backbone, no decay"


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\x00", "a\r", "\x9b31m", "\ud800", "x" * 1001])
def test_a_name_that_cannot_be_shown_is_refused(name, tmp_path):
    assert unusable(name) and unusable(NAME) is None and unusable("道路 é") is None
    if name.isascii() and "\0" not in name:
        path = tmp_path / "classes.yaml"
        path.write_text(f"classes: [{{name: {json.dumps(name)}, ids: [1]}}]")
        with pytest.raises(ValueError, match=r"class 1 of .*classes.yaml has the name .* with .*"):
            read_classes(path)


def test_a_screen_without_the_letters_shows_their_numbers(gald_cli, monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr("gald.doctor.command.main", lambda: print("straße"))
    gald_cli("doctor")
    out.flush()
    assert out.buffer.getvalue() == b"stra\\xdfe\n"
