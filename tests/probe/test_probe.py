"""`gald probe`: cells on frozen features are runs, and the same command gives the same numbers."""

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch.nn import functional as F

import gald
from gald import cli
from gald.config import compose
from gald.data.synthetic import SyntheticDataModule
from gald.inference import LabelMap
from gald.metrics.confusion import ConfusionMatrix
from gald.metrics.images import ImageCounts
from gald.model.truth import boundaries
from gald.probe.batches import Batches
from gald.probe.bench import Bench
from gald.probe.cell import build_network, run_cell, truth_of
from gald.probe.features import Features, resized
from gald.probe.scoring import score
from gald.run.building import build_own
from gald.sweep.cells import Sweep

WORDS = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_count=6",
    "data.val_count=3",
    "data.test_count=3",
    "probe.size=[32,64]",
    "probe.steps=3",
    "probe.batch_size=4",
    "model.backbone.name=test_resnet",
    "model.backbone.output_stride=null",
    "model.channels=16",
    "model/head=fcn",
    "metrics=miou",
    "device=cpu",
]


def config(*words):
    cfg = compose("probe", [*WORDS, *words])
    OmegaConf.set_struct(cfg, False)
    OmegaConf.resolve(cfg)
    return cfg


@pytest.fixture(scope="module")
def bench():
    return Bench(torch.device("cpu"))


GRID = ["model/ga=psp_bare", "model/ld=none,const", "seed=0,1"]


@pytest.mark.slow
def test_the_console_script_probes_from_another_folder_and_ends_in_a_table(console, tmp_path):
    cache = {"GALD_CACHE": str(tmp_path / "cache")}
    done = console("probe", "-m", *WORDS, *GRID, "name=mine", cwd=tmp_path, **cache)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 cells done" in done.stdout and "ld=const" in done.stdout.partition("Arms")[2]
    again = console("probe", "-m", *WORDS, *GRID, "name=mine", cwd=tmp_path, **cache)
    assert again.returncode == 0 and "computing" not in again.stderr
    wrong = console("probe", "modell/ga=psp", cwd=tmp_path)
    assert wrong.returncode == 1 and "model/ga=psp" in wrong.stderr


