"""The zoo: what an entry holds, how names are found, and how an entry is made from a run."""

import json
import re
import shutil
import socket
import sys
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest
import torch
from cyclopts import App
from networks import make
from safetensors.torch import load_file

import gald
from gald import cli
from gald.data.synthetic import SyntheticStreets
from gald.export import zoo_entry
from gald.run import zoo
from gald.run.checkpoint import find_checkpoint
from gald.run.provenance import sha256

ROOT = Path(__file__).parents[2]
ENTRIES = sorted(path.parent for path in (ROOT / "zoo").glob("*/config.json"))
PARTS = ("Data and licence", "Scores", "Receipt", "Half precision", "Cost", "Training")
every_entry = pytest.mark.parametrize("entry", ENTRIES, ids=[path.name for path in ENTRIES])


def test_the_zoo_has_the_demo():
    assert (ROOT / "zoo" / "demo") in ENTRIES


@every_entry
def test_entry_predicts_by_its_name_without_a_network(entry, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("the zoo must need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    image = SyntheticStreets("val", 1)[0]["image"]
    prediction = gald.load(entry.name).predict(image)
    assert prediction.labels.shape == image.shape[1:]
    assert len(np.unique(prediction.labels)) > 2


@every_entry
def test_entry_is_small_and_its_matrices_are_of_half_precision(entry):
    assert (entry / "model.safetensors").stat().st_size <= zoo_entry.LARGEST
    assert sum(path.stat().st_size for path in entry.iterdir()) <= 1.1 * zoo_entry.LARGEST
    weights = load_file(entry / "model.safetensors")
    matrices = [value.dtype for value in weights.values() if value.ndim > 1]
    vectors = [value for value in weights.values() if value.ndim < 2 and value.is_floating_point()]
    assert matrices.count(torch.float16) > 0.9 * len(matrices)
    assert all(value.dtype == torch.float32 for value in vectors)


@every_entry
def test_card_states_data_licence_scores_receipt_cost_and_command(entry):
    card = (entry / "README.md").read_text(encoding="utf-8")
    results = json.loads((entry / "results.json").read_text())
    receipt = results["test/receipt"]
    assert all(f"\n## {part}\n" in card for part in PARTS)
    assert re.search(r"^license: \S+$", card, re.MULTILINE)
    shown = " | ".join(f"{100 * results[f'{split}/miou']:.1f}" for split in ("val", "test"))
    assert f"| **mIoU** | {shown} |" in card
    for split in ("val", "test"):
        full, stored = results[f"full_precision/{split}/miou"], results[f"{split}/miou"]
        assert f"{100 * (stored - full):+.3f}" in card and abs(stored - full) < 0.002
        assert results[f"{split}/receipt"]["checkpoint"] == "model.safetensors"
        assert results[f"{split}/receipt"]["predictions_sha256"] in card
    assert receipt["checkpoint_sha256"] == sha256(entry / "model.safetensors")
    assert receipt["checkpoint_sha256"] in card
    assert f"{results['params']:,} parameters" in card and "gald train " in card
    assert f"gald eval --check zoo/{entry.name}/results.json" in card
    if "CamVid" in card:
        assert "CC BY-NC 4.0" in card and "license: cc-by-nc-4.0" in card


@every_entry
def test_entry_names_no_folder_of_a_machine(entry):
    for name in ("README.md", "config.json", "results.json"):
        text = (entry / name).read_text(encoding="utf-8").replace("/path/to/", "")
        assert not re.search(r"[\s\"'=](/|[A-Z]:\\)\w", text), name
        assert "file:" not in text


@pytest.mark.integration
def test_scores_of_the_demo_are_confirmed(gald_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("split=test", "metrics=miou", "trainer.accelerator=cpu", "data=synthetic")
    words += ("data.num_workers=0", "data.eval_batch_size=8")
    gald_cli("eval", "ckpt_path=demo", *words, f"output_dir={tmp_path / 'again'}")
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    stored = json.loads((ROOT / "zoo" / "demo" / "results.json").read_text())
    # another processor may round a few pixels otherwise
    assert again["test/miou"] == pytest.approx(stored["test/miou"], abs=1e-3)
    for key in ("images_sha256", "ground_truth_sha256", "checkpoint_sha256"):
        assert again["test/receipt"][key] == stored["test/receipt"][key]


@pytest.fixture
def other_zoo(tmp_path, monkeypatch):
    """A zoo of two random networks, and an empty folder to work in."""
    folder = tmp_path / "networks"
    for name in ("street_small", "street_large"):
        make(folder / name, "model/ga=none", "model/ld=none")
    monkeypatch.setenv("GALD_ZOO", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_a_path_comes_before_a_name_and_a_name_before_the_hub(other_zoo, monkeypatch):
    fetched = []

    def fetch(name, **_):
        fetched.append(name)
        return str(other_zoo / "street_large")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    weights = other_zoo / "street_small" / "model.safetensors"
    assert find_checkpoint("street_small") == weights
    assert find_checkpoint("zoo/street_small") == find_checkpoint("street_small/") == weights
    assert not fetched
    assert find_checkpoint("owner/street_small").parent.name == "street_large"
    assert fetched == ["owner/street_small"]
    own = make(Path("street_small"), "model/ga=none", "model/ld=none")
    assert find_checkpoint("street_small") == own / "model.safetensors"


def test_a_folder_that_hides_a_name_is_refused_with_the_path_of_the_network(other_zoo):
    Path("street_small").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        find_checkpoint("street_small")
    assert str(caught.value) == (
        "no checkpoint at street_small/checkpoints/last.ckpt; for the network street_small of the "
        f"zoo give {other_zoo / 'street_small'}"
    )


@pytest.mark.parametrize("name", ["street_smal", "Street_Small", "zoo/street-small"])
def test_a_misspelt_name_is_answered_with_the_nearest_and_all_names(other_zoo, name):
    with pytest.raises(FileNotFoundError) as caught:
        find_checkpoint(name)
    assert str(caught.value) == (
        f"no checkpoint at {name}; did you mean street_small? (the zoo has street_large, "
        "street_small)"
    )


def test_a_name_like_no_other_is_answered_with_all_ways_and_all_names(other_zoo):
    with pytest.raises(FileNotFoundError, match=r"on the hub \(the zoo has street_large, street"):
        find_checkpoint("mine")
    with pytest.raises(FileNotFoundError, match=r"or OWNER/NAME on the hub$"):
        find_checkpoint("mine.ckpt")


def test_without_a_zoo_the_error_says_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GALD_ZOO", raising=False)
    monkeypatch.setattr(zoo, "_SHIPPED", tmp_path / "absent")
    for find in (find_checkpoint, zoo.find_folder):
        with pytest.raises(
            FileNotFoundError,
            match=r" \(names are of networks in the zoo, a folder of gald's repository that is not "
            r"installed: clone the repository and set GALD_ZOO=CLONE/zoo\)$",
        ):
            find("demo")


def test_a_variable_that_names_no_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GALD_ZOO", "nowhere")
    with pytest.raises(FileNotFoundError, match=r"GALD_ZOO is nowhere, which is no folder; set"):
        gald.load("demo")


@pytest.mark.integration
def test_every_verb_that_takes_a_run_takes_a_name(other_zoo, gald_cli, capsys):
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    cv2.imwrite("street.png", image)
    gald_cli("predict", "street_small", "street.png")
    assert "1 predicted" in capsys.readouterr().out
    assert Path("runs/predict/street_small/masks/street.png").is_file()
    names = ("street_small", "street_large")
    gald_cli("viz", *names, "--image", "street.png", "--to", "seen")
    assert {path.name for path in Path("seen").iterdir()} >= {*names, "runs.png"}
    gald_cli("export", "street_small", "--to", "copy", "--format", "pretrained")
    assert find_checkpoint("copy").is_file()
    for words in (
        ["compare", "street_smal", "street_large"],
        ["eval", "ckpt_path=street_smal", "output_dir=out"],
        ["eval", "--check", "street_smal"],
        ["serve", "street_smal"],
    ):
        with pytest.raises(FileNotFoundError, match=r"did you mean street_small\?"):
            gald_cli(*words)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return fake.camvid(tmp_path_factory.mktemp("data") / "camvid")


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished training of one epoch on a toy CamVid."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    words = ["train", "data=camvid", f"data.root={data}", "data.train_transform.crop_size=[24,32]"]
    words += ["data.num_workers=0", "data.global_batch_size=2", "model.backbone.name=test_resnet"]
    words += ["model.channels=16", "trainer.max_epochs=1", "logger=csv", "report=false"]
    words += [f"output_dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gald", *words])
        patch.setenv("GALD_TRACEBACK", "1")
        cli.main()
    return folder


def make_entry(monkeypatch, *words):
    app = App(default_command=zoo_entry.main, result_action="return_value")
    app([*map(str, words), "--licence", "cc-by-nc-4.0"], exit_on_error=False)


@pytest.mark.integration
def test_entry_of_a_run_is_evaluated_and_confirmed_elsewhere(
    run, data, gald_cli, tmp_path, monkeypatch, capsys
):
    make_entry(monkeypatch, run, "--to", tmp_path / "zoo" / "mine", "--note", "A note.")
    entry = tmp_path / "zoo" / "mine"
    test_card_states_data_licence_scores_receipt_cost_and_command(entry)
    test_entry_names_no_folder_of_a_machine(entry)
    card = (entry / "README.md").read_text(encoding="utf-8")
    assert "data.root=/path/to/camvid" in card and "output_dir" not in card and "A note." in card
    monkeypatch.setenv("GALD_ZOO", str(entry.parent))
    with pytest.raises(ValueError, match=r"receipt\.data\.root out, .*; add data\.root=FOLDER"):
        gald_cli("eval", "--check", "mine")
    capsys.readouterr()
    gald_cli("eval", "--check", "mine", f"data.root={data}")
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("numbers and all labels equal") == 2
    with pytest.raises(ValueError, match=r"data=camvid data\.root=FOLDER"):
        gald_cli("eval", "ckpt_path=mine", f"output_dir={tmp_path / 'a'}")
    words = ("data=camvid", f"data.root={data}", "data.num_workers=0", "split=test")
    gald_cli("eval", "ckpt_path=mine", *words, f"output_dir={tmp_path / 'b'}")
    results = [json.loads((f / "results.json").read_text()) for f in (entry, tmp_path / "b")]
    assert results[0]["test/miou"] == results[1]["test/miou"]
    monkeypatch.chdir(tmp_path)
    gald_cli("compare", "mine", "b", "--to", "compared", "--samples", "100")
    assert "No difference" in (tmp_path / "compared" / "report.md").read_text()


def test_a_run_that_cannot_become_an_entry_is_refused(run, tmp_path, monkeypatch):
    to = tmp_path / "zoo" / "mine"
    with pytest.raises(ValueError, match=r"'my\.net' is no name for the zoo; use letters"):
        make_entry(monkeypatch, run, "--to", tmp_path / "my.net")
    monkeypatch.setattr(zoo_entry, "LARGEST", 1000)
    with pytest.raises(ValueError, match=r"weights of mine have 0\.\d MB, and an entry"):
        make_entry(monkeypatch, run, "--to", to)
    copy = Path(shutil.copytree(run, tmp_path / "copy"))
    results = json.loads((copy / "results.json").read_text())
    (copy / "results.json").write_text(json.dumps(results | {"seconds": None}))
    with pytest.raises(ValueError, match=r"results\.json has no seconds, which the card states"):
        make_entry(monkeypatch, copy, "--to", to)
    results["test/receipt"]["checkpoint_sha256"] = "0"
    (copy / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"results\.json is not of .*best\.ckpt, its SHA-256"):
        make_entry(monkeypatch, copy, "--to", to)
    assert not to.exists()


def test_weights_keep_what_half_precision_would_lose():
    state = {
        "kernel": torch.randn(4, 3, 3, 3),
        "large": torch.full((2, 2), 1e5),
        "tiny": torch.full((2, 2), 1e-7),
        "variance": torch.full((3,), 1e5),
        "count": torch.tensor(7),
    }
    halved = zoo_entry.halve(state)
    assert halved["kernel"].dtype == torch.float16
    assert torch.allclose(halved["kernel"].float(), state["kernel"], rtol=2**-11, atol=1e-7)
    for name in ("large", "tiny", "variance", "count"):
        assert torch.equal(halved[name], state[name]) and halved[name].dtype == state[name].dtype
