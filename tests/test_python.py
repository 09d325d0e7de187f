"""`gald` from Python: train, build networks and context modules by the names of their options."""

import sys

import pytest
import torch

import gald

TINY = [
    *("data.size=[48,64]", "data.train_transform.crop_size=[48,64]", "data.train_count=8"),
    *("data.val_count=2", "data.test_count=2", "data.num_workers=0", "model.channels=16"),
    *("model.backbone.name=test_resnet", "trainer.accelerator=cpu", "metrics=miou"),
]


@pytest.mark.integration
def test_train_returns_the_results_and_says_where_the_run_is(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["a script", "of=mine"])
    results = gald.train(
        "debug=limit", "model/ga=psp", "tags=[a,b]", f"output_dir={tmp_path}/r", *TINY
    )
    assert results["run_folder"] == f"{tmp_path}/r"
    assert results["command"].startswith("gald train debug=limit model/ga=psp 'tags=[a,b]'")
    assert results["tags"] == ["a", "b"]
    assert 0 <= results["test/miou"] <= 1
    assert sys.argv == ["a script", "of=mine"]
    assert gald.load(tmp_path / "r").class_names[0] == "sky"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ga=psp"], r"did you mean model/ga=psp\?"),
        (["optimizer.lr=abc"], "optimizer.lr=abc"),
        (["trainer=ddp_cpu"], "gald.train trains in this process, on one device; for several run"),
    ],
)
def test_wrong_words_are_refused_as_on_the_command_line(words, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        gald.train(*words, f"output_dir={tmp_path}/r", *TINY)
    assert not list(tmp_path.iterdir())


def test_networks_are_built_by_the_names_of_their_options():
    model = gald.segmentor(5, "model.channels=16", backbone="test_resnet", ga="psp", ld="affinity")
    image = torch.rand(2, 3, 64, 96)
    assert model(image).logits.shape == (2, 5, 8, 12)
    assert type(model.ga).__name__ == "PSP" and type(model.ld).__name__ == "Affinity"
    with pytest.raises(
        ValueError, match="model/ld has no option 'maks'; did you mean model/ld=mask"
    ):
        gald.segmentor(5, backbone="test_resnet", ld="maks")


def test_context_modules_keep_the_shape_and_take_other_arguments():
    x = torch.rand(2, 16, 7, 9)
    ga = gald.ga("psp", channels=16, bins=[1, 2])
    assert ga(x).shape == x.shape
    ld = gald.ld("affinity", channels=16)
    assert ld(ga(x), x).shape == x.shape
    assert 0 <= ld.distribution_map(ga(x), x).min() <= ld.distribution_map(ga(x), x).max() <= 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gald.ga("pps", 16), "model/ga has no option 'pps'; did you mean model/ga=psp"),
        (lambda: gald.ga("psp", 16, binz=3), "ga=psp has no argument binz; it has bins"),
        (lambda: gald.ld("lowlevel", 16), "ld=lowlevel also reads maps of the backbone"),
    ],
)
def test_wrong_names_of_modules_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
