"""Parameters and multiply-adds of a network, against counts by hand and published numbers."""

from itertools import zip_longest
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from torch import nn
from torch.nn import functional as F

from gald.config import CONF_DIR, compose
from gald.profiling.flops import MacCounter, part_costs, parts

TINY = ("model.backbone.name=test_resnet", "model.backbone.weights=null", "model.channels=16")


def build(*overrides, num_classes=19):
    cfg = compose("train", list(overrides))
    return instantiate(cfg.model, num_classes=num_classes)


@pytest.fixture(scope="module")
def official():
    return build("experiment=gald_official")


def options(slot):
    return sorted(path.stem for path in Path(CONF_DIR, "model", slot).glob("*.yaml"))


def test_official_network_costs_what_the_authors_code_costs(official):
    costs = part_costs(official, (769, 769))
    without_aux = costs["cost/total/params"] - costs["cost/aux_head/params"]
    assert without_aux == pytest.approx(47.67e6, abs=0.005e6)
    assert costs["cost/total/gmacs"] == pytest.approx(467.9, abs=0.05)
    assert costs["cost/reduce/gmacs"] == pytest.approx(88.8, abs=0.05)
    assert costs["cost/ga/gmacs"] == pytest.approx(0.94 + 0.011, abs=0.005)
    assert costs["cost/ld/gmacs"] == pytest.approx(0.0136, abs=0.0001)
    assert costs["cost/head/gmacs"] == pytest.approx(22.2 + 111.1, abs=0.1)
    assert costs["cost/aux_head/gmacs"] == 0


def test_parts_of_a_tiny_network_by_hand():
    model = build(*TINY, "model/ga=none", "model/ld=mask", "model.ld.steps=1", num_classes=10)
    costs = part_costs(model, (64, 64))
    deepest = model.backbone.channels[-1]
    cells = 8 * 8
    assert costs["cost/reduce/gmacs"] * 1e9 == pytest.approx(cells * 9 * deepest * 16)
    assert costs["cost/reduce/params"] == 9 * deepest * 16 + 2 * 16
    assert costs["cost/ga/gmacs"] == costs["cost/ga/params"] == 0
    assert costs["cost/ld/gmacs"] * 1e9 == pytest.approx(4 * 4 * 9 * 16)  # depth-wise, stride 2
    head = cells * (9 * 16 * 16 + 9 * (deepest + 16) * 16 + 16 * 10)
    assert costs["cost/head/gmacs"] * 1e9 == pytest.approx(head)


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("ga", "ld"), list(zip_longest(options("ga"), options("ld"), fillvalue="mask"))
)
def test_cost_of_every_module_is_counted_and_the_parts_add_up(ga, ld):
    costs = part_costs(build(*TINY, f"model/ga={ga}", f"model/ld={ld}"), (128, 128))
    for key in ("params", "gmacs"):
        total = costs.pop(f"cost/total/{key}")
        assert sum(v for k, v in costs.items() if k.endswith(key)) == pytest.approx(total, abs=1e-9)


def test_counting_leaves_network_and_random_numbers_unchanged():
    model = build(*TINY, "model/ga=psp").train()
    model.ld.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    part_costs(model, (64, 64))
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in parts(model).values())


def test_larger_image_costs_proportionally_more_with_the_same_parameters():
    model = build(*TINY, "model/ga=none", "model/ld=none")
    small, large = part_costs(model, (64, 64)), part_costs(model, (128, 128))
    assert large["cost/total/gmacs"] == pytest.approx(4 * small["cost/total/gmacs"])
    assert large["cost/total/params"] == small["cost/total/params"]


def test_network_without_auxiliary_head_has_no_cost_for_it():
    assert "cost/aux_head/params" not in part_costs(build(*TINY, "model/aux_head=none"), (64, 64))


@pytest.mark.parametrize("groups", [1, 2, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_backward_of_a_convolution_costs_twice_its_forward(groups, stride):
    conv = nn.Conv2d(8, 8, 3, stride, padding=1, groups=groups, bias=False)
    x = torch.zeros(1, 8, 10, 10, requires_grad=True)
    with MacCounter() as counter:
        y = conv(x)
        forward = counter.macs
        y.sum().backward()
    assert forward == y[0, 0].numel() * 8 * (8 // groups) * 9
    assert counter.macs == 3 * forward


def test_backward_to_an_image_costs_no_input_gradient():
    conv = nn.Conv2d(3, 8, 3, bias=False)
    with MacCounter() as counter:
        conv(torch.zeros(1, 3, 6, 6)).sum().backward()
    assert counter.macs == 2 * 4 * 4 * 8 * 3 * 9


def test_fused_attention_is_counted_as_two_products():
    q, k, v = (torch.zeros(2, 4, 30, 8) for _ in range(3))
    with MacCounter() as counter:
        F.scaled_dot_product_attention(q, k, v)
    assert counter.macs == 2 * (2 * 4 * 30 * 30 * 8)
