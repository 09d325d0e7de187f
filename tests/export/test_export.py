"""Every export format, written from a tiny network and read back without gald."""

import json
import resource
import sys
from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import CLASSES, PALETTE, make

import gald
from gald import cli
from gald.config import CONF_DIR
from gald.export import export, parity
from gald.export.export import export as export_network
from gald.export.graph import FullImageNetwork
from gald.model.layers import pool_by_matrices

NET = ["model/ga=none", "model/ld=mask"]
EVERY = [("ga", path.stem) for path in sorted((CONF_DIR / "model" / "ga").glob("*.yaml"))]
EVERY += [("ld", path.stem) for path in sorted((CONF_DIR / "model" / "ld").glob("*.yaml"))]
# An oracle reads the ground truth, which an exported network does not have.
EVERY = [(slot, name) for slot, name in EVERY if "oracle" not in name]
EVERY += [("head", path.stem) for path in sorted((CONF_DIR / "model" / "head").glob("*.yaml"))]
NEED_A_SIZE = ("isa", "guided")  # in ONNX, see the docstring of export


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    return make(tmp_path_factory.mktemp("network") / "net", *NET)


@pytest.fixture
def export_cli(monkeypatch):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["gald", "export", *map(str, arguments)])
        cli.main()

    return call


@pytest.fixture
def scores_drift(monkeypatch):
    """Makes every call return slightly higher scores than the one before."""
    forward, calls = FullImageNetwork.forward, []

    def drift(self, image):
        calls.append(image)
        scores, labels = forward(self, image)
        return scores * (1 + 0.001 * len(calls)), labels

    monkeypatch.setattr(FullImageNetwork, "forward", drift)


@pytest.fixture
def file_limit():
    """Limits the size of every file, to simulate a full disk."""

    @contextmanager
    def limit(size):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limit


def noise(*shape):
    return torch.randint(
        0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
    )


def expected(network, image):
    with torch.no_grad():
        return gald.load(network)(image)


@pytest.mark.parametrize("size", [(5, 9), (13, 7), (3, 4), (1, 1)])
@pytest.mark.parametrize("cells", [(1, 1), (3, 4), (6, 6)])
def test_pool_is_torchs_adaptive_pooling(size, cells):
    x = torch.rand(2, 3, *size)
    torch.testing.assert_close(pool_by_matrices(x, cells), F.adaptive_avg_pool2d(x, cells))


@pytest.mark.slow
def test_onnx_reproduces_the_scores_at_any_size_and_contains_the_classes(
    network, tmp_path, export_cli, capsys
):
    onnxruntime = pytest.importorskip("onnxruntime")
    target = tmp_path / "deep" / "net.onnx"
    export_cli(network, "--to", target, "--format", "onnx")
    assert "onnx, 3 classes, images of any size" in capsys.readouterr().out
    assert [path.name for path in target.parent.iterdir()] == ["net.onnx"]

    session = onnxruntime.InferenceSession(target)
    shapes = {value.name: value.shape for value in session.get_inputs() + session.get_outputs()}
    assert shapes["image"] == ["batch", 3, "height", "width"]
    assert shapes["scores"] == ["batch", 3, "height", "width"]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["class_names"]) == list(CLASSES)
    assert json.loads(about["palette"]) == [list(colour) for colour in PALETTE]
    assert json.loads(about["normalisation"])["mean"] == [0.5, 0.5, 0.5]
    for shape in ((1, 3, 77, 131), (3, 3, 50, 64)):
        image = noise(*shape)
        scores, labels = session.run(None, {"image": image.numpy()})
        reference = expected(network, image).numpy()
        assert abs(scores - reference).max() <= 1e-4 * abs(reference).max()
        assert labels.dtype == np.uint8
        assert (labels == scores.argmax(1)).all()


@pytest.mark.slow
def test_torch_program_reproduces_the_scores_and_contains_the_classes(network, tmp_path):
    target = tmp_path / "net.pt2"
    assert "images of any size" in export_network(network, target, "torch")
    about = {"gald.json": ""}
    program = torch.export.load(target, extra_files=about).module()
    assert json.loads(about["gald.json"])["class_names"] == list(CLASSES)
    assert json.loads(about["gald.json"])["palette"] == [list(colour) for colour in PALETTE]
    image = noise(1, 3, 155, 201)
    scores, labels = program(image)
    reference = expected(network, image)
    torch.testing.assert_close(scores, reference, rtol=0, atol=1e-4 * float(reference.abs().max()))
    assert torch.equal(labels, scores.argmax(1).to(torch.uint8))


