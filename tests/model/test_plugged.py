"""GA and LD inside networks of other libraries: places, equality, training, files, refusals."""

import copy
import json
from pathlib import Path

import pytest
import torch
from hydra.errors import InstantiationException
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

import gald
from gald.config import CONF_DIR, compose
from gald.export.export import _write_onnx
from gald.export.graph import FullImageNetwork, trace
from gald.install.extras import missing_packages
from gald.model.host.fill import fill_host
from gald.model.image_size import round_up
from gald.model.plug.hook import BlockHook
from gald.model.plug.places import Place, probe
from gald.model.plugged import logits_of, network_of
from gald.profiling.flops import part_costs
from gald.run.building import build, build_own
from gald.sweep.compose import Source, compose_cell

SMALL = {  # each host, as small as its library makes it
    "unet": (
        "model.host.encoder=tu-test_resnet",
        "+model.host.options.encoder_depth=4",
        "+model.host.options.decoder_channels=[16,8,8,8]",
    ),
    "deeplabv3plus": ("model.host.encoder=resnet18",),
    "dpt": ("model.host.encoder=tu-test_vit",),
    "lraspp": (),
    "segformer": (
        "+model.host.config.hidden_sizes=[8,16,24,32]",
        "+model.host.config.depths=[1,1,1,1]",
        "+model.host.config.decoder_hidden_size=16",
    ),
    "upernet": (
        "+model.host.config.hidden_size=16",
        "model.host.config.backbone_config.depths=[1,1,1,1]",
        "model.host.config.backbone_config.hidden_sizes=[8,16,24,32]",
    ),
    "fcn": (),
    "deeplabv3": (),
}
EXTRA = dict.fromkeys(("unet", "deeplabv3plus", "dpt"), "smp")
EXTRA |= dict.fromkeys(("segformer", "upernet"), "transformers")
# slow to build, the first two large; unet and lraspp are of the same libraries
SELDOM = ("fcn", "deeplabv3", "deeplabv3plus", "dpt", "segformer", "upernet")


def lacks(name):
    extra = EXTRA.get(name)
    return pytest.mark.skipif(
        extra is not None and bool(missing_packages(extra)), reason=f"extra {extra} is missing"
    )


every_host = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[lacks(name), *([pytest.mark.slow] if name in SELDOM else [])])
        for name in SMALL
    ],
)


def config(name, *words, ga="none", ld="none"):
    own = ["model=plugged", f"model/host={name}", f"model/ga={ga}", f"model/ld={ld}"]
    return compose("train", [*own, *SMALL.get(name, ()), *words]).model


def built(name, *words, **slots):
    torch.manual_seed(0)
    model = config(name, *words, **slots)
    fill_host(model)
    return build_own(model, num_classes=5)


def image(height=67, width=101):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (2, 3, height, width), dtype=torch.uint8, generator=generator)


def alone(network, pixels):
    """The host's logits, computed without any code of the plug."""
    x = pixels.float() / 255
    height, width = (round_up(side, network.multiple) for side in pixels.shape[-2:])
    x = F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))
    host = copy.deepcopy(network_of(network.host))
    for module in host.modules():
        for key, hook in list(module._forward_hooks.items()):
            if isinstance(getattr(hook, "__self__", None), BlockHook):
                del module._forward_hooks[key]
    return logits_of(host((x - network.mean) / network.std)).logits


def test_every_option_of_a_host_is_tested():
    names = {path.stem for path in (CONF_DIR / "model" / "host").glob("*.yaml")}
    assert names == set(SMALL) | {"own"}


