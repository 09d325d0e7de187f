from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from rich.console import Console
from torch import nn

from gald.config import compose
from gald.optimizer import build_optimizer, group_table, parameter_groups


@pytest.fixture
def build():
    def make(*overrides: str):
        tiny = ("model.channels=16", "model.backbone.name=test_resnet")
        return instantiate(compose("train", [*tiny, *overrides]).model, num_classes=5)

    return make


def rates(model, groups):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(p)]: (group["name"], group["lr"], group["weight_decay"])
        for group in groups
        for p in group["params"]
    }


def test_layers_decay_from_the_head_to_the_stem_and_the_head_keeps_its_factor(build):
    model = build()
    groups = parameter_groups(model, 0.1, 0.01, 10, False, layer_decay=0.5)
    of = rates(model, groups)
    # test_resnet has a stem and four stages of one block: five layers.
    net = "backbone.net."
    assert of[f"{net}conv1.0.weight"] == ("backbone, layer 0", 0.1 * 0.5**5, 0.01)
    assert of[f"{net}bn1.bias"] == ("backbone, layer 0, no decay", 0.1 * 0.5**5, 0.0)
    assert of[f"{net}layer1.0.conv1.weight"] == ("backbone, layer 1", 0.1 * 0.5**4, 0.01)
    assert of[f"{net}layer4.0.conv1.weight"] == ("backbone, layer 4", 0.1 * 0.5, 0.01)
    assert of["head.classify.weight"] == ("head", 1.0, 0.01)
    assert of["head.classify.bias"] == ("head, no decay", 1.0, 0.0)
    assert of.keys() == {name for name, _ in model.named_parameters()}


def test_without_layer_decay_the_backbone_has_one_rate(build):
    model = build()
    names = {group["name"]: group["lr"] for group in parameter_groups(model, 0.1, 0.01, 2, True)}
    assert names == {"backbone": 0.1, "head": 0.2}


def test_frozen_layers_count_but_belong_to_no_group_and_have_a_row(build):
    model = build("model.backbone.frozen=2")
    factory = partial(torch.optim.SGD, lr=0.1, weight_decay=0.01)
    optimizer = build_optimizer(model, factory, 1.0, True, 0.5)
    groups = optimizer.param_groups
    assert {g["name"]: g["lr"] for g in groups} == {
        "backbone, layer 3": 0.1 * 0.5**2,
        "backbone, layer 4": 0.1 * 0.5,
        "head": 0.1,
    }
    still = [p for p in model.parameters() if not p.requires_grad]
    assert still and not {id(p) for g in groups for p in g["params"]} & {id(p) for p in still}
    console = Console(width=100)
    with console.capture() as printed:
        console.print(group_table(groups, still))
    text = printed.get()
    assert f"{sum(p.numel() for p in still):,}" in text
    assert all(word in text for word in ("frozen or unused", "backbone, layer 3", "0.025"))


@pytest.mark.parametrize("value", [0, -1, 1.5])
def test_layer_decay_out_of_range_is_refused(build, value):
    with pytest.raises(ValueError, match=rf"layer_decay is {value}; set it above 0 and at most 1"):
        parameter_groups(build(), 0.1, 0.0, layer_decay=value)


def test_layer_decay_of_unknown_layers_and_nothing_to_train_are_refused():
    model = nn.ModuleDict({"backbone": nn.Linear(1, 1)})
    with pytest.raises(ValueError, match=r"layers of Linear are unknown .* task\.layer_decay=null"):
        parameter_groups(model, 0.1, 0.0, layer_decay=0.5)
    with pytest.raises(ValueError, match=r"no parameter .* set model\.backbone\.frozen=false"):
        parameter_groups(model.requires_grad_(False), 0.1, 0.0)
