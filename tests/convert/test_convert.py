"""Conversion of the authors' state dicts, with random numbers, to run folders of gald."""

import argparse
import json
import os
import sys
from pathlib import Path

import fake
import pytest
import torch
from torch.nn import functional as F

import gald
from gald import cli
from gald.convert.convert import convert
from gald.data.cityscapes import Cityscapes
from gald.run.checkpoint import read_checkpoint

GOLDEN = Path(os.environ.get("GALD_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
BLOCKS = {"res50": (3, 4, 6, 3), "res101": (3, 4, 23, 3)}


class Shapes(dict):
    """Names and shapes of a state dict, added layer by layer."""

    def conv(self, name, out, into, *kernel, bias=False):
        self[f"{name}.weight"] = (out, into, *kernel)
        if bias:
            self[f"{name}.bias"] = (out,)

    def norm(self, name, width):
        for part in ("weight", "bias", "running_mean", "running_var"):
            self[f"{name}.{part}"] = (width,)
        self[f"{name}.num_batches_tracked"] = ()

    def unit(self, name, out, into, *kernel, bias=False):
        self.conv(f"{name}.0", out, into, *kernel, bias=bias)
        self.norm(f"{name}.1", out)


def backbone_shapes(depth):
    shapes = Shapes()
    shapes.unit("conv1", 64, 3, 3, 3)
    shapes.conv("conv1.3", 64, 64, 3, 3)
    shapes.norm("conv1.4", 64)
    shapes.conv("conv1.6", 128, 64, 3, 3)
    shapes.norm("bn1", 128)
    width = 128
    for stage, (blocks, planes) in enumerate(zip(BLOCKS[depth], (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            name = f"layer{stage + 1}.{block}"
            shapes.conv(f"{name}.conv1", planes, width, 1, 1)
            shapes.conv(f"{name}.conv2", planes, planes, 3, 3)
            shapes.conv(f"{name}.conv3", 4 * planes, planes, 1, 1)
            for norm, out in (("bn1", planes), ("bn2", planes), ("bn3", 4 * planes)):
                shapes.norm(f"{name}.{norm}", out)
            if block == 0:
                shapes.unit(f"{name}.downsample", 4 * planes, width, 1, 1)
            width = 4 * planes
    return shapes


def gald_shapes(shapes):
    block = "head.a2block"
    shapes.unit(f"{block}.down", 512, 1, 3, 3, bias=True)
    for part in "tpg":
        shapes.conv(f"{block}.long_relation.{part}", 256, 512, 1, 1)
    shapes.conv(f"{block}.long_relation.z", 512, 32, 1, 1)
    shapes |= {f"{block}.long_relation.gn.{part}": (512,) for part in ("weight", "bias")}
    for step in "123":
        shapes.unit(f"{block}.local_attention.dconv{step}", 512, 1, 3, 3, bias=True)


def dual_shapes(shapes):
    block = "head.dualgcn"
    for name, norm, out, into, kernel in (
        ("phi", "bn_phi", 256, 512, (1, 1)),
        ("theta", "bn_theta", 128, 512, (1, 1)),
        ("conv_adj", "bn_adj", 128, 128, (1,)),
        ("conv_wg", "bn_wg", 256, 256, (1,)),
        ("conv3", "bn3", 512, 256, (1, 1)),
        ("gcn_local_attention.conv_wg", "gcn_local_attention.bn_wg", 256, 256, (1,)),
    ):
        shapes.conv(f"{block}.{name}", out, into, *kernel)
        shapes.norm(f"{block}.{norm}", out)
    for step in (0, 2, 4):
        shapes.conv(f"{block}.local.{step}", 512, 1, 3, 3)
        shapes.norm(f"{block}.local.{step + 1}", 512)
    for part in "kvq":
        shapes.conv(f"{block}.gcn_local_attention.node_{part}", 256, 512, 1, 1, bias=True)
    shapes.unit(f"{block}.gcn_local_attention.out", 512, 256, 1, 1, bias=True)
    shapes.unit(f"{block}.final", 512, 1024, 1, 1)


def shapes_of(network, classes=19):
    family, depth = network.split("_")
    shapes = backbone_shapes(depth)
    shapes.unit("head.conva", 512, 2048, 3, 3)
    {"GALD": gald_shapes, "DualSeg": dual_shapes}[family](shapes)
    shapes.unit("head.convb", 512, 512, 3, 3)
    shapes.unit("head.bottleneck", 512, 2560, 3, 3)
    shapes.conv("head.bottleneck.3", classes, 512, 1, 1, bias=True)
    shapes.unit("dsn", 512, 1024, 3, 3, bias=True)
    shapes.conv("dsn.4" if family == "GALD" else "dsn.3", classes, 512, 1, 1, bias=True)
    return shapes


def weights(network, classes=19):
    """Random numbers that keep activations near 1, so that an error in any layer is visible."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in shapes_of(network, classes).items():
        value = torch.randn(shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            value = torch.tensor(len(state))
        elif name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
            value = 1 + 0.2 * torch.rand(shape, generator=generator)
        elif name.endswith("weight"):
            value /= value[0].numel() ** 0.5
        else:
            value *= 0.2
        state[name] = value
    if network.startswith("DualSeg"):  # else sums over the map dominate the positional branch
        state["head.dualgcn.bn_wg.running_var"] *= 1e4
        state["head.dualgcn.bn3.running_var"] *= 1e4
        state["head.dualgcn.gcn_local_attention.node_q.weight"] *= 0.1
    return state


class Authors:
    """The forward pass of GALDNet.py and DualGCNNet.py in eval mode, with their tensor names."""

    def __init__(self, state):
        self.state = state

    def conv(self, name, x, **options):
        weight = self.state[f"{name}.weight"]
        function = F.conv1d if weight.ndim == 3 else F.conv2d
        return function(x, weight, self.state.get(f"{name}.bias"), **options)

    def norm(self, name, x):
        parts = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(self.state[f"{name}.{part}"] for part in parts))

    def unit(self, name, x, **options):
        return self.norm(f"{name}.1", self.conv(f"{name}.0", x, **options)).relu()

    def bottleneck(self, name, x, stride, dilation):
        y = self.norm(f"{name}.bn1", self.conv(f"{name}.conv1", x)).relu()
        options = {"stride": stride, "padding": dilation, "dilation": dilation}
        y = self.norm(f"{name}.bn2", self.conv(f"{name}.conv2", y, **options)).relu()
        y = self.norm(f"{name}.bn3", self.conv(f"{name}.conv3", y))
        if f"{name}.downsample.0.weight" in self.state:
            x = self.norm(
                f"{name}.downsample.1", self.conv(f"{name}.downsample.0", x, stride=stride)
            )
        return (y + x).relu()

    def stage(self, number, x, stride, dilations):
        block = 0
        while f"layer{number}.{block}.conv1.weight" in self.state:
            dilation = dilations[block % len(dilations)]
            x = self.bottleneck(f"layer{number}.{block}", x, 1 if block else stride, dilation)
            block += 1
        return x

    def gald_block(self, name, x):
        size = x.shape[2:]
        x = self.unit(f"{name}.down", x, stride=2, groups=512)
        t, p, g = (self.conv(f"{name}.long_relation.{part}", x) for part in "tpg")
        groups = []
        for i in range(0, 256, 32):
            scalar = (p[:, i : i + 32] * g[:, i : i + 32]).sum((1, 2, 3), keepdim=True)
            groups.append(scalar * t[:, i : i + 32])
        z = self.conv(f"{name}.long_relation.z", torch.cat(groups, 1), groups=8)
        gn = (self.state[f"{name}.long_relation.gn.{part}"] for part in ("weight", "bias"))
        x = x + F.group_norm(z, 8, *gn)
        x = F.interpolate(x, size, mode="bilinear", align_corners=True)
        y = x
        for step in "123":
            y = self.unit(f"{name}.local_attention.dconv{step}", y, stride=2, groups=512)
        mask = F.interpolate(y, size, mode="bilinear", align_corners=True).sigmoid()
        return x + x * mask + x

    def dual_gcn(self, name, x):
        gcn = f"{name}.gcn_local_attention"
        local = x
        for step in (0, 2, 4):
            local = self.conv(f"{name}.local.{step}", local, stride=2, padding=1, groups=512)
            local = self.norm(f"{name}.local.{step + 1}", local)
        k, v, q = (self.conv(f"{gcn}.node_{part}", local).flatten(2) for part in "kvq")
        graph = (q @ v.transpose(1, 2)).softmax(2)
        y = self.conv(f"{gcn}.conv_wg", (k.transpose(1, 2) @ graph).transpose(1, 2))
        y = self.norm(f"{gcn}.bn_wg", y).unflatten(2, local.shape[2:])
        local = (self.norm(f"{gcn}.out.1", self.conv(f"{gcn}.out.0", y)) + local).relu()
        local = F.interpolate(local, x.shape[2:], mode="bilinear", align_corners=True)
        phi = self.norm(f"{name}.bn_phi", self.conv(f"{name}.phi", x)).flatten(2)
        theta = self.norm(f"{name}.bn_theta", self.conv(f"{name}.theta", x)).flatten(2)
        z = phi @ theta.transpose(1, 2)
        step = self.conv(f"{name}.conv_adj", z.transpose(1, 2))
        z = z + self.norm(f"{name}.bn_adj", step).transpose(1, 2)
        z = self.norm(f"{name}.bn_wg", self.conv(f"{name}.conv_wg", z))
        y = self.conv(f"{name}.conv3", (z @ theta).unflatten(2, x.shape[2:]))
        y = (x + self.norm(f"{name}.bn3", y)).relu()
        y = self.conv(f"{name}.final.0", torch.cat([x * local + x, y], 1))
        return self.norm(f"{name}.final.1", y)

    def __call__(self, x):
        """Scores of the main and of the auxiliary head."""
        x = self.unit("conv1", x, stride=2, padding=1)
        x = self.norm("conv1.4", self.conv("conv1.3", x, padding=1)).relu()
        x = self.norm("bn1", self.conv("conv1.6", x, padding=1)).relu()
        x = F.max_pool2d(x, 3, stride=2, padding=1, ceil_mode=True)
        x = self.stage(2, self.stage(1, x, 1, (1,)), 2, (1,))
        x = self.stage(3, x, 1, (2,))
        gald = "dsn.4.weight" in self.state
        aux = self.norm("dsn.1", self.conv("dsn.0", x, padding=1))
        aux = self.conv("dsn.4", aux.relu()) if gald else self.conv("dsn.3", aux)
        x = self.stage(4, x, 1, (4, 8, 16))
        y = self.unit("head.conva", x, padding=1)
        y = self.gald_block("head.a2block", y) if gald else self.dual_gcn("head.dualgcn", y)
        y = self.unit("head.convb", y, padding=1)
        y = self.unit("head.bottleneck", torch.cat([x, y], 1), padding=1)
        return self.conv("head.bottleneck.3", y), aux


def bgr(image):
    return image.flip(1).float() - torch.tensor([104.00698793, 116.66876762, 122.67891434]).view(
        1, 3, 1, 1
    )


def rgb(image):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    return (image.float() / 255 - mean) / torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def same(found, expected):
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A state dict and the folder it was converted to, created once per network."""
    done = {}

    def once(network, wrap=dict):
        if network not in done:
            folder = tmp_path_factory.mktemp(network)
            state = weights(network)
            torch.save(wrap(state), folder / "official.pth")
            convert(folder / "official.pth", folder / "run")
            done[network] = state, folder / "run"
        return done[network]

    return once


@pytest.mark.parametrize(
    "network", ["GALD_res50", "GALD_res101", "DualSeg_res50", "DualSeg_res101"]
)
def test_names_and_shapes_match_the_authors_networks(network):
    path = GOLDEN / "reference_state_dicts.json"
    if not path.exists():
        pytest.skip(f"{path} is not there; set GALD_GOLDEN to the folder of golden outputs")
    reference = json.loads(path.read_text())[network]
    assert {key: list(shape) for key, shape in shapes_of(network).items()} == reference


@pytest.mark.integration
@pytest.mark.parametrize(
    ("network", "normalise"),
    [
        ("GALD_res50", bgr),
        pytest.param("DualSeg_res50", rgb, marks=pytest.mark.slow),
        pytest.param("GALD_res101", bgr, marks=pytest.mark.slow),
    ],
)
def test_converted_network_gives_the_outputs_of_the_authors_network(network, normalise, converted):
    state, folder = converted(network)
    model = gald.load(folder).model
    image = torch.randint(0, 256, (1, 3, 125, 120), dtype=torch.uint8)
    with torch.no_grad():
        out = model(image)
        logits, aux = Authors(state)(normalise(image))
    assert out.logits.shape == (1, 19, 16, 16)  # the pool rounds up: 120 / 8 + 1
    same(out.logits, logits)
    same(out.aux, aux)


@pytest.mark.integration
@pytest.mark.one_in(2)
@pytest.mark.parametrize("network", ["GALD_res50", "DualSeg_res50"])
def test_every_tensor_is_copied_once_and_unchanged(network, converted):
    state, folder = converted(network)
    ours = read_checkpoint(folder).weights
    assert len(ours) == len(state)

    def content(tensors):
        return sorted((t.numel(), *t.flatten()[:3].tolist(), t.double().sum()) for t in tensors)

    assert content(ours.values()) == content(state.values())
    assert torch.equal(ours["reduce.conv.weight"], state["head.conva.0.weight"])
    assert torch.equal(ours["backbone.net.layer3.5.bn2.bias"], state["layer3.5.bn2.bias"])
    assert torch.equal(ours["head.classify.bias"], state["head.bottleneck.3.bias"])


@pytest.mark.integration
def test_gald_eval_evaluates_a_converted_network(converted, tmp_path, monkeypatch):
    _, folder = converted("DualSeg_res50")  # it accepts the tiny images of the toy dataset
    root = fake.cityscapes(tmp_path / "cityscapes")
    arguments = ["data=cityscapes", f"data.root={root}", "data.num_workers=0"]
    arguments += [f"output_dir={tmp_path / 'eval'}", "trainer.accelerator=cpu"]
    monkeypatch.setenv("GALD_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["gald", "eval", f"ckpt_path={folder}", *arguments])
    cli.main()
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["val/receipt"]["images"] == 3 and 0 <= results["val/miou"] <= 1


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["gald", "convert", *map(str, arguments)])
    cli.main()


def save(state, tmp_path):
    torch.save(state, tmp_path / "official.pth")
    return tmp_path / "official.pth"


def cheap(network="GALD_res50", classes=19):
    """A state dict with a small file, because each tensor stores only one number."""
    return {k: torch.zeros(()).expand(s) for k, s in shapes_of(network, classes).items()}


def test_wrapped_and_prefixed_state_with_other_classes_converts(tmp_path, monkeypatch, capsys):
    state = {f"module.{key}": value for key, value in cheap(classes=3).items()}
    source = save({"state_dict": state, "epoch": 3}, tmp_path)
    call(monkeypatch, source, "--to", tmp_path / "run", "--input", "rgb")
    assert "GALD_res50 with 3 classes, input rgb" in capsys.readouterr().out
    about = read_checkpoint(tmp_path / "run").content["gald"]
    assert about["class_names"] == ["class_0", "class_1", "class_2"]
    assert len({tuple(colour) for colour in about["palette"]}) == 3
    assert about["config"]["model"]["backbone"]["input"] == "rgb"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["official.pth", "run"]
    assert (tmp_path / "run" / "config.yaml").is_file()


@pytest.mark.integration
@pytest.mark.one_in(3)
@pytest.mark.parametrize("network", ["GALD_res50", "DualSeg_res50"])
def test_state_without_auxiliary_head_and_counters_converts(network, tmp_path, monkeypatch, capsys):
    state = {
        f"module.{key}": torch.full((), float(n)).expand(value.shape)
        for n, (key, value) in enumerate(cheap(network).items())
        if not key.startswith("dsn.") and not key.endswith("num_batches_tracked")
    }
    old = {key: torch.zeros(()).expand(value.shape) for key, value in state.items()}
    content = {"model": old, "model_ema": state | {"n_averaged": torch.tensor(2)}}
    source = save(content | {"args": argparse.Namespace(lr=0.1), "epoch": 3}, tmp_path)
    call(monkeypatch, source, "--to", tmp_path / "run")
    assert (
        f"{network} with 19 classes and without an auxiliary head, input "
        f"{'bgr' if network == 'GALD_res50' else 'rgb'}, from model_ema, without the prefix "
        "module., not from model.module\n"
    ) in capsys.readouterr().out
    model = gald.load(tmp_path / "run").model
    weights = model.state_dict()
    assert model.aux_head is None and weights["backbone.net.bn1.num_batches_tracked"] == 0
    assert torch.equal(weights["head.classify.bias"], state["module.head.bottleneck.3.bias"])
    values = {v.flatten()[0].item() for k, v in weights.items() if not k.endswith("tracked")}
    assert values == {value.item() for v in state.values() for value in v.flatten()[:1]}


def test_nineteen_classes_get_the_names_of_cityscapes(converted):
    about = read_checkpoint(converted("GALD_res50")[1]).content["gald"]
    assert tuple(about["class_names"]) == Cityscapes.class_names
    assert tuple(map(tuple, about["palette"])) == Cityscapes.palette
    assert about["config"]["model"]["backbone"]["input"] == "bgr"


@pytest.mark.slow
def test_deep_dual_network_loads_strictly(tmp_path):
    assert "DualSeg_res101" in convert(save(cheap("DualSeg_res101"), tmp_path), tmp_path / "run")
    model = gald.load(tmp_path / "run").model
    assert len(model.backbone.net["layer3"]) == 23 and model.ga.align_corners


def without(key):
    return lambda state: state.pop(key)


def put(key, *shape):
    return lambda state: state.update({key: torch.zeros(shape)})


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("head.extra.weight", 1), r"has head\.extra\.weight, which GALD_res50 with 19 classes"),
        (put("layer1.3.conv1.weight", 1), r"has layer1\.3\.conv1\.weight, which GALD_res50"),
        (without("layer4.2.bn3.running_var"), r"has no layer4\.2\.bn3\.running_var"),
        (without("dsn.4.bias"), r"has no dsn\.4\.bias, which GALD_res50 with 19 classes needs"),
        (without("head.bottleneck.3.weight"), r"has no head\.bottleneck\.3\.weight"),
        (put("dsn.4.bias", 21), r"dsn\.4\.bias with shape \(21,\), .* needs \(19,\)"),
        (put("head.conva.0.weight", 512, 2048, 1, 1), r"\(512, 2048, 1, 1\), .* 2048, 3, 3\)"),
        (put("head.bottleneck.3.weight", 19), r"with shape \(19,\), .* \(classes, 512, 1, 1\)"),
        (put("conv2.weight", 64, 64, 3, 3), r"conv2\.weight, a stem key from before August 2020"),
        (put("head.dualgcn.phi.weight", 1), r"keys of 2 convertible networks"),
        (dict.clear, r"keys of 0 convertible .* head\.a2block\.\* \(GALD\) or head\.dualgcn"),
        (put("module.conv1.0.weight", 1), r"has module\.conv1\.0\.weight, which GALD_res50"),
        (lambda state: state.update(epoch=3), "epoch in .* is not a tensor"),
        (
            lambda state: state.update({"conv1.4.bias": torch.full((64,), float("nan"))}),
            r"64 of the 64 values of conv1\.4\.bias are nan",
        ),
        (
            lambda state: state.update({"layer1.0.conv1.weight": torch.ones(64, 128, 1, 1).char()}),
            r"layer1\.0\.conv1\.weight as torch\.int8, but GALD_res50 .* torch\.float32",
        ),
        (
            lambda state: state.update({f"b.{k}": v for k, v in state.items()}),
            r"two networks, under its top level and under b;",
        ),
        (lambda state: state.update(gald={}), "is already a checkpoint of gald"),
        (lambda state: state.update(path=Path("x")), "path in .* is not a tensor"),
    ],
)
def test_other_state_dicts_are_refused_and_nothing_is_written(change, message, tmp_path):
    state = cheap()
    change(state)
    source = save(state, tmp_path)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "run")
    assert list(tmp_path.iterdir()) == [source]


def test_errors_about_one_dimensional_weights_use_the_authors_shape(tmp_path):
    state = cheap("DualSeg_res50")
    state["head.dualgcn.conv_adj.weight"] = torch.zeros(128, 128, 1, 1)
    with pytest.raises(ValueError, match=r"\(128, 128, 1, 1\), .* needs \(128, 128, 1\);"):
        convert(save(state, tmp_path), tmp_path / "run")


def test_existing_folder_is_not_overwritten(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="already holds something; choose another folder"):
        convert(tmp_path / "official.pth", tmp_path)
    with pytest.raises(ValueError, match="already holds something"):
        convert(tmp_path / "official.pth", tmp_path / "notes.txt")


def test_no_folder_remains_when_writing_fails(tmp_path, monkeypatch):
    source = save(cheap(), tmp_path)

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="disk full"):
        convert(source, tmp_path / "run")
    assert list(tmp_path.iterdir()) == [source]


def test_bad_command_lines_are_explained(tmp_path, monkeypatch, capsys):
    for arguments, message in (
        ([], "gald convert: it needs FILE; see gald convert --help"),
        (["x.pth", "--to", tmp_path / "run"], "there is no file x.pth"),
        (["x.pth", "--to", "y", "--input", "grb"], '"grb" for --input; choose from: "bgr", "rgb"'),
    ):
        with pytest.raises(SystemExit) as stop:
            call(monkeypatch, *arguments)
        assert stop.value.code == 1 and message in capsys.readouterr().err
