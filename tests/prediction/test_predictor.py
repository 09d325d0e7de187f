"""A trained network in three lines: `gald.load(run).predict(image)`."""

import errno
import json
import os

import numpy as np
import pytest
import torch
from omegaconf import MissingMandatoryValue, OmegaConf
from PIL import Image

import gald
from gald.prediction import predictor as module
from gald.prediction.image import to_tensor
from gald.run.checkpoint import read_checkpoint


@pytest.fixture(scope="module")
def run(trained):
    return trained()


@pytest.fixture(scope="module")
def network(run):
    return gald.load(run)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (45, 67, 3), dtype=np.uint8)


@pytest.fixture
def saved(network, tmp_path):
    network.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def test_an_image_is_predicted_in_three_lines(run, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "street.png")
    prediction = gald.load(run).predict(tmp_path / "street.png")
    assert prediction.labels.shape == (45, 67) and prediction.labels.dtype == np.uint8
    assert prediction.labels.max() < 10
    assert prediction.confidence.dtype == np.float32 and prediction.confidence.shape == (45, 67)
    assert 0.1 <= prediction.confidence.min() <= prediction.confidence.max() <= 1  # of 10 classes
    assert prediction.ld_map.shape == (45, 67)
    assert np.array_equal(prediction.image, image)


def test_labels_and_confidence_are_those_of_the_scores(network, image):
    prediction = network.predict(image)
    with torch.no_grad():
        scores = network(torch.from_numpy(image).permute(2, 0, 1)[None])
    probability, labels = scores.softmax(1).max(1)
    assert np.array_equal(prediction.labels, labels[0])
    np.testing.assert_allclose(prediction.confidence, probability[0], rtol=1e-4)


def test_a_network_in_channels_last_survives_saving_and_loading(trained, image, tmp_path):
    network = gald.load(trained("model.channels_last=true"))
    network.save_pretrained(tmp_path / "saved")
    again = gald.load(tmp_path / "saved")
    stem = next(again.model.backbone.net.parameters())
    assert stem.is_contiguous(memory_format=torch.channels_last) and not stem.is_contiguous()
    assert np.array_equal(again.predict(image).labels, network.predict(image).labels)


def test_ld_map_matches_the_function_for_panels(network, image):
    from gald.inference.ld_map import ld_map

    expected = ld_map(network.model, torch.from_numpy(image).permute(2, 0, 1), network.inference)
    np.testing.assert_allclose(network.predict(image).ld_map, expected, rtol=1e-4, atol=1e-6)


def test_parts_that_are_not_requested_are_none(network, image):
    prediction = network.predict(image, confidence=False, ld_map=False)
    assert prediction.confidence is None and prediction.ld_map is None


def test_network_without_distribution_has_no_map(trained, image):
    assert gald.load(trained("model/ld=none")).predict(image).ld_map is None


def test_palette_image_and_overlay_show_the_labels(network, image):
    prediction = network.predict(image)
    painted = prediction.palette_image()
    assert painted.mode == "P" and np.array_equal(np.asarray(painted), prediction.labels)
    colours = np.array(network.palette, np.uint8)[prediction.labels]
    assert np.array_equal(np.asarray(painted.convert("RGB")), colours)
    assert np.array_equal(np.asarray(prediction.overlay(alpha=0.0)), image)
    assert np.array_equal(np.asarray(prediction.overlay(alpha=1.0)), colours)
    blend = 0.25 * colours + 0.75 * image.astype(float)
    assert np.abs(np.asarray(prediction.overlay(alpha=0.25)) - blend).max() <= 1


def test_shares_count_pixels_by_class_name(network, image):
    prediction = network.predict(image)
    shares = prediction.shares()
    assert tuple(shares) == network.class_names
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["water"] == pytest.approx((prediction.labels == 5).mean())


