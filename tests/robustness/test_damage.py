"""A flipped byte in a file of a run is noticed when it is read, and the good neighbour is named."""

import json
import random
import re
import shutil

import fake
import numpy as np
import pytest
import torch

from gald.data.camvid import CamVid
from gald.data.loading.cache import cached
from gald.metrics.images import ImageCounts
from gald.prediction.predictor import Predictor, load
from gald.run.checkpoint import read_checkpoint
from gald.run.checkpoint_io import save_checkpoint
from gald.run.checksum import find_damage


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A run with two sealed checkpoints; `last.ckpt` can be resumed."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    shutil.copytree(trained("data.size=[32,48]", "data.val_count=2"), folder)
    best = folder / "checkpoints" / "best.ckpt"
    content = torch.load(best, weights_only=True)
    content |= {"epoch": 3, "global_step": 9, "optimizer_states": []}
    for name in ("best.ckpt", "last.ckpt"):
        save_checkpoint(content, best.with_name(name))
    return folder


def flipped(path, count, seed=0):
    """Yield places, with one bit of the byte there flipped."""
    whole, rng = path.read_bytes(), random.Random(seed)
    for place in [*rng.sample(range(len(whole)), count), len(whole) - 1]:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        yield place
    path.write_bytes(whole)


@pytest.mark.integration
def test_a_flipped_byte_anywhere_in_a_checkpoint_is_refused(run):
    path = run / "checkpoints" / "best.ckpt"
    for place in flipped(path, 60):
        with pytest.raises(ValueError, match=r"best\.ckpt cannot be read as a checkpoint"):
            read_checkpoint(path)
        assert find_damage(path), place
    assert torch.load(path, weights_only=True)["epoch"] == 3  # plain torch reads it


@pytest.mark.integration
def test_a_flipped_byte_in_the_config_of_a_saved_network_is_refused(run, tmp_path):
    load(run).save_pretrained(tmp_path / "saved")
    path = tmp_path / "saved" / "config.json"
    whole, kept = json.loads(path.read_text()), read_checkpoint(tmp_path / "saved")
    text = path.read_bytes()
    draw, start = random.Random(0), text.index(b"config_sha256")
    flips = [(place, draw.randrange(8)) for place in draw.sample(range(len(text)), 60)]
    # Without its key, the checksum would look like one of an earlier version.
    flips += [(place, bit) for place in range(start, start + 13) for bit in range(8)]
    for place, bit in flips:
        changed = bytearray(text)
        changed[place] ^= 1 << bit
        path.write_bytes(changed)
        try:
            read = read_checkpoint(tmp_path / "saved")
        except ValueError as error:
            assert "config.json" in str(error)
        else:  # white space
            assert json.loads(changed) == whole and read.config == kept.config
    # Folders of earlier versions have no checksum.
    del whole["config_sha256"]
    path.write_text(json.dumps(whole))
    assert read_checkpoint(tmp_path / "saved").config == kept.config
    whole["palette"][0][0] ^= 1
    path.write_text(json.dumps(whole | {"config_sha256": "0" * 64}))
    with pytest.raises(ValueError, match=r"is damaged: .* remove config_sha256 if you"):
        read_checkpoint(tmp_path / "saved")


def test_a_flipped_byte_of_an_earlier_version_is_refused_or_changes_nothing(run, tmp_path):
    path = tmp_path / "old.ckpt"
    torch.save(torch.load(run / "checkpoints" / "best.ckpt", weights_only=True), path)
    whole, refused = read_checkpoint(path).weights, 0
    for place in flipped(path, 60):
        try:
            weights = read_checkpoint(path).weights
        except ValueError:
            refused += 1
            continue
        assert all(torch.equal(weights[key], whole[key]) for key in whole), place
    assert refused > 50


def test_a_damaged_checkpoint_names_the_whole_one_and_the_command(run, tmp_path, gald_cli):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    last.write_bytes(last.read_bytes()[:-1])
    words = ("train", "seed=1", f"output_dir={folder}", "ckpt_path=last")
    command = f"gald train seed=1 output_dir={folder} ckpt_path={best}"
    with pytest.raises(
        ValueError, match=re.escape(f"{best} is whole, give that, as in: {command}")
    ):
        gald_cli(*words)
    last.unlink()
    (folder / "run.lock").touch()
    with pytest.raises(FileNotFoundError, match=re.escape(f"resume with: {command}")):
        gald_cli(*words)
    with pytest.raises(ValueError, match=re.escape(f"add ckpt_path={best} to resume it")):
        gald_cli(*words[:-1])
    save_checkpoint({}, last)
    next(flipped(best, 1))
    with pytest.raises(ValueError, match=re.escape(f"{last} is whole, give that")):
        gald_cli("eval", f"ckpt_path={best}", f"output_dir={tmp_path / 'eval'}")


def test_a_flipped_byte_in_exported_weights_is_refused(run, tmp_path):
    Predictor.from_pretrained(str(run)).save_pretrained(tmp_path / "net")
    path = tmp_path / "net" / "model.safetensors"
    read_checkpoint(tmp_path / "net")
    for place in flipped(path, 20):
        with pytest.raises(ValueError, match=r"is damaged: its SHA-256|complete safetensors file"):
            read_checkpoint(tmp_path / "net")
        assert place >= 0


def test_a_flipped_byte_in_counts_per_image_is_refused(tmp_path):
    counts = ImageCounts()
    for name in "abc":
        counts.add(name, "confusion", torch.arange(900))
    path = tmp_path / "images_val.npz"
    counts.save(path)
    for place in flipped(path, 60):
        with pytest.raises(ValueError, match=r"images_val\.npz cannot be read as image counts"):
            ImageCounts.load(path)
        assert place >= 0
    assert ImageCounts.load(path).names == ["a", "b", "c"]


def test_a_flipped_byte_in_decoded_images_is_refused_when_it_is_read(tmp_path):
    dataset = CamVid(fake.camvid(tmp_path / "camvid"), "train")
    cached(dataset, "decoded", str(tmp_path / "cache"))
    (folder,) = (path for path in (tmp_path / "cache" / "decoded").iterdir() if path.is_dir())
    for name in ("pixels.u8", "index.json"):
        for place in flipped(folder / name, 15):
            with pytest.raises(ValueError, match=rf"{folder}.*; delete {folder} and repeat"):
                again = cached(dataset, "decoded", str(tmp_path / "cache"))
                [again.pixels(index) for index in range(len(again))]
            assert place >= 0
    again = cached(dataset, "decoded", str(tmp_path / "cache"))
    assert np.array_equal(again.pixels(3).image, dataset.pixels(3).image)


def test_foreign_files_in_the_folder_of_a_run_are_never_removed(tmp_path, gald_cli):
    mine = tmp_path / "checkpoints" / "mine.pth"
    mine.parent.mkdir()
    mine.write_bytes(b"a week of work")
    (tmp_path / "run.lock").touch()
    for more in ([], ["ckpt_path=last"]):
        with pytest.raises((ValueError, FileNotFoundError), match=r"already holds a run|no checkp"):
            gald_cli("train", f"output_dir={tmp_path}", *more)
    assert mine.read_bytes() == b"a week of work"
