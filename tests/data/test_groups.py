"""Groups of images that are not independent, from their paths to the counts of an evaluation."""

import fake
import pytest

from gald.config import compose
from gald.data.camvid import CamVidDataModule
from gald.data.folder import FolderDataModule
from gald.data.groups import groups_of
from gald.metrics.images import ImageCounts

TINY = ("model.backbone.name=test_resnet", "model.channels=16", "data.num_workers=0")
TINY += ("trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=csv", "report=false")
TINY += ("data.train_transform.crop_size=[24,32]", "data.global_batch_size=2")
TINY += ("model.backbone.weights=null", "callbacks.progress=null", "metrics=miou")


def places(root):
    """A folder dataset with the images of val in two places and those of test in one."""
    fake.folder(root)
    for split, name, place in (("val", 0, "b c"), ("val", 1, "a/x"), ("val", 2, "b c")):
        for kind, ending in (("images", "jpg"), ("masks", "png")):
            folder = root / kind / split / place
            folder.mkdir(parents=True, exist_ok=True)
            (root / kind / split / f"{name}.{ending}").rename(folder / f"{name}.{ending}")
    return root


@pytest.mark.parametrize(
    ("name", "path", "group"),
    [
        ("camvid", "train/0016E5_07959.png", "0016E5"),
        ("camvid", "CamVid.zip/val/0001TP_006690.jpg", "0001TP"),
        ("camvid", "test/Seq05VD_f00000.png", "Seq05VD"),
        ("cityscapes", "leftImg8bit/val/lindau/lindau_000000_000019_leftImg8bit.png", "lindau"),
        ("cityscapes", "a.zip/val/bad-honnef/bad-honnef_000000_000000_leftImg8bit.png", None),
    ],
)
def test_default_is_the_video_or_the_city(name, path, group):
    groups = compose("train", [f"data={name}"]).data.groups
    assert groups_of([path], groups) == [group or "bad-honnef"]


@pytest.mark.parametrize("name", ["ade20k", "pascal_context", "coco_stuff", "coco_stuff_164k"])
def test_photographs_of_the_web_have_no_groups(name):
    assert compose("train", [f"data={name}"]).data.groups is None


def test_folder_is_the_path_below_the_images(tmp_path):
    data = FolderDataModule(str(places(tmp_path)), groups="folder")
    assert data.image_groups("val") == {"b c_0": "b c", "a_x_1": "a/x", "b c_2": "b c"}
    by_name = FolderDataModule(str(tmp_path), groups="^([^/ ]+)/").image_groups
    with pytest.raises(ValueError, match=r"does not match 2 of 3 images, first b c/0\.jpg"):
        by_name("val")
    with pytest.raises(ValueError, match=r"2 of 2 images, first 0\.jpg, are in no folder"):
        data.image_groups("test")
    joined = FolderDataModule(str(tmp_path), groups="([^/])")
    dataset = joined.dataset_class(str(tmp_path), "train+val")
    assert [dataset.image_path(i) for i in (0, 6)] == ["0.jpg", "a/x/1.jpg"]


@pytest.mark.parametrize("cache", ["ram", "decoded"])
def test_decoded_images_keep_their_groups(cache, tmp_path):
    options = {"groups": "folder", "cache": cache, "cache_dir": str(tmp_path / "cache")}
    data = FolderDataModule(str(places(tmp_path / "data")), **options)
    assert sorted(set(data.image_groups("val").values())) == ["a/x", "b c"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ("a", "has 0 groups in parentheses and must have 1"),
        ("(a)(b)", "has 2 groups in parentheses and must have 1"),
        ("(a", r"which is no regular expression \(missing \), unterminated"),
        ("(a){99999999999999}", "which is no regular expression"),
        ("", "has 0 groups"),
        ("Folder", "has 0 groups"),
        (12, "is 12, which is not text"),
        (["folder"], "which is not text"),
    ],
)
def test_value_that_names_no_group_is_refused_at_once(groups, message):
    with pytest.raises(ValueError, match=message) as refusal:
        CamVidDataModule("nowhere", groups=groups)
    assert "data.groups=null" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize("groups", ["(x*)", "(x)?", "no(w)here"])
def test_empty_group_is_no_group(groups):
    with pytest.raises(ValueError, match=r"does not match 1 of 2 images, first b/1\.jpg"):
        groups_of(["nowhere/x.jpg" if groups[0] == "n" else "x.jpg", "b/1.jpg"], groups)


def test_group_that_no_screen_shows_is_refused():
    with pytest.raises(ValueError, match=r"a\\x1b\[2J/1.jpg' has the character '\\x1b'"):
        groups_of(["a\x1b[2J/1.jpg"], "folder")


def test_verify_counts_groups_and_names_those_of_two_splits(gald_cli, tmp_path, capsys):
    root = places(tmp_path / "data")
    with pytest.raises(SystemExit) as done:
        gald_cli("data", "verify", "folder", f"data.root={root}", "data.groups='^([^/.]+)[/.]'")
    assert done.value.code == 0
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if "groups" in line and "note" not in line)
    assert [int(word) for word in line.split() if word.isdigit()] == [6, 2, 2]
    assert "note on test: 2 of its 2 groups are in train too, first 0\n" in out
    assert "note on val" not in out
    with pytest.raises(SystemExit) as done:
        gald_cli("data", "verify", "folder", f"data.root={root}", "data.groups=folder")
    assert done.value.code == 1
    assert "problem in test: data.groups is 'folder', but 2 of 2" in capsys.readouterr().out


@pytest.mark.integration
def test_groups_reach_the_counts_of_each_image(gald_cli, tmp_path, capsys):
    root = places(tmp_path / "data")
    words = ["data=folder", f"data.root={root}"]
    train = ["train", *words, *TINY, f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ValueError, match=r"data\.groups is 'folder', but 2 of 2 images, first 0"):
        gald_cli(*train, "data.groups=folder")
    assert not list(tmp_path.rglob("*.ckpt"))
    # the value that the message shows can be pasted: Hydra takes the inner quotes
    gald_cli(*train, 'data.groups="^([^/.]+)[/.]"')
    val, test = (ImageCounts.load(tmp_path / "run" / f"images_{s}.npz") for s in ("val", "test"))
    assert val.names == ["a_x_1", "b c_0", "b c_2"] and val.groups == ("a", "b c", "b c")
    assert test.groups == ("0", "1")
    again = ["eval", f"ckpt_path={tmp_path / 'run'}", "data.num_workers=0"]
    gald_cli(*again, "data.groups=null", f"output_dir={tmp_path / 'without'}")
    assert ImageCounts.load(tmp_path / "without" / "images_val.npz").groups is None
    gald_cli(*again, "data.groups=folder", f"output_dir={tmp_path / 'folder'}")
    groups = ImageCounts.load(tmp_path / "folder" / "images_val.npz").groups
    assert groups == ("a/x", "b c", "b c")
    gald_cli("eval", "--check", str(tmp_path / "folder" / "results.json"))
