"""Network views, for every GA with every LD."""

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from gald.config import CONF_DIR, compose
from gald.prediction.predictor import Predictor
from gald.viz.features import common_colours, distinct_features
from gald.viz.network_view import (
    cell_of,
    check_queries,
    inner_pixels,
    inspect_network,
    no_distribution,
)

GAS = sorted(path.stem for path in (CONF_DIR / "model" / "ga").glob("*.yaml"))
LDS = sorted(path.stem for path in (CONF_DIR / "model" / "ld").glob("*.yaml"))
LDS = [name for name in LDS if "oracle" not in name]  # an image alone has no true boundaries
CLASSES = ["sky", "road", "car"]
PALETTE = [(0, 0, 255), (90, 90, 90), (255, 0, 0)]


def network(*overrides):
    tiny = ["model.channels=16", "model.backbone.name=test_resnet", "output_dir=unused"]
    shallow = ["model.backbone.levels=[0,1]", "model.backbone.output_stride=null"]
    cfg = compose("train", [*tiny, *shallow, "data=synthetic", *overrides])
    torch.manual_seed(0)
    return Predictor(OmegaConf.to_container(cfg, resolve=True), CLASSES, PALETTE)


def slot(group, option):
    path = CONF_DIR / "model" / group / f"{option}.yaml"
    model = {"channels": 16, "align_corners": False, group: OmegaConf.load(path)}
    return instantiate(OmegaConf.create({"model": model}).model[group])


def random_image(height=61, width=67):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def base():
    return network("model/ga=none", "model/ld=none")


# Every GA with two LDs, and every LD with two GAs; the other pairs rarely tell more.
WITH_EVERY_GA, WITH_EVERY_LD = ("none", "mask"), ("none", "cgnl")
PAIRS = [pytest.param(ld, GAS if ld in WITH_EVERY_GA else WITH_EVERY_LD, id=ld) for ld in LDS]
PAIRS += [
    pytest.param(ld, GAS, id=f"{ld}, every GA", marks=pytest.mark.slow)
    for ld in LDS
    if ld not in WITH_EVERY_GA
]


@pytest.mark.parametrize(("ld", "gas"), PAIRS)
def test_every_pair_of_slots_has_a_view_of_an_odd_sized_image(base, ld, gas):
    module = slot("ld", ld)
    if not isinstance(module, nn.Module):  # a factory, because it reads the maps
        module = module(in_channels=base.model.neck.channels, in_strides=base.model.neck.strides)
    base.model.ld = module.eval()
    for ga in gas:
        base.model.ga = slot("ga", ga).eval()
        view = inspect_network(base, random_image(), [(66, 60)])
        assert view.labels.shape == (61, 67)
        attention = view.attention[0].values[0, 0]
        assert attention.shape == (16, 17) and attention.isfinite().all()
        assert attention[15, 16] > 0
        assert (view.ld is None) == (view.labels_without_ld is None) == (ld == "none")
        if ld != "none":
            assert view.ld.shape == (61, 67) and np.isfinite(view.ld).all()
            assert 0 <= view.ld.min() <= view.ld.max() <= 1
            assert view.maps["ld/map"].shape[-2:] == (16, 17)


def test_map_of_mask_is_that_of_the_forward_pass(monkeypatch):
    net = network("model/ga=psp", "model/ld=mask")
    view = inspect_network(net, random_image(), [(0, 0)])
    used = []
    monkeypatch.setattr(torch, "sigmoid", lambda x, f=torch.sigmoid: used.append(f(x)) or used[-1])
    with torch.no_grad():
        net.model(random_image()[None])
    assert len(used) == 1  # the mask is the only sigmoid of this network
    assert torch.equal(view.maps["ld/map"].values, used[0])
    expected = torch.nn.functional.interpolate(
        used[0].mean(1, keepdim=True), (61, 67), mode="bilinear"
    )
    np.testing.assert_allclose(view.ld, expected[0, 0], rtol=1e-5)


