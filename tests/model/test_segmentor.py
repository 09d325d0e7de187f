import functools
import json
import os
from collections import Counter
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch import nn

from gald.config import CONF_DIR, compose
from gald.data.synthetic import SyntheticStreets
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.model.segmentor import Segmentor

ROOT = Path(__file__).parents[2]
GOLDEN = Path(os.environ.get("GALD_GOLDEN", ROOT.parent / "shared" / "golden"))
GAS = sorted(p.stem for p in (CONF_DIR / "model" / "ga").glob("*.yaml"))
LDS = sorted(p.stem for p in (CONF_DIR / "model" / "ld").glob("*.yaml"))
LDS = [name for name in LDS if "oracle" not in name]  # they read the truth, see test_truth.py
# The unpadded published mask needs 15 cells a side, so each size gives at least that many.
BACKBONES = {
    "resnet18": (8, "none", (121, 135)),
    "convnext_atto": (8, "none", (121, 135)),
    "swin_tiny_patch4_window7_224": (None, "fpn", (121, 135)),
    "vit_small_patch14_dinov2": (None, "fpn", (211, 225)),
}


def build(*overrides: str, num_classes: int = 5) -> Segmentor:
    cfg = compose("train", ["model.channels=16", *overrides])
    return instantiate(cfg.model, num_classes=num_classes)


@functools.cache
def config_of(override):
    """Compose a network with one slot chosen; composing is slower than merging, so it is cached."""
    overrides = ["model.channels=16", "model.backbone.name=test_resnet", override]
    return compose("train", overrides).model


@pytest.fixture(scope="module")
def slots() -> dict[str, dict[str, nn.Module]]:
    """Return every GA and LD at 16 channels, by option name."""
    return {
        slot: {
            option: getattr(instantiate(config_of(f"model/{slot}={option}"), num_classes=5), slot)
            for option in options
        }
        for slot, options in (("ga", GAS), ("ld", LDS))
    }


def test_slots_are_composed_independently():
    both = compose(
        "train",
        ["model.channels=16", "model.backbone.name=test_resnet", "model/ga=psp", "model/ld=gate"],
    )
    merged = config_of("model/ga=psp").copy()
    merged.ld = config_of("model/ld=gate").ld
    assert merged == both.model


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("ga", GAS)
def test_every_pair_builds_from_two_overrides_and_trains_one_step(ga):
    street = SyntheticStreets(count=1, size=(128, 136))[0]
    image, mask = street["image"][None], street["mask"][None]
    model = instantiate(config_of(f"model/ga={ga}"), num_classes=10).train()
    inputs = {"in_channels": model.backbone.channels, "in_strides": model.backbone.strides}
    maps = [m.detach() for m in model.backbone(image)]
    model.backbone.forward = lambda image: maps
    for ld in LDS:
        overrides = (f"model/ga={ga}", f"model/ld={ld}")
        module = instantiate(config_of(f"model/ld={ld}").ld)
        model.ld = module if isinstance(module, nn.Module) else module(**inputs)
        model.zero_grad()
        slots = [*model.ga.named_parameters(), *model.ld.named_parameters()]
        before = {name: parameter.clone() for name, parameter in slots}
        out = model(image)
        assert out.aux is not None and out.logits.shape[:2] == (1, 10)
        loss = DeepSupervision(CrossEntropy(), CrossEntropy())(out, mask)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for _, p in slots), overrides
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        moved = {name for name, parameter in slots if not torch.equal(parameter, before[name])}
        # without aggregation, an LD that mixes x and the context has nothing to learn
        assert moved or not slots or ga == "none", overrides


@pytest.mark.integration
@pytest.mark.one_in(5)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_module_learns_with_every_backbone_at_an_odd_size(name, slots):
    stride, neck, size = BACKBONES[name]
    backbone = (
        f"model.backbone.name={name}",
        f"model.backbone.output_stride={'null' if stride is None else stride}",
        f"model/neck={neck}",
    )
    model = build(*backbone).train()
    image = torch.rand(1, 3, *size)
    model(image).logits.square().mean().backward()
    assert any(p.grad is not None for p in model.backbone.parameters())
    # From here on the maps are fixed: the test is whether the slots can learn from them.
    maps = [m.detach().requires_grad_() for m in model.backbone(image)]
    model.backbone.forward = lambda image: tuple(maps)
    pairs = [*((ga, "mask") for ga in GAS), *(("cgnl", ld) for ld in LDS)]
    for ga, ld in pairs:
        for leaf in maps:
            leaf.grad = None
        if ld == "lowlevel":  # reads the backbone's maps, so it is built together with the backbone
            finest = f"model.ld.low_stride={min(model.backbone.strides)}"
            model.ld = build(*backbone, f"model/ld={ld}", finest).ld
        else:
            model.ld = slots["ld"][ld]
        model.ga = slots["ga"][ga]
        model.zero_grad()
        out = model(image)
        assert out.aux is not None and out.logits.shape[:2] == (1, 5)
        (out.logits.square().mean() + out.aux.square().mean()).backward()
        slot = [*model.ga.parameters(), *model.ld.parameters(), *model.reduce.parameters()]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in slot), (ga, ld)
        assert maps[-1].grad is not None and maps[-1].grad.isfinite().all(), (ga, ld)


def test_channels_last_gives_the_same_scores_in_the_other_layout():
    overrides = ("model.backbone.name=test_resnet", "model/ga=psp")
    plain, last = build(*overrides).eval(), build(*overrides, "model.channels_last=true").eval()
    last.load_state_dict(plain.state_dict())
    image = torch.rand(1, 3, 75, 91)
    maps = last.aggregate(image).maps
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps)
    assert not plain.aggregate(image).maps[-1].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(last.logits(image), plain.logits(image), rtol=1e-4, atol=1e-5)