def test_pretrained_folder_is_the_same_network(network, tmp_path):
    target = tmp_path / "copy"
    assert "differ by at most 0e+00" in export_network(network, target, "pretrained")
    again = gald.load(target)
    assert again.class_names == CLASSES
    assert again.palette == PALETTE
    image = noise(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(again(image), expected(network, image))


@pytest.mark.slow
def test_module_without_dynamic_size_names_a_remedy_that_works(tmp_path):
    network = make(tmp_path / "net", "model/ga=isa", "model/ld=none")
    target = tmp_path / "net.pt2"
    with pytest.raises(ValueError, match=r"\(ga ISA, .*any size.*; fix the image size: --size 512"):
        export_network(network, target, "torch")
    assert not target.exists()
    assert "images of 72x104 only" in export_network(network, target, "torch", (72, 104))
    program = torch.export.load(target).module()
    image = noise(3, 3, 72, 104)
    torch.testing.assert_close(program(image)[0], expected(network, image))


def test_an_export_with_other_scores_is_not_kept(network, tmp_path, scores_drift):
    with pytest.raises(ValueError, match=r"pretrained .*: scores differ by .* of the largest"):
        export_network(network, tmp_path / "out", "pretrained")
    assert not list(tmp_path.iterdir())


def test_comparison_detects_wrong_labels_shapes_and_nan(network):
    original = FullImageNetwork(gald.load(network).model)
    shapes = [(1, 40, 50)]
    assert parity.compare(original, original, shapes) == 0
    with pytest.raises(ValueError, match="batch 1 of 40x50 px: labels are not the classes"):
        parity.compare(lambda x: (original(x)[0], original(x)[1] + 1), original, shapes)
    with pytest.raises(ValueError, match=r"scores \(1, 3, 40, 49\), not \(1, 3, 40, 50\)"):
        parity.compare(lambda x: (original(x)[0][..., 1:], original(x)[1]), original, shapes)
    with pytest.raises(ValueError, match="differ by nan"):
        parity.compare(lambda x: (original(x)[0] * np.nan, original(x)[1]), original, shapes)
    with pytest.raises(ValueError, match="KeyError: 'gone'"):
        parity.compare(lambda x: {}["gone"], original, shapes)


@pytest.mark.integration
@pytest.mark.parametrize(
    "format", ["pretrained", "torch", pytest.param("onnx", marks=pytest.mark.slow)]
)
def test_a_full_disk_leaves_nothing(network, tmp_path, format, file_limit):
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    with (
        file_limit(100_000),
        pytest.raises(OSError, match=r"cannot write .*out.* .*nothing was left there; .*"),
    ):
        export_network(
            network,
            tmp_path / f"out{export.SUFFIXES.get(format, '')}",
            format,
            None if format == "pretrained" else (64, 64),
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "onnx"], "gald export: it needs --to"),
        (["--to", "x", "--format", "coreml"], 'Invalid value "coreml" for --format'),
        (["--to", "x", "--format", "torch", "--opset", "18"], "--opset applies to onnx only"),
        (["--to", "x", "--format", "pretrained", "--size", "9", "9"], "takes any size"),
        (["--to", "there", "--format", "onnx"], "there already exists; choose another name"),
    ],
)
def test_invalid_arguments_are_one_sentence(
    network, tmp_path, monkeypatch, export_cli, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        export_cli(network, *arguments)
    assert stop.value.code == 1
    first = capsys.readouterr().err.splitlines()[0]
    assert first.startswith("gald: ") and message in first
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.slow
def test_an_opset_that_torch_does_not_write_is_refused(network, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ValueError, match="--opset 9 is not written by torch, which writes 18 to"):
        export_network(network, tmp_path / "x", "onnx", (64, 64), opset=9)


@pytest.mark.slow
@pytest.mark.parametrize(("slot", "name"), EVERY)
def test_every_module_exports_to_onnx_for_any_size_or_a_fixed_one(slot, name, tmp_path):
    pytest.importorskip("onnxruntime")
    other = "ld" if slot == "ga" else "ga"
    network = make(tmp_path / "net", f"model/{slot}={name}", f"model/{other}=none")
    if name in NEED_A_SIZE:
        with pytest.raises(ValueError, match="fix the image size"):
            export_network(network, tmp_path / "net.onnx", "onnx")
        assert "136x168 only" in export_network(network, tmp_path / "net.onnx", "onnx", (136, 168))
    else:
        assert "any size" in export_network(network, tmp_path / "net.onnx", "onnx")