def test_every_kind_of_image_gives_the_same_pixels(image, tmp_path):
    expected = torch.from_numpy(image).permute(2, 0, 1)
    alpha = np.full((45, 67, 1), 7, np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    images = [
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        Image.fromarray(image),
        image,
        np.concatenate([image, alpha], axis=2),
        Image.fromarray(np.concatenate([image, alpha], axis=2)),
        expected,
        expected[None],
        expected / 255,
        (expected / 255).half(),
    ]
    for given in images:
        assert torch.equal(to_tensor(given), expected)


def test_grey_images_become_three_equal_channels(image, tmp_path):
    grey = image[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    images = [tmp_path / "grey.png", Image.fromarray(grey), grey, grey[..., None]]
    for given in [*images, torch.from_numpy(grey)[None]]:
        assert torch.equal(to_tensor(given), torch.from_numpy(grey).expand(3, -1, -1))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_photos_are_turned_upright_as_a_viewer_shows_them(orientation, suffix, tmp_path):
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:10, :30] = 200
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    options = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(stored).save(path, exif=exif, **options)
    shown = {3: stored[::-1, ::-1], 6: np.rot90(stored, -1), 8: np.rot90(stored)}[orientation]
    with Image.open(path) as opened:
        tensors = [to_tensor(path), to_tensor(opened)]
    for tensor in tensors:
        difference = tensor.permute(1, 2, 0).numpy().astype(int) - shown
        assert tensor.shape == (3, *shown.shape[:2]) and abs(difference).max() < 40


def test_a_16_bit_image_is_refused(tmp_path):
    for name in ("a.png", "a.tif"):
        Image.fromarray(np.full((8, 8), 4000, np.uint16)).save(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} stores 16 bits per value, .*convert it"):
            to_tensor(tmp_path / name)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("nowhere.png", r"there is no image nowhere\.png; correct the path"),
        (np.zeros((4, 4, 3)), r"array of float64; give uint8"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\); give one image of shape \(H, W, 3\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\); give one image"),
        (np.zeros((0, 4, 3), np.uint8), r"shape \(0, 4, 3\); give one image"),
        (torch.zeros(2, 3, 4, 4), r"shape \(2, 3, 4, 4\); give one image of shape \(3, H, W\)"),
        (torch.full((3, 4, 4), 200.0), r"values from 200 to 200; give floats in \[0, 1\]"),
        (torch.full((3, 4, 4), torch.nan), r"values from nan to nan"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), r"tensor of torch\.int64; give uint8"),
        (Image.new("I;16", (4, 4)), r"mode I;16; give one with 8 bits"),
    ],
)
def test_unsupported_images_are_refused(image, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        to_tensor(image)


def test_damaged_image_is_named(network, image, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8 no image")
    with pytest.raises(ValueError, match=r"cut\.jpg"):
        network.predict(tmp_path / "cut.jpg")


def test_saved_folder_gives_the_same_network(network, saved, image):
    assert {path.name for path in saved.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
    }
    again = module.Predictor.from_pretrained(saved)
    assert again.config["model"] == network.config["model"] and again.palette == network.palette
    assert again.class_names == network.class_names and not again.training
    assert np.array_equal(again.predict(image).labels, network.predict(image).labels)
    assert np.array_equal(gald.load(saved).predict(image).ld_map, network.predict(image).ld_map)


def test_saved_folder_initialises_another_network(network, saved):
    from gald.run.checkpoint import load_weights

    other = module.Predictor(network.config, network.class_names, network.palette).model
    load_weights(other, read_checkpoint(saved))
    key = "reduce.conv.weight"
    assert torch.equal(other.state_dict()[key], network.model.state_dict()[key])


def test_card_names_classes_and_modules_and_leaves_the_licence_open(saved):
    card = (saved / "README.md").read_text()
    assert "| 5 | water | (30, 95, 165) |" in card
    assert "- ga: CGNL" in card and "- inference: FullImage" in card
    assert "library_name: gald" in card and "\nlicense:" not in card


def test_full_disk_leaves_no_partial_folder(network, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(OSError, match=r"saved \(No space left on device\); free some space and"):
        network.save_pretrained(tmp_path / "saved")
    assert not list(tmp_path.iterdir())


def test_folder_with_files_is_not_overwritten(network, saved):
    before = (saved / "config.json").read_bytes()
    with pytest.raises(ValueError, match=r"saved already holds something; choose another folder"):
        network.save_pretrained(saved)
    assert (saved / "config.json").read_bytes() == before


def test_publishing_uploads_the_saved_folder(network, monkeypatch):
    from huggingface_hub import HfApi

    uploaded = set()

    def upload_folder(self, *, folder_path, **_):
        uploaded.update(path.name for path in folder_path.iterdir())
        return "url"

    def create_repo(self, repo_id, **_):
        return type("Url", (), {"repo_id": repo_id})

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert network.push_to_hub("owner/name") == "url"
    assert uploaded == {"README.md", "config.json", "model.safetensors"}


def test_network_on_the_hub_is_fetched_without_any_pickle(saved, monkeypatch, image):
    import huggingface_hub

    requested = {}

    def snapshot_download(name, allow_patterns):
        requested[name] = allow_patterns
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert gald.load("owner/name").predict(image).labels.shape == (45, 67)
    assert requested == {"owner/name": ["config.json", "model.safetensors"]}


def test_without_network_the_hub_error_is_one_sentence(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=r"^there is no run or checkpoint at owner/name, and "
    ):
        gald.load("owner/name")


def rewrite(saved, change):
    about = json.loads((saved / "config.json").read_text())
    del about["config_sha256"]  # whoever means harm can do that too
    change(about)
    (saved / "config.json").write_text(json.dumps(about))


@pytest.mark.parametrize("key", ["config", "class_names", "palette"])
def test_config_without_a_key_names_it(saved, key):
    rewrite(saved, lambda about: about.pop(key))
    with pytest.raises(ValueError, match=rf"config\.json has no key {key}; copy the folder"):
        gald.load(saved)


@pytest.mark.parametrize("part", ["model", "inference"])
def test_config_without_a_part_names_it(saved, part):
    rewrite(saved, lambda about: about["config"].pop(part))
    with pytest.raises(ValueError, match=rf"config(\.json)? has no (key config\.)?{part}"):
        gald.load(saved)


def change_ga(**keys):
    return lambda about: about["config"]["model"]["ga"].update(keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change_ga(no_such_key=1), r"model\.ga: .*no_such_key.*; use the version of gald"),
        (lambda about: about["config"]["model"].pop("head"), r"head.*; use the version of gald"),
        (
            lambda about: about["config"]["model"].pop("backbone"),
            r"config\.json has no key config\.model\.backbone",
        ),
    ],
)
def test_config_of_another_version_is_refused_in_one_sentence(saved, change, message):
    rewrite(saved, change)
    with pytest.raises(ValueError, match=message) as caught:
        gald.load(saved)
    assert "\n" not in str(caught.value)


def test_weights_of_another_number_of_classes_are_refused(saved):
    rewrite(saved, lambda about: (about["class_names"].pop(), about["palette"].pop()))
    with pytest.raises(ValueError, match=r"has \(10.*\) where this network has \(9.*\) for aux"):
        gald.load(saved)


def test_palette_that_does_not_fit_the_classes_is_refused(saved):
    rewrite(saved, lambda about: about["palette"].pop())
    with pytest.raises(ValueError, match=r"10 class names and 9 colours"):
        gald.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_truncated_file_is_named(saved, name):
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name}.*; copy"):
        gald.load(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_missing_file_is_named(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"no .*{name}|no checkpoint at"):
        gald.load(saved)


@pytest.mark.parametrize(
    "target",
    ["os.system", "gald.cli.os.system", "gald.cli.fail", "torch.load", "torch.hub.load", "nowhere"],
)
def test_a_checkpoint_cannot_call_code_that_is_not_gald(saved, target):
    rewrite(saved, lambda about: about["config"]["model"]["ga"].update(_target_=target))
    with pytest.raises(ValueError, match=rf"config\.json would call {target} as model\.ga, and"):
        gald.load(saved)


def test_own_code_can_be_trusted(saved, monkeypatch, tmp_path):
    own = "import torch\n\nclass Same(torch.nn.Identity):\n    pass\n"
    (tmp_path / "my_package_of_modules.py").write_text(own)
    monkeypatch.syspath_prepend(str(tmp_path))
    ga = {"_target_": "my_package_of_modules.Same"}
    rewrite(saved, lambda about: about["config"]["model"].update(ga=ga))
    with pytest.raises(ValueError, match=r"would call my_package_of_modules\.Same"):
        gald.load(saved)
    with pytest.raises(ValueError, match=r"has .* where this network has nothing for ga\."):
        # the module is built, but the weights are those of another one
        gald.load(saved, trust=["other", "my_package_of_modules"])


def test_run_folder_prefers_its_best_checkpoint(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    content = read_checkpoint(run).content
    torch.save(content, tmp_path / "checkpoints" / "last.ckpt")
    assert gald.load(tmp_path).class_names[0] == "sky"
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match=r"best\.ckpt cannot be read as a checkpoint"):
        gald.load(tmp_path)


def test_saved_config_contains_no_local_path(trained, tmp_path):
    run = trained("data=camvid", f"data.root={tmp_path}/secret")
    gald.load(run).save_pretrained(tmp_path / "saved")
    assert "secret" not in (tmp_path / "saved" / "config.json").read_text()
    again = gald.load(tmp_path / "saved")
    with pytest.raises(MissingMandatoryValue):
        OmegaConf.create(again.config).data.root  # noqa: B018