# order and add_context_twice


@pytest.fixture
def two_slots():
    """Return a factory of small networks in eval mode, with a GA and an LD."""
    network = ("model.backbone.name=test_resnet", "model/ga=psp", "model/ld=mask")

    def make(**options):
        torch.manual_seed(0)
        overrides = [f"model.{key}={value}" for key, value in options.items()]
        model = build(*network, *overrides).eval()
        for parameter in model.ld.parameters():
            nn.init.normal_(parameter)  # at first the mask is nearly 1/2 everywhere
        return model

    return make


@pytest.mark.parametrize("twice", [False, True])
@pytest.mark.parametrize("order", ["ga_ld", "ld_ga", "parallel"])
@torch.no_grad()
def test_order_and_second_context_match_their_formulas(two_slots, order, twice):
    model = two_slots(order=order, add_context_twice=twice)
    image = torch.rand(2, 3, 96, 80)
    maps = model.neck(model.backbone(image))
    x = model.reduce(maps[-1])

    def distribute(context):
        return model.ld(context, x) + (context if twice else 0)

    y = {
        "ga_ld": lambda: distribute(model.ga(x)),
        "ld_ga": lambda: model.ga(distribute(x)),
        "parallel": lambda: model.ga(x) + distribute(x) - x,
    }[order]()
    torch.testing.assert_close(model.logits(image), model.head(maps, y))
    expected = model.ld.distribution_map(model.ga(x) if order == "ga_ld" else x, x)
    torch.testing.assert_close(model.distribution_map(model.aggregate(image)), expected)


@torch.no_grad()
def test_the_six_blocks_are_six_networks(two_slots):
    image = torch.rand(1, 3, 96, 80)
    logits = [
        two_slots(order=order, add_context_twice=twice).logits(image)
        for order in ("ga_ld", "ld_ga", "parallel")
        for twice in (False, True)
    ]
    for i, a in enumerate(logits):
        assert all(not torch.allclose(a, b) for b in logits[:i])


def test_an_unknown_order_lists_the_choices(two_slots):
    with pytest.raises(Exception, match=r"model\.order is 'nowhere'; choose one of "):
        two_slots(order="nowhere")


@pytest.mark.integration
def test_official_network_has_the_authors_parameter_count():
    model = build("experiment=gald_official", "model.channels=512", num_classes=19)
    assert sum(p.numel() for p in model.parameters()) == 52_402_662


def test_official_network_has_the_tensor_shapes_of_the_golden_state_dict():
    path = GOLDEN / "reference_state_dicts.json"
    if not path.exists():
        pytest.skip(f"{path} does not exist; set GALD_GOLDEN to the folder of golden outputs")
    reference = json.loads(path.read_text())["GALD_res50"]
    model = build("experiment=gald_official", "model.channels=512", num_classes=19)
    ours = Counter(tuple(v.shape) for v in model.state_dict().values())
    assert ours == Counter(tuple(shape) for shape in reference.values())


def test_an_aux_head_of_a_map_that_the_backbone_does_not_have_is_refused_with_the_remedy():
    with pytest.raises(InstantiationException, match=r"index is -2, but the number of maps is 1"):
        build("model/backbone=pixels", "model/head=fcn")


def test_without_aux_head_the_output_type_stays_the_same():
    model = build("model.backbone.name=test_resnet", "model/aux_head=none").eval()
    out = model(torch.rand(1, 3, 64, 64))
    assert out.aux is None and out.logits.shape[1] == 5


def test_logits_skip_the_aux_head_and_change_nothing():
    model = build("model.backbone.name=test_resnet").eval()
    image = torch.rand(2, 3, 64, 81)
    torch.testing.assert_close(model.logits(image), model(image).logits)


@pytest.mark.integration
def test_low_level_head_returns_logits_at_the_stride_of_the_fine_map():
    model = build("model/head=lowlevel").eval()
    with torch.no_grad():
        assert model.logits(torch.rand(1, 3, 65, 96)).shape[-2:] == (17, 24)


def test_low_level_head_error_lists_the_available_strides():
    with pytest.raises(Exception, match=r"low_stride \(3\) is not among .* \(2, 4, 8, 8, 8\)"):
        build("model/head=lowlevel", "model.head.low_stride=3")


@pytest.mark.integration
@pytest.mark.one_in(3)
@pytest.mark.parametrize("size", [(32, 32), (32, 47), (33, 32), (5, 7), (5, 40), (1, 1)])
def test_any_size_works_at_batch_one(size):
    model = build("model.backbone.output_stride=32")
    image = torch.rand(1, 3, *size)
    model.eval()
    assert model(image).logits.isfinite().all()
    if max(size) > 32:
        model.train()
        assert model(image).logits.isfinite().all()


def test_training_on_a_single_cell_is_refused_with_the_remedy():
    model = build("model.backbone.output_stride=32").train()
    with pytest.raises(ValueError, match=r"single cell.*raise the crop size"):
        model(torch.rand(1, 3, 32, 32))
    assert model.eval()(torch.rand(1, 3, 32, 32)).logits.isfinite().all()


def test_ga_that_changes_the_shape_is_refused():
    model = build("model.backbone.name=test_resnet").eval()
    model.ga = nn.AvgPool2d(2)
    with pytest.raises(
        ValueError, match=r"ga changed the shape from .* a GA module must keep the shape"
    ):
        model(torch.rand(1, 3, 64, 64))
