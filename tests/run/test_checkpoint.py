"""Reading of checkpoints and saved folders, and refusal of invalid ones."""

import sys

import pytest
import torch

import gald
from gald.run.checkpoint import find_checkpoint, read_checkpoint


@pytest.fixture(scope="module")
def run(trained):
    return trained()


def test_saved_folder_equals_the_checkpoint_it_was_saved_from(run, tmp_path):
    gald.load(run).save_pretrained(tmp_path / "saved")
    original, saved = read_checkpoint(run), read_checkpoint(tmp_path / "saved")
    assert saved.weights.keys() == original.weights.keys()
    for key, value in original.weights.items():
        assert torch.equal(saved.weights[key], value), key
    assert saved.class_names == original.class_names and saved.palette == original.palette
    for part in ("model", "inference"):
        assert saved.config[part] == original.config[part]


def test_saved_folder_is_found_by_folder_and_by_file(run, tmp_path):
    gald.load(run).save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved" / "model.safetensors"
    assert find_checkpoint(tmp_path / "saved") == find_checkpoint(weights) == weights
    assert gald.load(weights).class_names == gald.load(run).class_names


@pytest.mark.parametrize("size", [0, 100, 5000])
def test_truncated_checkpoint_is_named(run, tmp_path, size):
    whole = (run / "checkpoints" / "best.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[:size])
    with pytest.raises(ValueError, match=r"cut\.ckpt cannot be read as a checkpoint") as caught:
        gald.load(tmp_path / "cut.ckpt")
    assert "\n" not in str(caught.value)


def test_pickled_code_is_not_run(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return sys.setrecursionlimit, (123456,)

    torch.save({"gald": {}, "state_dict": Evil()}, tmp_path / "evil.ckpt")
    before = sys.getrecursionlimit()
    with pytest.raises(ValueError, match=r"evil\.ckpt cannot be read as a checkpoint"):
        gald.load(tmp_path / "evil.ckpt")
    assert sys.getrecursionlimit() == before


def test_checkpoint_of_another_program_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt was not written by gald train"):
        gald.load(tmp_path / "other.ckpt")


def test_checkpoint_with_another_number_of_classes_is_refused(run, tmp_path):
    content = read_checkpoint(run).content
    content["gald"]["class_names"].append("more")
    content["gald"]["palette"].append([1, 2, 3])
    torch.save(content, tmp_path / "more.ckpt")
    with pytest.raises(ValueError, match=r"more\.ckpt has \(10.* where this network has \(11"):
        gald.load(tmp_path / "more.ckpt")


@pytest.mark.parametrize("path", ["nowhere.ckpt", "a/b/c"])
def test_missing_checkpoint_lists_what_can_be_given(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"give a \.ckpt file, a run folder, a folder written by"
    ):
        gald.load(path)
