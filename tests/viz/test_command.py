"""`gald viz`: figures and maps of any run, complete or not at all."""

import hashlib
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import gald
from gald import cli
from gald.viz.command import checkpoints

FIGURES = {"prediction.png", "attention.png", "features.png"}
OF_LD = {"ld_map.png", "ld_groups.png", "ld_classes.png"}


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "street.png"
    pixels = np.random.default_rng(0).integers(0, 256, (45, 67, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def viz(monkeypatch, capsys):
    """Calls the verb; returns the exit code and the printed text."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gald", "viz", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out + printed.err

    return call


def read(folder):
    with np.load(folder / "maps.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


@pytest.mark.integration
def test_one_run_gives_figures_and_maps_with_their_provenance(trained, street, viz, tmp_path):
    run = trained("model/ga=psp", "model/ld=mask")
    code, text = viz(
        run, "--image", street, "--query", 66, 44, "--query", 3, 5, "--to", tmp_path / "out"
    )
    assert code == 0, text
    assert "PSP, Mask, " in text and "% of pixels change without Mask" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"maps.npz", *FIGURES, *OF_LD}
    maps = read(tmp_path / "out")
    network = gald.load(run)
    with torch.no_grad(), gald.record(network) as recorded:
        network.model.logits(torch.from_numpy(np.array(Image.open(street))).permute(2, 0, 1)[None])
    for name, feature_map in recorded.items():
        np.testing.assert_allclose(maps[name], feature_map.values[0], rtol=1e-4, atol=1e-6)
    prediction = network.predict(street)
    assert np.array_equal(maps["labels"], prediction.labels)
    np.testing.assert_allclose(maps["ld_map"], prediction.ld_map, rtol=1e-4)
    assert maps["queries"].tolist() == [[66, 44], [3, 5]]
    np.testing.assert_allclose(
        maps["attention"][0], recorded.attention(5, 8).values[0, 0], rtol=1e-3, atol=1e-6
    )
    about = json.loads(str(maps["about"]))
    checkpoint = run / "checkpoints" / "best.ckpt"
    assert about["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert about["image_sha256"] == hashlib.sha256(street.read_bytes()).hexdigest()
    assert about["maps"]["ld/map"]["meaning"].startswith("the mask M of out = context * (1 + M)")
    assert about["maps"]["ld/map"]["stride"] == 8 and about["commit"] is not None
    assert about["model"]["ld"]["_target_"].endswith("Mask")
    assert str(tmp_path) not in str(maps["about"])


@pytest.mark.slow
def test_several_runs_are_drawn_side_by_side(trained, street, viz, tmp_path):
    runs = [trained("model/ga=gc", f"model/ld={ld}") for ld in ("none", "window", "se")]
    code, text = viz(*runs, "--image", street, "--to", tmp_path / "out")
    assert code == 0, text
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"runs.png", "1_run", "2_run", "3_run"}
    assert {path.name for path in (out / "1_run").iterdir()} == {"maps.npz", *FIGURES}
    assert {path.name for path in (out / "3_run").iterdir()} == {"maps.npz", *FIGURES, *OF_LD}
    queries = [read(out / name)["queries"].tolist() for name in ("1_run", "2_run", "3_run")]
    assert queries[0] == queries[1] == queries[2]
    assert "labels_without_ld" not in read(out / "1_run")


@pytest.mark.integration
def test_checkpoints_of_a_run_are_shown_in_order_of_training(trained, street, viz, tmp_path):
    run = trained("model/ga=none", "model/ld=gate")
    folder = run / "checkpoints"
    content = torch.load(folder / "best.ckpt", weights_only=True)
    for step, name in [(8, "a"), (3, "b"), (8, "c"), *((20 + i, f"x{i}") for i in range(9))]:
        torch.save(content | {"global_step": step}, folder / f"{name}.ckpt")
    kept, left_out = checkpoints(run)
    assert next(iter(kept)) == "b, step 3" and list(kept)[-1] == "x8, step 28"
    assert len(kept) == 6 and left_out == 5  # of 11 steps; step 8 has two checkpoints
    for path in folder.glob("x*"):
        path.unlink()
    assert list(checkpoints(run)[0]) == ["b, step 3", "a, step 8"]
    code, text = viz(run, "--image", street, "--to", tmp_path / "out")
    assert code == 0, text
    assert (tmp_path / "out" / "checkpoints.png").is_file()


def test_default_folder_is_named_after_the_image(trained, street, viz, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = trained("model/ga=none", "model/ld=none")
    assert viz(run, "--image", street)[0] == 0
    assert (tmp_path / "runs" / "viz" / "street" / "maps.npz").is_file()
    before = (tmp_path / "runs" / "viz" / "street" / "maps.npz").read_bytes()
    code, text = viz(run, "--image", street)
    assert code == 1 and "street already holds something; choose another folder with --to" in text
    assert (tmp_path / "runs" / "viz" / "street" / "maps.npz").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--image", "nowhere.png"], "Parameter --image specified multiple times"),
        (["--query", "67", "0"], "query 67 0 is outside of the image of 67x45 px"),
        (["--query", "1"], "--query requires 2 positional arguments"),
        (["--device", "tpu"], "device is 'tpu'"),
    ],
)
def test_invalid_arguments_leave_no_folder(viz, street, tmp_path, arguments, message):
    code, text = viz("run", "--image", street, *arguments, "--to", tmp_path / "out")
    assert code == 1 and message in text
    assert not list(tmp_path.iterdir())


def test_missing_run_is_an_error_before_any_work(trained, street, viz, tmp_path):
    run = trained("model/ga=none")
    code, text = viz(run, tmp_path / "no_run", "--image", street, "--to", tmp_path / "out" / "a")
    assert code == 1 and "no checkpoint at" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.integration
def test_runs_with_other_classes_are_refused(trained, street, viz, tmp_path):
    run, other = trained("model/ga=none"), trained("model/ga=none", "seed=1")
    path = other / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["gald"]["class_names"][0] = "heaven"
    torch.save(content, path)
    code, text = viz(run, other, "--image", street, "--to", tmp_path / "out")
    assert code == 1 and "have different classes" in text and "same data" in text
    assert not list(tmp_path.iterdir())  # not even the figures of the first run
