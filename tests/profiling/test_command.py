"""`gald profile`: its table, its JSON file, and its measurements."""

import json
import re
import sys

import pytest
import torch
from torch import nn

from gald import cli
from gald.profiling.flops import NAMES
from gald.profiling.measure import CostMeter
from gald.profiling.memory import TensorMemoryTracker

SMALL = [
    "model.backbone.name=test_resnet",
    "model.channels=16",
    "size=[64,64]",
    "device=cpu",
    "rounds=1",
]


@pytest.fixture
def gald_profile(monkeypatch, tmp_path):
    """Return a function that runs `gald profile ARGUMENTS` and returns profile.json's content."""
    monkeypatch.setenv("GALD_TRACEBACK", "1")

    def call(*arguments):
        folder = f"output_dir={tmp_path}"
        monkeypatch.setattr(sys, "argv", ["gald", "profile", *SMALL, folder, *arguments])
        cli.main()
        return json.loads((tmp_path / "profile.json").read_text())

    return call


def test_profile_prints_a_table_and_writes_every_number(gald_profile, capsys):
    profile = gald_profile()
    printed = capsys.readouterr().out
    hosts_alone = ("host", "expand")
    for name in (*NAMES, "total"):
        if name in hosts_alone:
            continue
        assert f"│ {name}" in printed
        assert isinstance(profile[f"{name}/params"], int)
        for phase in ("eval", "train"):
            for key in ("gmacs", "ms", "mib"):
                if (name, phase) != ("aux_head", "eval"):
                    assert isinstance(profile[f"{name}/{phase}/{key}"], float)
    assert "aux_head/eval/ms" not in profile
    assert profile["size"] == [64, 64] and profile["num_classes"] == 19
    assert profile["precision"] == "32-true" and profile["device"].startswith("cpu")
    assert {"memory", "not_counted", "rounds", "commit", "version/torch"} <= profile.keys()


def test_arithmetic_and_parameters_add_up_and_training_costs_three_times(gald_profile):
    profile = gald_profile("model/ga=psp")
    for key in ("params", "eval/gmacs", "train/gmacs"):
        summed = sum(profile.get(f"{name}/{key}", 0) for name in NAMES)
        assert summed == pytest.approx(profile[f"total/{key}"])
    for name in ("reduce", "ga", "ld", "head"):
        assert profile[f"{name}/train/gmacs"] == pytest.approx(3 * profile[f"{name}/eval/gmacs"])
    image_side = profile["backbone/train/gmacs"] / profile["backbone/eval/gmacs"]
    assert 2.8 < image_side < 3  # the first convolution computes no gradient of the image


def test_training_needs_more_memory_and_time_than_evaluation(gald_profile):
    profile = gald_profile("rounds=3")
    for key in ("ms", "mib"):
        assert profile[f"total/train/{key}"] > profile[f"total/eval/{key}"] > 0


def test_parts_that_do_nothing_cost_nothing(gald_profile):
    profile = gald_profile("model/ga=none", "model/neck=none")
    for name in ("ga", "neck"):
        for key in ("params", "train/gmacs", "train/mib", "eval/gmacs", "eval/mib"):
            assert profile[f"{name}/{key}"] == 0


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "arguments",
    [
        ["trainer.precision=bf16-mixed"],
        ["batch_size=2", "model/neck=fpn", "model.backbone.output_stride=null"],
        ["experiment=gald_official", "size=[160,160]", "model.backbone.multi_grid=null"],
        [
            "model/backbone=convnext_tiny",
            "model.backbone.name=test_convnext",
            "model/aux_head=none",
        ],
    ],
    ids=" ".join,
)
def test_profile_accepts_the_options_of_training(gald_profile, arguments):
    assert gald_profile(*arguments)["total/train/gmacs"] > 0


def test_classes_come_from_the_data_if_no_number_is_given(gald_profile):
    assert gald_profile("num_classes=null", "data=camvid")["num_classes"] == 11


def test_profile_does_not_overwrite_another(gald_profile, tmp_path):
    (tmp_path / "profile.json").write_text("kept")
    with pytest.raises(ValueError, match=r"already holds a profile; choose another output_dir"):
        gald_profile()
    assert (tmp_path / "profile.json").read_text() == "kept"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("precision=fp8", "precision=fp8: precision must be one of 32-true, bf16-mixed, 16-mixed"),
        ("size=[64]", r"size=\[64\]: size must be a list with 2 entries"),
        ("size=64", "size=64: size must be a list with 2 entries"),
        ("rounds=0", "rounds=0: rounds must be a whole number >= 1"),
        ("batch_size=0", "batch_size=0: batch_size must be a whole number >= 1"),
        ("device=tpu", r"device is 'tpu', but this machine has only cpu; choose one of these"),
    ],
)
def test_invalid_option_is_refused_in_one_sentence(
    gald_profile, monkeypatch, capsys, argument, sentence
):
    monkeypatch.delenv("GALD_TRACEBACK")
    with pytest.raises(SystemExit) as stop:
        gald_profile(argument)
    assert stop.value.code == 1
    first, second = capsys.readouterr().err.splitlines()
    assert re.match(f"gald: {sentence}", first)
    assert second.startswith("(GALD_TRACEBACK=1")


def test_live_memory_of_a_chain_by_hand():
    # Four maps of 1 MiB. Without gradients two are alive at once. With gradients both sigmoids
    # save their output, and backward adds the gradients of a layer's input and output.
    net = nn.Sequential(
        nn.Conv2d(4, 4, 1, bias=False), nn.Sigmoid(), nn.Conv2d(4, 4, 1, bias=False), nn.Sigmoid()
    )
    x = torch.zeros(1, 4, 256, 256)
    with torch.no_grad(), TensorMemoryTracker([x, *net.parameters()]) as evaluation:
        net(x)
    assert evaluation.peak == 2 * 2**20
    with TensorMemoryTracker([x, *net.parameters()]) as training:
        y = net(x)
        saved = sum(training.live.values())
        y.sum().backward()
    assert saved == 2 * 2**20
    assert 4 * 2**20 <= training.peak < 4.01 * 2**20


def test_live_memory_does_not_count_earlier_tensors_or_views():
    x = torch.zeros(2**20)
    with TensorMemoryTracker([x]) as memory:
        x.view(2, -1).t()
        x.add_(1)
    assert memory.peak == 0


def test_meter_leaves_no_gradients_on_parameters_or_recorded_inputs():
    conv = nn.Conv2d(4, 4, 1)
    x = torch.zeros(1, 4, 8, 8)
    cost = CostMeter(torch.device("cpu"), None, rounds=2).measure(conv, conv, (x,), "train")
    assert conv.weight.grad is None and x.grad is None and not x.requires_grad
    assert cost.gmacs == 3 * 64 * 16 / 1e9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_profile_on_a_gpu_uses_the_memory_statistics_of_cuda(gald_profile):
    profile = gald_profile("device=cuda", "trainer.precision=bf16-mixed")
    assert "CUDA" in profile["memory"]
    assert profile["total/train/mib"] > profile["total/eval/mib"] > 0
