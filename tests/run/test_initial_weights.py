"""`init_from` takes the weights of another run, all or what fits, and says which."""

import re
import shutil

import pytest
import torch

from gald.run.checkpoint import read_checkpoint

SMALL = [
    *("data.global_batch_size=2", "data.num_workers=0", "model.channels=16"),
    *("model.backbone.name=test_resnet", "trainer.accelerator=cpu", "trainer.max_epochs=1"),
    *("logger=csv", "report=false", "optimizer.lr=0"),
]
TRAIN = ["train", *SMALL, "data=synthetic", "data.size=[48,64]", "data.train_count=2"]
TRAIN += ["data.train_transform.crop_size=[48,64]", "data.val_count=2", "data.test_count=2"]
FIT = "init_from_strict=false"


@pytest.fixture(scope="module")
def source(trained):
    """The run of a network for 10 classes; no weight is what a new network starts with."""
    return edit(
        trained(), lambda content: [v.add_(0.01) for v in content["state_dict"].values() if v.ndim]
    )


def edit(folder, change):
    path = folder / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    return folder


@pytest.fixture
def copied(source, tmp_path):
    """Return a function that copies the run with another content."""
    return lambda change: edit(shutil.copytree(source, tmp_path / "source"), change)


@pytest.fixture
def refusal(gald_cli, tmp_path):
    """Return a function that gives the sentence with which `gald train` refuses options."""

    def call(*words):
        with pytest.raises(ValueError) as caught:
            gald_cli(*words, f"output_dir={tmp_path}/run")
        return str(caught.value)

    return call


def trainable(weights):
    return [key for key in weights if "running" not in key and "num_batches" not in key]


@pytest.mark.integration
def test_what_fits_another_network_on_other_classes_is_taken(
    source, camvid, gald_cli, refusal, tmp_path, capsys
):
    words = ["train", *SMALL, "data=camvid", f"data.root={camvid}", "model/ga=psp", "test=false"]
    words += ["data.train_transform.crop_size=[24,32]", f"init_from={source}"]
    left = (
        "aux_head.classify (10 classes there, 11 here), ga (CGNL there, PSP here), "
        "head.classify (10 classes there, 11 here)"
    )
    message = refusal(*words)
    assert f"in all it differs in {left}; " in message
    assert "(10,) where this network has (11,) for aux_head.classify.bias" in message
    assert "or add init_from_strict=false" in message

    gald_cli(*words, FIT, f"output_dir={tmp_path}/run")
    (line,) = re.findall(r"init_from: .*", capsys.readouterr().out)
    theirs, ours = (read_checkpoint(folder).weights for folder in (source, tmp_path / "run"))
    fits = [k for k in ours if not k.startswith(("aux_head.classify", "ga.", "head.classify"))]
    parts = "backbone, reduce, ld, part of head, part of aux_head"
    assert line == f"init_from: took {len(fits)} of {len(ours)} tensors ({parts}); left {left}"
    taken = [key for key in fits if key in trainable(ours)]
    assert len(taken) > 40 and all(torch.equal(theirs[key], ours[key]) for key in taken)
    assert not torch.equal(theirs["head.classify.weight"][:10], ours["head.classify.weight"][:10])


@pytest.mark.integration
def test_equal_network_is_taken_whole(source, gald_cli, tmp_path, capsys):
    gald_cli(*TRAIN, f"init_from={source}", f"output_dir={tmp_path}/run")
    ours, theirs = (read_checkpoint(folder).weights for folder in (tmp_path / "run", source))
    total = len(ours)
    line = (
        f"init_from: took {total} of {total} tensors (backbone, reduce, ga, ld, head, aux_head)\n"
    )
    assert line in capsys.readouterr().out
    assert all(torch.equal(theirs[key], ours[key]) for key in trainable(ours))


@pytest.mark.integration
@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["model/ld=none"], "ld (Mask there, NoDistribution here)"),
        (["model.backbone.name=test_resnet.r160_in1k", "model/ld=se"], "ld ("),
        (["model.ga.groups=4"], "ga.z ((16, 1, 1, 1) there, "),
        (["model.backbone.name=resnet18"], "backbone (test_resnet there, resnet18 here)"),
        (["model/aux_head=none"], "aux_head (AuxHead there, none here)"),
    ],
)
def test_strict_refusal_names_the_differing_part(options, left, source, refusal):
    message = refusal(*TRAIN, f"init_from={source}", *options)
    assert left in message and "add init_from_strict=false" in message


@pytest.mark.integration
def test_classes_in_another_order_are_refused(copied, refusal, gald_cli, tmp_path, capsys):
    def swap(content):
        names = content["gald"]["class_names"]
        names[0], names[1] = names[1], names[0]

    run = copied(swap)
    reason = r"classify \(\w+ is class 1 there, 0 here\)"
    assert re.search(reason, refusal(*TRAIN, f"init_from={run}"))
    gald_cli(*TRAIN, f"init_from={run}", FIT, f"output_dir={tmp_path}/b")
    (line,) = re.findall(r"init_from: .*", capsys.readouterr().out)
    assert re.search(rf"; left aux_head\.{reason}, head\.{reason}$", line)
    theirs, ours = (read_checkpoint(folder).weights for folder in (run, tmp_path / "b"))
    assert torch.equal(theirs["reduce.conv.weight"], ours["reduce.conv.weight"])
    assert not torch.equal(theirs["head.classify.weight"], ours["head.classify.weight"])


def test_nothing_that_fits_is_refused(source, refusal):
    other = ["model.channels=8", "model.ga.groups=4", "model.backbone.name=resnet18"]
    message = refusal(*TRAIN, f"init_from={source}", FIT, *other)
    assert "fits this network" in message and message.endswith("or remove init_from")


def test_nan_weights_are_refused_by_every_command(copied, gald_cli, tmp_path):
    def spoil(content):
        content["state_dict"]["model.head.classify.weight"][3] = float("nan")

    run = copied(spoil)
    commands = [
        (*TRAIN, f"init_from={run}", f"output_dir={tmp_path}/a"),
        (*TRAIN, f"ckpt_path={run}/checkpoints/best.ckpt", f"output_dir={tmp_path}/a"),
        ("eval", f"ckpt_path={run}", f"output_dir={tmp_path}/b"),
        ("predict", str(run), str(tmp_path / "x.png"), "--to", str(tmp_path / "c")),
        ("export", str(run), "--to", str(tmp_path / "d"), "--format", "pretrained"),
    ]
    (tmp_path / "x.png").touch()
    for words in commands:
        message = r"best\.ckpt are useless: 16 of the 160 values of head\.classify\.weight are nan"
        with pytest.raises((ValueError, SystemExit), match=message):
            gald_cli(*words)


def test_file_of_another_program_names_the_option_for_it(tmp_path, refusal):
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "resnet.ckpt")
    message = refusal(*TRAIN, f"init_from={tmp_path}/resnet.ckpt")
    assert "was not written by gald train" in message
    assert "model.backbone.weights=FILE" in message and "gald convert FILE" in message


def test_strictness_is_true_or_false(source, refusal):
    message = refusal(*TRAIN, f"init_from={source}", "init_from_strict=maybe")
    assert message.startswith("init_from_strict=maybe: init_from_strict must be true or false")