@pytest.mark.one_in(2)
@every_host
def test_without_blocks_the_logits_are_the_hosts(name):
    network = built(name).eval()
    with torch.no_grad():
        logits = network(image()).logits
        expected = alone(network, image())
    height, width = logits.shape[-2:]
    assert torch.equal(logits, expected[..., :height, :width])
    stride = network.logits_stride
    assert (height, width) == (-(-67 // stride), -(-101 // stride))


@pytest.mark.integration
@pytest.mark.one_in(2)
@every_host
def test_with_blocks_a_host_trains_at_odd_sizes_and_round_trips(name):
    words = config(name, ga="psp", ld="affinity")
    fill_host(words)
    network = build_own(words, num_classes=5)
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    before = copy.deepcopy(network.state_dict())
    for size in ((67, 101), (49, 65)):
        out = network(image(*size))
        loss = out.logits.float().square().mean()
        loss = loss if out.aux is None else loss + out.aux.float().square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    changed = [key for key, value in network.state_dict().items() if not value.equal(before[key])]
    assert any(key.startswith("ga.") for key in changed)
    assert any(key.startswith("ld.") for key in changed)

    plain = json.loads(json.dumps(OmegaConf.to_container(words, resolve=True)))
    again = build("model", plain, "config.json", num_classes=5)  # as from a stranger's file
    again.load_state_dict(network.state_dict())
    copied = copy.deepcopy(network)
    with torch.no_grad():
        expected = network.eval().logits(image())
        assert torch.equal(again.eval().logits(image()), expected)
        for parameter in copied.parameters():
            parameter.zero_()
        assert torch.equal(network.logits(image()), expected)
        assert not torch.equal(copied.eval().logits(image()), expected)


class Layouts(nn.Module):
    """Maps in all three layouts, a submodule that runs twice, and one that nothing reads."""

    def __init__(self, num_classes=5, width=6):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.norm = nn.LayerNorm(width)
        self.tokens = nn.Linear(width, width)
        self.twice = nn.Conv2d(width, width, 1)
        self.unread = nn.Conv2d(width, width, 1)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.classify = nn.Conv2d(width, num_classes, 1)

    def forward(self, x):
        x = self.stem(x)
        size = x.shape[-2:]
        x = self.norm(x.permute(0, 2, 3, 1)).flatten(1, 2)
        x = self.tokens(torch.cat([self.token.expand(len(x), -1, -1), x], 1))[:, 1:]
        x = x.transpose(1, 2).unflatten(2, size)
        self.unread(x)
        return self.classify(self.twice(self.twice(x)))


class Averaging(nn.Module):
    """A GA that mixes rows and columns differently, so that a wrong layout is seen."""

    def __init__(self, channels=6):
        super().__init__()

    def forward(self, x):
        return x + x.mean(3, keepdim=True) + 2 * x.mean(2, keepdim=True)


def test_places_have_channels_stride_and_layout():
    network = Layouts()
    found = probe(network, network, "Layouts")
    assert found.multiple == 1 and found.stride == 2
    assert found.places == {
        "stem": Place(6, 2),
        "norm": Place(6, 2, "channels_last"),
        "tokens": Place(6, 2, "tokens", 1),
        "classify": Place(5, 2),
    }


@pytest.mark.parametrize("at", ["stem", "norm", "tokens"])
def test_every_layout_gives_the_block_a_map(at):
    torch.manual_seed(0)
    network = Layouts().eval()
    plugged = gald.plug(network, at, ga="none", ld="none").eval()
    plugged.ga = Averaging()
    reference = copy.deepcopy(network)
    reference._modules[at]._forward_hooks.clear()
    x = torch.rand(2, 3, 37, 55)

    def expected(module, inputs, output):
        if at == "stem":
            return plugged.ga(output)
        if at == "norm":
            return plugged.ga(output.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        first, rest = output[:, :1], output[:, 1:]
        cells = rest.transpose(1, 2).reshape(2, 6, 19, 28)
        return torch.cat([first, plugged.ga(cells).flatten(2).transpose(1, 2)], 1)

    reference.get_submodule(at).register_forward_hook(expected)
    with torch.no_grad():
        assert torch.equal(plugged(x), reference(x))


def test_plug_returns_what_the_network_returns():
    class Named(Layouts):
        def forward(self, x, scale=1.0):
            return {"out": scale * super().forward(x), "other": 3}

    network = Named().eval()
    plugged = gald.plug(network, "stem", ga="none", ld="none")
    x = torch.rand(1, 3, 33, 47)
    with torch.no_grad():
        out = plugged(x, scale=2.0)
    assert out["other"] == 3 and out["out"].shape == (1, 5, 17, 24)
    assert {"network.stem.weight"} <= plugged.state_dict().keys()
    assert set(network.state_dict()) == set(Named().state_dict())
    plugged = gald.plug(Named(), "stem", ga="gap", ld="mask").eval()
    with torch.no_grad(), gald.record(plugged) as maps:
        plugged(x)
    assert maps["ld/map"].shape == (1, 6, 17, 24)


@pytest.mark.integration
def test_another_width_starts_as_the_host_and_keeps_its_convolutions():
    network = built("lraspp", "model.channels=16", ga="psp", ld="affinity").eval()
    assert network.reduce.conv.weight.shape == (16, 960, 1, 1)
    with torch.no_grad():
        expected = alone(network, image())
        assert torch.equal(network(image()).logits, expected)


@pytest.mark.integration
def test_maps_of_a_host_are_recorded_and_its_costs_add_up():
    network = built("lraspp", "model.channels=16", ga="cgnl", ld="mask").eval()
    with torch.no_grad(), gald.record(network) as maps:
        network(image())
    assert maps["ga/input"].shape == (2, 16, 5, 7) and maps["ga/input"].stride == 16
    with torch.no_grad():
        assert torch.equal(network.ld_map(image()), maps["ld/map"].values)
    costs = part_costs(network, (64, 96))
    parts = [value for key, value in costs.items() if key.endswith("/gmacs") and "total" not in key]
    assert sum(parts) == pytest.approx(costs["cost/total/gmacs"])
    assert costs["cost/ga/gmacs"] > 0 < costs["cost/host/gmacs"]


REFUSED = {
    "model.at=stages": r"has no place model\.at=stages; choose for example model\.at=\S+ \(stride",
    "model/ga=ocr": r"OCR also reads .*; choose another model/ga",
    "model/ld=lowlevel": r"LowLevelAffinity also reads .*; choose another model/ld",
    "model.host.network=deeplab": r"no segmentation network 'deeplab'; choose .*=deeplabv3",
    "model.host.weights=nowhere.pth": r"nowhere\.pth; set model\.host\.weights to a file or null",
    "model.order=ga": r"model\.order is 'ga'; choose one of ga_ld",
}


@pytest.mark.parametrize("word", REFUSED)
def test_refusals_name_key_and_remedy(word):
    with pytest.raises((ValueError, OSError, InstantiationException), match=REFUSED[word]):
        built("lraspp", word)


def test_network_of_your_own_needs_a_class_and_a_place():
    with pytest.raises(ValueError, match=r"model\.host\._target_ must be set; give the dotted"):
        built("own")
    own = f"model.host._target_={__name__}.Layouts"
    with pytest.raises(ValueError, match=r"model\.at is not set; choose for example model\.at="):
        built("own", own)
    model = config("own", own, "model.at=tokens")
    fill_host(model)
    assert (model.at, model.channels) == ("tokens", 6)


@pytest.mark.integration
def test_block_that_no_longer_runs_is_noticed():
    """Synchronised batch norm takes the place of a batch norm, without its hooks."""
    model = config("lraspp", "model.at=backbone.0.1", ga="gap")
    fill_host(model)
    network = nn.SyncBatchNorm.convert_sync_batchnorm(build_own(model, num_classes=5)).eval()
    with pytest.raises(ValueError, match=r"GA and LD did not run: model\.at=backbone\.0\.1 was"):
        network(image())


class FixedSize(nn.Module):
    def __init__(self, num_classes=5):
        super().__init__()
        self.layer = nn.Linear(32 * 32, num_classes)

    def forward(self, x):
        return self.layer(x.mean(1).flatten(1))[:, :, None, None]


def test_network_for_one_size_is_refused_with_its_reason():
    with pytest.raises(ValueError, match=r"FixedSize does not give logits .* choose another"):
        gald.plug(FixedSize(), "layer")


@pytest.mark.integration
@lacks("segformer")
def test_folder_of_transformers_gives_config_and_weights(tmp_path):
    from transformers import AutoConfig, AutoModelForSemanticSegmentation

    shape = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16}
    settings = AutoConfig.for_model("segformer", **shape, num_labels=3)
    trained = AutoModelForSemanticSegmentation.from_config(settings)
    trained.save_pretrained(tmp_path)
    model = config("segformer", f"model.host.weights={tmp_path}")
    model.host.config = {"model_type": "segformer"}
    fill_host(model)
    assert model.host.config.hidden_sizes == [8, 16, 24, 32]
    network = build_own(model, num_classes=5)
    ours, theirs = network.host.network.state_dict(), trained.state_dict()
    same = [key for key in theirs if "classifier" not in key]
    assert same and all(torch.equal(ours[key], theirs[key]) for key in same)
    assert network(image()).logits.shape[1] == 5

    model.host.config.depths = [1, 2, 1, 1]
    with pytest.raises(InstantiationException, match=r"has no weights that fit segformer\."):
        build_own(model, num_classes=5)


@lacks("segformer")
@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "segformer", "auto_map": {"AutoConfig": "x--y"}},
        {"model_type": "upernet", "backbone": "owner/name"},
        {"model_type": "upernet", "backbone_config": {"use_pretrained_backbone": True}},
        {"model_type": "llama"},
    ],
)
def test_config_of_a_stranger_fetches_and_runs_nothing(config):
    plain = {
        "_target_": "gald.model.plugged.Plugged",
        "host": {
            "_target_": "gald.model.host.transformers.TransformersHost",
            "_partial_": True,
            "config": config,
        },
        "ga": {"_target_": "torch.nn.Identity"},
        "ld": {"_target_": "gald.model.ld.none.NoDistribution"},
        "channels": 8,
    }
    with pytest.raises(ValueError, match=r"model\.host\.config\.\S+ is "):
        build("model", plain, "config.json", num_classes=5)
    plain["host"]["_target_"] = "torchvision.models.get_model"
    with pytest.raises(
        ValueError, match=r"would call torchvision\.models\.get_model as model\.host"
    ):
        build("model", plain, "config.json", num_classes=5)