def test_maps_have_the_scale_of_the_inference(monkeypatch):
    half = ("inference=multi_scale", "inference.scales=[0.5]", "inference.flip=false")
    net = network("model/ga=psp", "model/ld=mask", *half)
    view = inspect_network(net, random_image(), [(66, 60)])
    used = []
    monkeypatch.setattr(torch, "sigmoid", lambda x, f=torch.sigmoid: used.append(f(x)) or used[-1])
    net.inference.predict(net.model, random_image()[None])
    assert used[0].shape[-2:] == (8, 9)  # of 31 x 34 pixels
    assert torch.equal(view.maps["ld/map"].values, used[0])
    assert view.ld.shape == view.labels.shape == (61, 67)
    assert view.attention[0].values[0, 0, 7, 8] > 0


def test_prediction_without_ld_is_that_of_the_context():
    net = network("model/ga=psp", "model/ld=mask")
    ld = net.model.ld
    with torch.no_grad():
        parts = net.model.aggregate(random_image()[None])
        logits = net.model.head(parts.maps, parts.context)
        net.model.head.classify.bias -= logits.mean((0, 2, 3))  # else one class wins everywhere
        logits -= logits.mean((0, 2, 3), keepdim=True)
    view = inspect_network(net, random_image())
    assert net.model.ld is ld
    scores = torch.nn.functional.interpolate(logits, (61, 67), mode="bilinear")
    assert np.mean(view.labels_without_ld == scores.argmax(1)[0].numpy()) > 0.999
    assert view.changed == np.mean(view.labels != view.labels_without_ld) > 0


def test_ld_is_restored_when_the_pass_fails():
    net = network("model/ga=psp", "model/ld=mask")
    ld = net.model.ld
    with pytest.raises(RuntimeError), no_distribution(net.model):
        raise RuntimeError
    assert net.model.ld is ld


@pytest.mark.parametrize(
    ("query", "align_corners", "cell"),
    [
        ((0, 0), False, (0, 0)),
        ((66, 60), False, (7, 8)),
        ((7, 0), False, (0, 1)),  # 7.5 * 9 / 67 = 1.007
        ((6, 0), False, (0, 0)),
        ((66, 60), True, (7, 8)),
        ((4, 4), True, (0, 0)),
        ((5, 5), True, (1, 1)),  # nearest node of 60 / 7 px apart, 66 / 8 px
    ],
)
def test_cell_of_a_pixel(query, align_corners, cell):
    assert cell_of(query, (61, 67), (8, 9), align_corners) == cell


def test_default_queries_are_deep_inside_the_most_frequent_classes():
    labels = np.zeros((20, 30), np.uint8)
    labels[:, 20:] = 2
    labels[0, 0] = 1
    assert inner_pixels(labels, 2)[1][0] in (24, 25)
    (x, y), *_ = inner_pixels(labels, 1)
    assert 9 <= x <= 10 and 9 <= y <= 10
    assert inner_pixels(labels, 5)[2] == (0, 0)


@pytest.mark.parametrize("query", [(67, 0), (0, 61), (-1, 0)])
def test_query_outside_of_the_image_is_refused(query):
    with pytest.raises(
        ValueError, match=r"outside of the image of 67x61 px; choose X from 0 to 66 "
    ):
        check_queries([query], random_image())


def test_equal_features_are_drawn_once():
    names, _ = distinct_features(
        inspect_network(network("model/ga=psp", "model/ld=mask"), random_image())
    )
    assert names == ["ga/input = ld/x", "ga/output = ld/context", "ld/output"]
    ld_first = network("model/ga=psp", "model/ld=mask", "model.order=ld_ga")
    names, _ = distinct_features(inspect_network(ld_first, random_image()))
    assert names == ["ga/input = ld/output", "ga/output", "ld/context = ld/x"]


def test_colours_use_one_common_basis():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 5, 7))
    a[2] *= 50  # the first component
    (one, two), (first, second) = common_colours([a, a + 0.0])
    assert np.array_equal(one, two) and np.array_equal(first, second)
    assert one.shape == (5, 7, 3) and 0 <= one.min() <= one.max() <= 1
    assert abs(np.corrcoef(first.ravel(), a[2].ravel())[0, 1]) > 0.99
    (plain, shifted), _ = common_colours([a, a + 100])
    assert shifted.mean() != pytest.approx(plain.mean(), abs=0.1)