@pytest.mark.slow
def test_two_processes_share_the_cells_and_both_end_well(console, tmp_path):
    words = ["probe", "-m", *WORDS, "probe.steps=40", "seed=range(8)", "name=shared"]
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(console, *words, cwd=tmp_path) for _ in range(2)]
        done = [one.result() for one in both]
    assert [one.returncode for one in done] == [0, 0], [one.stderr for one in done]
    starts = [json.loads(f.read_text())["attempts"] for f in tmp_path.rglob("cell.json")]
    assert starts == [1] * 8


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the folder of a probe of four cells."""
    folder = tmp_path_factory.mktemp("swept") / "sweep"
    words = ["gald", "probe", "-m", *WORDS, *GRID, f"hydra.sweep.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", words)
        patch.setattr(sys.modules["__main__"], "__spec__", None)
        patch.setenv("PYTHONSAFEPATH", "")
        cli.main()
    return folder


def test_a_sweep_ends_in_runs_that_table_and_compare_read(gald_cli, swept, capsys):
    runs = sorted(path.parent for path in swept.glob("*/results.json"))
    assert len(runs) == 4
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        assert results["steps"] == 3 and results["test/receipt"]["features"].startswith("synthetic")
        assert len(ImageCounts.load(run / "images_test.npz").names) == 3
    gald_cli("table", str(swept), "--split", "test", "--samples", "100")
    assert "const" in capsys.readouterr().out
    gald_cli("table", str(swept), "--split", "val", "--samples", "100")
    assert "chose the checkpoints" not in "".join(capsys.readouterr())  # it keeps its last step
    gald_cli("compare", str(runs[0]), str(runs[2]), "--split", "test", "--samples", "100")
    gald_cli("report", str(runs[0]))


def test_the_same_command_keeps_done_cells_and_a_lost_one_gets_the_same_numbers(
    gald_cli, swept, capsys
):
    lost, kept = sorted(path.parent for path in swept.glob("*/results.json"))[:2]
    before = json.loads((lost / "results.json").read_text())
    untouched = (kept / "results.json").stat().st_mtime_ns
    (lost / "results.json").unlink()
    gald_cli("probe", "-m", *WORDS, *GRID, f"hydra.sweep.dir={swept}")
    after = json.loads((lost / "results.json").read_text())
    assert (kept / "results.json").stat().st_mtime_ns == untouched
    assert before.pop("seconds") and after.pop("seconds")
    assert after == before | {"command": after["command"]}


def test_a_failed_cell_does_not_stop_the_others(gald_cli, tmp_path, capsys):
    words = ["model/ga=psp_bare", "model/ld=affinity", "model.ld.groups=7,8"]
    with pytest.raises(SystemExit):
        gald_cli("probe", "-m", *WORDS, *words, f"hydra.sweep.dir={tmp_path / 'sweep'}")
    error = capsys.readouterr().err
    assert "1 of 2 cells done" in error and "divisible by groups (7)" in error


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("scheduler.warmup_steps=6", r"set scheduler\.warmup_steps=5 or less"),
        ("model.aux_head.index=5", r"model/aux_head=none, or model\.aux_head\.index to -5\.\.4"),
        ("model.head.low_stride=64", r"set model\.head\.low_stride to one of them"),
    ],
)
def test_what_cannot_work_is_refused_before_features_are_computed(
    gald_cli, tmp_path, capsys, word, remedy
):
    head = ["model/head=lowlevel"] if "low_stride" in word else []
    words = [*head, word, "probe.steps=6", f"probe.cache_dir={tmp_path / 'cache'}"]
    with pytest.raises((ValueError, InstantiationException), match=remedy):
        gald_cli("probe", *WORDS, *words, f"output_dir={tmp_path / 'run'}")
    assert "computing the features" not in capsys.readouterr().err


def test_sweep_run_names_the_command_of_a_probe(gald_cli, swept):
    with pytest.raises(ValueError, match="cells of gald probe; repeat its command"):
        gald_cli("sweep", "run", str(swept))
    assert Sweep.load(swept).go_on.startswith("gald probe -m data=synthetic")


def test_gald_train_refuses_the_experiment_of_a_probe(gald_cli, tmp_path):
    words = ["experiment=screen_camvid", f"data.root={tmp_path}", "hydra.mode=RUN"]
    with pytest.raises(ValueError, match="gald probe"):
        gald_cli("train", *words, f"output_dir={tmp_path / 'run'}")


@pytest.mark.integration
def test_one_cell_alone_prints_its_scores_and_is_not_overwritten(gald_cli, tmp_path, capsys):
    run = tmp_path / "run"
    gald_cli("probe", *WORDS, "probe.keep_networks=true", f"output_dir={run}")
    assert "mIoU" in capsys.readouterr().out
    with pytest.raises(ValueError, match="already holds a run"):
        gald_cli("probe", *WORDS, f"output_dir={run}")
    assert b"gald sha256 " in (run / "checkpoints" / "best.ckpt").read_bytes()[-100:]
    network = gald.load(run)
    street = tmp_path / "street.png"
    cv2.imwrite(str(street), np.zeros((32, 64, 3), np.uint8))
    assert network.predict(street).labels.shape == (32, 64)
    gald_cli("viz", str(run), "--image", str(street), "--to", str(tmp_path / "figure"))


def test_features_are_the_maps_of_the_backbone_in_half_precision(bench):
    material = bench[config()]
    dataset = material.data.make_dataset("train")
    features = material.splits["train"]
    image, labels, lut = dataset.pixels(2)
    image, mask = resized(image, lut[labels], (32, 64))
    batch = torch.from_numpy(image.transpose(2, 0, 1).copy())[None]
    with torch.no_grad():
        views = material.whole(batch), material.whole(batch.flip(3))
    for view, maps in enumerate(views):
        for found, wanted in zip(features.maps([2], [bool(view)]), maps, strict=True):
            np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(features.masks([2])[0], mask)


def test_a_second_process_reads_the_file_and_a_damaged_one_is_refused(bench, capfd):
    features = bench[config()].splits["val"]
    again = Bench(torch.device("cpu"))[config()].splits["val"]
    assert "computing" not in capfd.readouterr().err
    np.testing.assert_array_equal(again.masks([0]), features.masks([0]))
    file = again.folder / "pixels.u8"
    content = file.read_bytes()
    try:
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        damaged = Bench(torch.device("cpu"))[config()].splits["val"]
        with pytest.raises(ValueError, match=r"is damaged at sample 2.*delete .* and repeat"):
            damaged.masks([2])
    finally:
        file.write_bytes(content)


def test_other_weights_get_other_features(bench):
    first = bench[config()].splits["val"].folder
    other = Bench(torch.device("cpu"))
    changed = config("model.backbone.frozen_bn=true")
    assert other[changed].splits["val"].folder == first
    for word in ("model.backbone.levels=[0,1]", "probe.size=[64,64]"):
        assert other[config(word)].splits["val"].folder != first
    material = bench[config()]
    trained = copy.deepcopy(material.whole)
    with torch.no_grad():
        next(trained.parameters()).add_(0.1)
    dataset, cache = material.data.make_dataset("val"), config().probe.cache_dir
    options = ((32, 64), False, cache, torch.device("cpu"))
    assert Features(dataset, material.whole, *options).folder == first
    assert Features(dataset, trained, *options).folder != first


def test_images_shrink_by_areas_and_masks_to_the_label_in_the_middle():
    stripes = np.zeros((6, 12, 3), np.uint8)
    stripes[:, ::2] = 200
    labels = np.arange(72, dtype=np.uint8).reshape(6, 12)
    image, mask = resized(stripes, labels, (2, 4))  # cells of 3x3 with one or two bright columns
    assert image[..., 0].tolist() == [[133, 67, 133, 67]] * 2
    np.testing.assert_array_equal(mask, labels[1::3, 1::3])


def test_cells_share_features_of_one_size_and_mirror_only(bench):
    plain = bench[config()]
    assert bench[config("model/ld=const", "probe.steps=5")] is plain
    assert bench[config("probe.flip=0.0")].splits["train"].layout.views == 1
    assert plain.splits["train"].layout.views == 2
    assert bench[config("probe.size=[64,64]")].splits["val"].masks([0]).shape == (1, 64, 64)


def test_the_seed_of_a_cell_decides_its_first_weights(bench):
    def first(seed):
        torch.rand(7)  # of a cell before
        network = build_network(config(f"seed={seed}"), bench[config()])
        return torch.cat([p.flatten() for p in network.parameters()])

    assert torch.equal(first(0), first(0)) and not torch.equal(first(0), first(1))


def test_batches_depend_on_seed_and_step_alone(bench):
    cfg = config()
    material = bench[cfg]
    probe = build_own(cfg.probe)

    def draw(seed):
        batches = Batches(
            material.splits["train"], probe, material.backbone.strides, None, torch.device("cpu")
        )
        return list(batches.of_training(seed))

    first, again, other = draw(0), draw(0), draw(1)
    assert [epoch for epoch, _ in first] == [0, 1, 2]  # six images, four a batch
    for (_, a), (_, b) in zip(first, again, strict=True):
        assert torch.equal(a.mask, b.mask) and torch.equal(a.maps[0], b.maps[0])
    assert any(not torch.equal(a.mask, b.mask) for (_, a), (_, b) in zip(first, other, strict=True))


def test_a_crop_cuts_mask_and_maps_at_the_same_place(bench):
    whole, cropped = config("probe.flip=0.0"), config("probe.flip=0.0", "probe.crop=[32,32]")
    material = bench[whole]
    strides, device = material.backbone.strides, torch.device("cpu")
    drawn = [
        list(
            Batches(
                material.splits["train"], build_own(c.probe), strides, "other", device
            ).of_training(3)
        )
        for c in (whole, cropped)
    ]
    places = set()
    for (_, a), (_, b) in zip(*drawn, strict=True):
        assert b.mask.shape[1:] == (32, 32)
        for image in range(len(a.mask)):
            lefts = [
                left
                for left in range(0, 33, 32)
                if torch.equal(a.mask[image, :, left : left + 32], b.mask[image])
            ]
            (left,) = lefts
            places.add(left)
            inner = a.truth[image, ..., left + 1 : left + 31]  # pixels beside others of the crop
            assert torch.equal(inner, b.truth[image, ..., 1:31])
            for level, small, stride in zip(a.maps, b.maps, strides, strict=True):
                part = level[image, :, :, left // stride :][..., : small.shape[-1]]
                assert torch.equal(part, small[image])
    assert places == {0, 32}


def test_a_mirrored_image_has_mirrored_maps_labels_and_boundaries(bench):
    cfg = config("probe.flip=1.0")
    material = bench[cfg]
    features, strides = material.splits["train"], material.backbone.strides
    masks = features.masks(range(6))[..., ::-1]
    own, other = (
        Batches(features, build_own(cfg.probe), strides, truth, torch.device("cpu")).of_training(0)
        for truth in ("own", "other")
    )
    for (_, a), (_, b) in zip(own, other, strict=True):
        for place, mask in enumerate(a.mask.numpy()):
            (index,) = (i for i in range(6) if (masks[i] == mask).all())
            for level, mirrored in zip(a.maps, features.maps([index], [True]), strict=True):
                np.testing.assert_array_equal(level[place], mirrored[0])
            for batch, i in ((a, index), (b, (index + 3) % 6)):
                wanted = boundaries(torch.from_numpy(masks[i : i + 1].copy()))
                assert torch.equal(batch.truth[place], wanted.float())


def test_whether_an_image_is_mirrored_depends_on_seed_and_epoch(bench):
    cfg = config("probe.steps=12")
    material = bench[cfg]
    features, strides = material.splits["train"], material.backbone.strides
    masks = features.masks(range(6))

    def draw(seed):
        batches = Batches(features, build_own(cfg.probe), strides, None, torch.device("cpu"))
        return {
            (epoch, i): not (masks[i] == mask).all()
            for epoch, batch in batches.of_training(seed)
            for mask in batch.mask.numpy()
            for i in range(6)
            if (masks[i] == mask).all() or (masks[i] == mask[:, ::-1]).all()
        }

    first, other = draw(0), draw(1)
    assert len(first) == 12 * 4
    assert any(len({first.get((epoch, i)) for epoch in range(12)} - {None}) == 2 for i in range(6))
    assert any(first[key] != other[key] for key in first.keys() & other.keys())


def test_scores_are_those_of_the_kept_network_in_evaluation_mode(bench, tmp_path):
    words = [word for word in WORDS if word != "metrics=miou"]
    cfg = compose("probe", [*words, "metrics=all", "probe.keep_networks=true"])
    run_cell(cfg, bench, tmp_path, lambda step: None)
    network, material = gald.load(tmp_path).model.eval(), bench[cfg]
    assert network.reduce.norm.num_batches_tracked == 3  # it trained in training mode
    features, strides = material.splits["val"], material.backbone.strides
    batches = Batches(features, build_own(cfg.probe), strides, None, torch.device("cpu"))
    ((_, batch),) = batches.of_evaluation(16)
    with torch.no_grad():
        logits = network.distribute(network.aggregate_maps(batch.maps))
    scores = F.interpolate(logits, (32, 64), mode="bilinear")
    confidence, labels = scores.softmax(1).max(1)
    known = batch.mask != 255
    counts = ImageCounts.load(tmp_path / "images_val.npz").total("ece").reshape(3, -1).sum(1)
    assert counts[:2].tolist() == [known.sum(), (labels == batch.mask)[known].sum()]
    levels = (confidence[known] * 2**15).round().sum().item()
    assert counts[2] == pytest.approx(levels, abs=50)  # of 23 million


@pytest.mark.parametrize("align_corners", [False, True])
def test_scores_are_resized_to_the_mask_as_in_the_model(bench, tmp_path, align_corners):
    cfg = config(f"model.align_corners={align_corners}")
    material = bench[cfg]
    network = build_network(cfg, material).eval()
    features, strides = material.splits["val"], material.backbone.strides
    batches = Batches(features, build_own(cfg.probe), strides, None, torch.device("cpu"))
    ((_, batch),) = batches.of_evaluation(16)
    with torch.no_grad():
        network.head.classify[-1].weight.mul_(100)  # so that several classes are predicted
        logits = network.distribute(network.aggregate_maps(batch.maps))
    score(cfg, network, batches, "val", material.data.class_names, tmp_path, {})
    labels = F.interpolate(logits, (32, 64), mode="bilinear", align_corners=align_corners).argmax(1)
    metric = ConfusionMatrix(material.data.num_classes)
    metric.update(LabelMap(labels, None), batch.mask)
    stored = ImageCounts.load(tmp_path / "images_val.npz").total("confusion")
    assert len(labels.unique()) > 1 and metric.compute().tolist() == stored.tolist()


def test_groups_of_the_images_are_stored_with_their_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(SyntheticDataModule, "groups_in", lambda self, dataset: ["b", "a", "b"])
    run_cell(config("probe.steps=1"), Bench(torch.device("cpu")), tmp_path, lambda step: None)
    assert ImageCounts.load(tmp_path / "images_test.npz").groups == ("b", "a", "b")


def test_a_crop_off_the_grid_is_refused_with_the_stride(bench):
    cfg = config("probe.crop=[32,40]")
    material = bench[cfg]
    with pytest.raises(ValueError, match=r"probe.crop=\[32, 40\] must be multiples .*\(32\)"):
        Batches(material.splits["val"], build_own(cfg.probe), (4, 32), None, torch.device("cpu"))


def test_a_table_says_which_arm_reads_the_ground_truth(gald_cli, tmp_path, capsys):
    sweep = tmp_path / "sweep"
    grid = ["model/ga=psp_bare", "model/ld=none,leaky_oracle", "seed=0"]
    gald_cli("probe", "-m", *WORDS, *grid, f"hydra.sweep.dir={sweep}")
    gald_cli("table", str(sweep), "--split", "test", "--samples", "100", "--format", "md")
    assert "ld=leaky_oracle: the network reads the ground truth" in capsys.readouterr().out


def test_the_oracle_runs_only_in_the_open_and_is_marked(gald_cli, tmp_path):
    words = [*WORDS, "model/ga=psp_bare", "model/ld=oracle"]
    with pytest.raises(ValueError, match=r"set model\.ld\.leak=true"):
        gald_cli("probe", *words, f"output_dir={tmp_path / 'silent'}")
    run = tmp_path / "run"
    named = ["model.ld.leak=true", "model.ld.other_image=true", f"output_dir={run}"]
    gald_cli("probe", *words, *named)
    results = json.loads((run / "results.json").read_text())
    assert results["test/receipt"]["reads_truth"] is True


def test_the_oracle_gets_the_boundaries_of_its_own_or_of_another_image(bench):
    cfg = config()
    material = bench[cfg]
    features = material.splits["val"]
    masks = torch.from_numpy(features.masks([0, 1, 2]))
    for name, order in (("leaky_oracle", [0, 1, 2]), ("leaky_oracle_other", [1, 2, 0])):
        truth = truth_of(build_network(config(f"model/ld={name}"), material))
        strides, device = material.backbone.strides, torch.device("cpu")
        batches = Batches(features, build_own(cfg.probe), strides, truth, device)
        ((_, batch),) = batches.of_evaluation(16)
        assert torch.equal(batch.truth, boundaries(masks[order])[:, None].float())


def test_a_host_network_is_refused(gald_cli, tmp_path):
    with pytest.raises(ValueError, match="set model=gald"):
        gald_cli("probe", "model=plugged", "model/host=fcn", f"output_dir={tmp_path / 'run'}")
