import sys

import fake
import pytest

from gald import cli
from gald.data.camvid import CamVid
from gald.data.folder import Folder
from gald.data.pascal_context import PascalContext59


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("GALD_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GALD_TRACEBACK", raising=False)
    monkeypatch.chdir(tmp_path)


def run(monkeypatch, *arguments):
    """Return the exit code of `gald data ...`."""
    monkeypatch.setattr(sys, "argv", ["gald", "data", *map(str, arguments)])
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code
    return 0


ACTIONS = ("prepare", "verify", "stats", "browse")
SMALL = ["data.train_count=4", "data.val_count=2", "data.test_count=2", "data.size=[32,40]"]


@pytest.mark.parametrize(("arguments", "code"), [([], 2), (["--help"], 0), (["-h"], 0)])
def test_without_an_action_it_prints_the_usage(arguments, code, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == code
    out = capsys.readouterr().out
    assert out.startswith("Usage: gald data COMMAND")
    assert all(f" {action} " in out for action in (*ACTIONS, "import"))


@pytest.mark.parametrize("action", ACTIONS)
def test_each_action_has_a_help_that_lists_the_datasets(action, monkeypatch, capsys):
    assert run(monkeypatch, action, "--help") == 0
    out = capsys.readouterr().out
    assert "camvid" in out and "data.root=FOLDER" in out


@pytest.mark.parametrize(
    ("words", "name"), [(["browse", "--count=2"], "sheet.png"), (["verify"], "report.json")]
)
def test_an_output_in_the_home_folder(words, name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    action, *options = words
    assert run(monkeypatch, action, "synthetic", *SMALL, *options, f"--output=~/{name}") == 0
    assert (tmp_path / "home" / name).is_file() and not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["chek", "camvid"],
            "gald data has no action 'chek'; ",
        ),
        (["verify"], "gald data verify needs a NAME; choose one of "),
        (["verify", "camvld"], "data has no option 'camvld'; choose one of "),
        (["verify", "data.root=x"], "data has no option 'data.root=x'; choose one of "),
        (["stats", "synthetic", "--count", "3"], "Unknown option: --count"),
        (["stats", "synthetic", "--spl=val"], "Unknown option: --spl=val; did you mean --split"),
        (["prepare", "camvid", "--split", "val"], "Unknown option: --split"),
        (["browse", "synthetic", "--count", "some"], 'unable to convert "some" into int'),
        (["browse", "synthetic", "--split"], "it needs --split"),
        (["verify", "synthetic", "val"], "'val' is not key=value; write data.KEY=VALUE"),
        (["verify", "synthetic", "data.cuont=3"], "no config key data.cuont"),
        (["verify", "camvid", "data.root=no/folder"], "no CamVid at no/folder"),
        (["verify", "synthetic", "--split", "dev"], "split (dev) is unknown; choose one of train"),
        (["stats", "camvid", "--split", "dev", "data.root=x"], "split (dev) is unknown"),
        (["browse", "synthetic", "augment=strong"], "only the crops of a training; add --augment"),
        (
            ["browse", "synthetic", "--augment", "data.train_transform=null", "data.copy_paste=1"],
            "data.copy_paste=1 needs crops of one size",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_every_mistake_is_reported_in_one_sentence(arguments, message, monkeypatch, capsys):
    assert run(monkeypatch, *arguments) == 1
    sentence, hint = capsys.readouterr().err.splitlines()[-2:]
    assert sentence.startswith("gald: ") and message in sentence
    assert "GALD_TRACEBACK=1" in hint


def test_options_and_overrides_go_in_any_order_and_the_name_as_in_train(monkeypatch, capsys):
    words = ["stats", "--split", "val", "data=synthetic", *SMALL, "seed=1"]
    assert run(monkeypatch, *words) == 0
    assert "val" in capsys.readouterr().out


def test_verify_reads_every_split_and_returns_0(monkeypatch, capsys):
    assert run(monkeypatch, "verify", "synthetic", *SMALL) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("train", "val", "test", "40x32"))
    assert out.endswith("synthetic: no problems found\n")


def test_verify_returns_1_if_there_are_problems(camvid, monkeypatch, capsys):
    (camvid / "val" / "val_01.png").write_bytes(b"")
    assert run(monkeypatch, "verify", "camvid", f"data.root={camvid}", "--split=val") == 1
    out = capsys.readouterr().out
    assert "val_01.png is truncated" in out
    assert out.endswith("camvid: 2 problems found\n")  # the file, and the number of images


TWINS = {
    "cityscapes": fake.cityscapes,
    "ade20k": lambda root: fake.ade20k(root, zipped=True),
    "pascal_context": fake.pascal_context,
    "coco_stuff": fake.coco_stuff_10k,
    "coco_stuff_164k": lambda root: fake.coco_stuff_164k(root, zipped=True),
    "folder": fake.folder,
}


@pytest.mark.parametrize("name", TWINS)
def test_the_twin_of_every_dataset_has_no_problems(name, monkeypatch, tmp_path, capsys):
    # except for the number of images
    monkeypatch.setattr("gald.data.tools.verify._published_counts", lambda dataset: ())
    root = TWINS[name](tmp_path / name)
    assert run(monkeypatch, "verify", name, f"data.root={root}") == 0
    out = capsys.readouterr().out
    assert "problem in" not in out and "label map: " in out and "hash of names" in out


@pytest.mark.parametrize(
    ("name", "dataset_class"),
    [("camvid", CamVid), ("folder", Folder), ("pascal_context", PascalContext59)],
)
def test_prepare_gets_the_class_and_the_configured_folder(
    name, dataset_class, monkeypatch, tmp_path
):
    calls = []
    monkeypatch.setattr("gald.data.tools.prepare.prepare", lambda *call: calls.append(call))
    assert run(monkeypatch, "prepare", name, f"data.root={tmp_path / 'here'}") == 0
    assert calls == [(dataset_class, name, tmp_path / "here")]


def test_prepare_prints_that_synthetic_has_no_files(monkeypatch, capsys):
    assert run(monkeypatch, "prepare", "synthetic") == 0
    assert "nothing to prepare" in capsys.readouterr().out


def test_browse_prints_the_path_of_the_figure(monkeypatch, capsys, tmp_path):
    figure = tmp_path / "a" / "sheet.png"
    arguments = ["--count", "2", "--output", figure]
    assert run(monkeypatch, "browse", "synthetic", *SMALL, *arguments) == 0
    assert str(figure) in capsys.readouterr().out and figure.exists()


def test_browse_draws_augmented_crops(monkeypatch, capsys, tmp_path):
    figure = tmp_path / "crops.png"
    words = ["augment=[strong,weather]", "data.copy_paste=1", "data.global_batch_size=2"]
    words += ["data.train_transform.extra.rain=null", "--augment", "--output", figure]
    assert run(monkeypatch, "browse", "synthetic", *SMALL, *words) == 0
    assert f"4 crops of the first epoch: {figure}" in capsys.readouterr().out and figure.exists()


def test_an_interruption_names_the_command_to_repeat(monkeypatch, capsys):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("gald.data.tools.verify.verify", interrupt)
    assert run(monkeypatch, "verify", "synthetic") == 130
    assert "interrupted; repeat gald data verify synthetic" in capsys.readouterr().err