TINY = ("data.train_transform.crop_size=[24,32]", "data.num_workers=0", "data.global_batch_size=2")
TINY += ("trainer.accelerator=cpu", "trainer.max_epochs=1", "logger=csv", "report=false")
TINY += ("metrics=miou", "model.channels=16")


@pytest.mark.slow
@lacks("unet")
def test_host_goes_through_every_command(gald_cli, tmp_path, camvid, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = ("data=camvid", f"data.root={camvid}")
    host = ("model=plugged", "model/host=unet", *SMALL["unet"], "model/ga=psp", "model/ld=affinity")
    gald_cli("train", *host, *data, *TINY, "output_dir=run")
    out = capsys.readouterr().out
    assert "unet on tu-test_resnet (random weights)" in out and "ga=psp ld=affinity" in out
    assert "warning: the host starts from random weights" in out and "host, no decay" in out
    model = OmegaConf.load("run/config.yaml").model
    assert (model.at, model.channels) == ("encoder", 16)
    results = json.loads(Path("run/results.json").read_text())
    assert results["cost/host/params"] > 0 < results["cost/expand/params"]
    gald_cli("eval", "ckpt_path=run", "split=test", "output_dir=evaluated", "data.num_workers=0")
    gald_cli("eval", "--check", "evaluated/results.json")
    gald_cli("export", "run", "--to", "saved", "--format", "pretrained")
    assert gald.load("saved").fingerprint() == gald.load("run").fingerprint()
    picture = next((camvid / "test").glob("*"))
    gald_cli("predict", "saved", str(picture), "--to", "predicted", "--ld-map", "png")
    gald_cli("viz", "run", "--image", str(picture), "--to", "seen")
    gald_cli("profile", *host, "model.channels=16", "size=[32,48]", "rounds=1", "output_dir=cost")
    assert "host/train/gmacs" in json.loads(Path("cost/profile.json").read_text())
    with pytest.raises(ValueError, match="cannot be resumed with other options"):
        gald_cli(
            "train", *host, *data, *TINY, "model.at=decoder", "output_dir=run", "ckpt_path=last"
        )


@pytest.mark.slow
def test_cell_of_a_sweep_and_its_plan_get_the_width_of_the_place(gald_cli, tmp_path, capsys):
    host = ["model=plugged", "model/host=lraspp", "model.at=backbone.4", "model/ga=gap"]
    model = compose_cell(host, Source(), tmp_path / "cell").model
    assert model.channels == model.ga.channels == model.ld.channels == 40
    gald_cli("sweep", "plan", *host, "model/ld=none,gate", "seed=0", *TINY[:4])
    out = capsys.readouterr().out
    assert "2 cells" in out and "cannot train" not in out


@pytest.mark.slow
@every_host
def test_checkpoint_of_a_host_is_loaded_and_exported(name, gald_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host = (
        "model=plugged",
        f"model/host={name}",
        *SMALL[name],
        "model/ga=psp",
        "model/ld=affinity",
    )
    data = ("data.size=[49,65]", "data.train_count=4", "data.val_count=2", "data.test_count=2")
    crop = "data.train_transform.crop_size=[49,65]"
    gald_cli("train", *host, *data, *TINY, crop, "output_dir=run")
    gald_cli("export", "run", "--to", "saved", "--format", "pretrained")
    assert Path("saved/model.safetensors").is_file()
    run, saved = gald.load("run"), gald.load("saved")
    assert run.fingerprint() == saved.fingerprint()
    with torch.no_grad():
        assert torch.equal(run.model.logits(image()), saved.model.logits(image()))


@pytest.mark.slow
@lacks("unet")
def test_ablation_of_a_host_is_tabulated(gald_cli, tmp_path, camvid, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    host = (
        "model=plugged",
        "model/host=unet",
        *SMALL["unet"],
        "data=camvid",
        f"data.root={camvid}",
    )
    gald_cli(
        *("train", "-m", *host, *TINY, "model/ga=none,psp", "model/ld=none,affinity"),
        *("name=hosts", "seed=0", "model.channels=null"),
    )
    gald_cli("table", "runs/hosts")
    out = capsys.readouterr().out
    assert all(arm in out for arm in ("ga=none ld=none", "ga=psp ld=affinity"))


@pytest.mark.slow
@every_host
def test_onnx_of_a_host_gives_the_same_scores_at_any_size(name, tmp_path):
    pytest.importorskip("onnxruntime")
    network = built(name, "model.channels=16", ga="psp", ld="affinity").eval()
    if network.expand is not None:
        nn.init.normal_(network.expand.weight, std=0.1)
    whole = FullImageNetwork(network).eval()
    program = trace(whole, torch.cat([image(161, 225)] * 2), fixed=False)
    run = _write_onnx(program, tmp_path / "net.onnx", {}, None, fixed=False)
    for pixels in (image(), image(97, 64)[:1]):
        with torch.no_grad():
            expected, _ = whole(pixels)
        scores, labels = run(pixels)
        assert (scores - expected).abs().max() < 1e-3 * expected.abs().max() + 1e-6
        assert labels.shape == expected.argmax(1).shape


@pytest.mark.slow
def test_modules_lists_hosts_and_their_places(gald_cli, capsys):
    gald_cli("modules")
    assert "DeepLabV3 of torchvision" in capsys.readouterr().out
    gald_cli("modules", "lraspp", "--ga", "cgnl", "--ld", "mask", "--size", "64", "96")
    out = capsys.readouterr().out
    assert "backbone (default)" in out and "model.at=backbone model/ga=cgnl model/ld=mask" in out
    with pytest.raises(ValueError, match=r"there is no host 'unett'; choose one of deeplabv3"):
        gald_cli("modules", "unett")
