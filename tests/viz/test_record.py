"""Recorded maps equal those of the forward pass, and recording changes no result."""

import copy

import pytest
import torch
from hydra.utils import instantiate

import gald
from gald.config import compose
from gald.model.ga.psp import PSP

SIZE = (45, 67)


def build(*overrides):
    tiny = ["model.channels=8", "model.backbone.name=test_resnet", "output_dir=unused"]
    cfg = compose("train", [*tiny, *overrides])
    torch.manual_seed(0)
    return instantiate(cfg.model, num_classes=5).eval()


def image(batch=1, size=SIZE):
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def spy(module, name, monkeypatch):
    """Returns a list that collects the return values of a method."""
    results, method = [], getattr(module, name)

    def spied(*inputs):
        results.append(method(*inputs))
        return results[-1]

    monkeypatch.setattr(module, name, spied)
    return results


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("order", ["ga_ld", "ld_ga", "parallel"])
def test_map_of_mask_is_that_of_the_forward_pass(order, training, monkeypatch):
    model = build("model/ld=mask", "model/ga=psp", f"model.order={order}").train(training)
    used = spy(model.ld, "distribution_map", monkeypatch)
    with gald.record(model, "ld") as maps:
        model(image(2))
    first = used[0]  # a second one may come from the recording itself
    assert torch.equal(maps["ld/map"].values, first)
    context, output = maps["ld/context"].values, maps["ld/output"].values
    assert torch.equal(output, context * (1 + first))
    assert set(maps) == {"ld/context", "ld/x", "ld/map", "ld/output"}


@pytest.mark.parametrize("order", ["ga_ld", "ld_ga", "parallel"])
def test_inputs_of_the_slots_follow_their_order(order):
    model = build("model/ld=gate", "model/ga=psp", f"model.order={order}")
    with gald.record(model) as maps:
        parts = model.aggregate(image())
        model.distribute(parts)
    before = {"ga_ld": parts.x, "ld_ga": maps["ld/output"].values, "parallel": parts.x}[order]
    context = parts.context if order == "ga_ld" else parts.x
    assert torch.equal(maps["ga/input"].values, before)
    assert torch.equal(maps["ld/context"].values, context)
    assert torch.equal(maps["ld/x"].values, parts.x)
    assert torch.equal(maps["ld/map"].values, model.distribution_map(parts))
    assert maps["ld/x"].shape == (1, 8, 6, 9) and maps["ld/x"].stride == 8


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ld", ["mask", "affinity", "lowlevel", "cbam"])
def test_recording_changes_neither_scores_nor_state_nor_gradients(ld, training):
    plain = build("model/ga=ema", f"model/ld={ld}").train(training)
    watched = copy.deepcopy(plain)
    outcomes = []
    for model in (plain, watched):
        torch.manual_seed(3)  # for the head's dropout
        if model is watched:
            with gald.record(model) as maps:
                out = model(image(2))
            maps.attention(1, 2)
        else:
            out = model(image(2))
        out.logits.square().sum().backward()
        outcomes.append(out.logits)
    assert torch.equal(*outcomes)
    for (key, a), b in zip(plain.state_dict().items(), watched.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    for (key, a), b in zip(plain.named_parameters(), watched.parameters(), strict=True):
        assert (a.grad is None and b.grad is None) or torch.equal(a.grad, b.grad), key
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in watched.modules())


def test_hooks_are_removed_when_the_pass_fails():
    model = build("model/ga=psp", "model/ld=mask_official")
    with pytest.raises(ValueError, match="must be at least"), gald.record(model):
        model(image())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_attention_is_the_sum_of_absolute_derivatives():
    model = build("model/ga=psp", "model/ld=none")
    with gald.record(model, "ga") as maps:
        model(image())
    assert set(maps) == {"ga/input", "ga/output"}
    x = maps["ga/input"].values

    def at_query(values):
        return model.ga(values)[0, :, 2, 3]

    jacobian = torch.autograd.functional.jacobian(at_query, x)  # (C, 1, C, h, w)
    attention = maps.attention(2, 3)
    assert attention.shape == (1, 1, 6, 9)
    torch.testing.assert_close(attention.values[0, 0], jacobian.abs().sum((0, 1, 2)))


def test_attention_without_aggregation_is_the_query_alone():
    model = build("model/ga=none")
    with gald.record(model) as maps:
        model(image(2))
    expected = torch.zeros(6, 9)
    expected[4, 7] = 8  # each of 8 channels depends only on itself, with derivative 1
    assert torch.equal(maps.attention(4, 7, image=1).values[0, 0], expected)


def test_attention_of_criss_cross_once_is_a_cross():
    model = build("model/ga=cc", "model.ga.recurrences=1")
    with gald.record(model) as maps:
        model(image())
    influences = maps.attention(2, 3).values[0, 0] > 0
    cross = torch.zeros(6, 9, dtype=torch.bool)
    cross[2], cross[:, 3] = True, True
    assert torch.equal(influences, cross)


def test_predictor_is_recorded_in_inference_mode(trained):
    network = gald.load(trained("model/ga=ocr"))
    pixels = (image()[0] * 255).to(torch.uint8)
    with gald.record(network) as maps, torch.inference_mode(), torch.autocast("cpu"):
        network(pixels[None])
    assert maps.attention(0, 0).values.isfinite().all()
    assert "1, 16, 6, 9" in repr(maps)


def test_meaning_of_an_ld_map_is_from_its_docstring():
    with gald.record(build("model/ga=psp", "model/ld=window"), "ld") as maps:
        assert repr(maps).startswith("no maps yet")
    model = build("model/ga=psp", "model/ld=window")
    with gald.record(model, "ld") as maps:
        model(image())
    assert maps["ld/map"].meaning.startswith("the attention A: the weight of each cell")
    assert "sum to 1" in maps["ld/map"].meaning
    assert "Args" not in maps["ld/map"].meaning
    with pytest.raises(ValueError, match="global aggregation was not recorded; call gald"):
        maps.attention(0, 0)


def test_invalid_slots_and_models_are_one_sentence():
    model = build("model/ga=psp")
    with pytest.raises(ValueError, match="no slot 'head' to record; choose from ga, ld"):
        gald.record(model, "head").__enter__()
    with pytest.raises(ValueError, match="PSP has no slots to record; give a network "):
        gald.record(PSP(8)).__enter__()
    with gald.record(model) as maps:
        model(image())
    with pytest.raises(ValueError, match=r"cell \(6, 0\) is outside of the map of 6x9 cells; "):
        maps.attention(6, 0)


def test_long_attention_says_how_far_it_is(monkeypatch, capsys):
    monkeypatch.setattr("gald.progress.EVERY", 0.0)
    with torch.no_grad(), gald.record(model := build("model/ga=psp")) as maps:
        model(image())
    maps.attention(0, 0)
    assert "attention at cell (0, 0), channels: 8 of 8" in capsys.readouterr().err
