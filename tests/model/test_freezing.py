"""Frozen weights and statistics, gradient checkpointing, and parameters without a gradient."""

import re

import pytest
import timm
import torch
from hydra.utils import instantiate
from torch import nn

from gald.config import compose
from gald.loss.cross_entropy import CrossEntropy
from gald.loss.deep_supervision import DeepSupervision
from gald.model.backbone import TimmBackbone
from gald.model.freezing import batch_norms
from gald.run.checkpoint import read_checkpoint

TINY = [
    "data=synthetic",
    "data.size=[48,64]",
    "data.train_transform.crop_size=[48,64]",
    "data.train_count=4",
    "data.val_count=2",
    "data.global_batch_size=2",
    "data.num_workers=0",
    "model.channels=16",
    "trainer.accelerator=cpu",
    "logger=csv",
    "report=false",
    "metrics=miou",
    "test=false",
]


def build(*overrides: str):
    cfg = compose("train", ["model.channels=16", "model.backbone.name=test_resnet", *overrides])
    return instantiate(cfg.model, num_classes=5)


def step(model, lr=0.1):
    """Train one step on random pixels; return the loss."""
    torch.manual_seed(0)
    image, mask = torch.rand(2, 3, 65, 97), torch.randint(5, (2, 65, 97))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr, weight_decay=0.1)
    loss = DeepSupervision(CrossEntropy(), CrossEntropy())(model(image), mask)
    loss.backward()
    optimizer.step()
    return loss.item()


def changed(module, before):
    return {
        key for key, value in module.state_dict().items() if not torch.equal(value, before[key])
    }


def copy_of(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.integration
def test_frozen_stages_keep_weights_and_statistics_through_a_real_training(
    gald_cli, tmp_path, capsys
):
    source = timm.create_model("test_resnet", features_only=True).state_dict()
    torch.save(source, tmp_path / "weights.pth")
    options = ["frozen=2", f"weights={tmp_path / 'weights.pth'}", "name=test_resnet"]
    backbone = [f"model.backbone.{option}" for option in options]
    run = [*TINY, *backbone, "trainer.max_epochs=1", "task.layer_decay=0.5"]
    gald_cli("train", *run, f"output_dir={tmp_path / 'run'}")
    printed = capsys.readouterr()
    assert "frozen or unused" in printed.out and "layer 4" in printed.out
    assert "eval mode" not in printed.err + printed.out
    trained = read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt").weights
    kept = {
        key for key, value in source.items() if torch.equal(trained[f"backbone.net.{key}"], value)
    }
    assert kept >= {key for key in source if key.startswith(("conv1", "bn1", "layer1", "layer2"))}
    moved = {key for key in source if key.startswith(("layer3", "layer4"))} - kept
    assert moved >= {
        key for key in moved | kept if re.match(r"layer[34].*(conv\d.weight|_var)", key)
    }


def test_frozen_backbone_is_still_while_the_head_trains():
    model = build("model.backbone.frozen=true").train()
    before = copy_of(model)
    step(model)
    names = changed(model, before)
    assert {name for name in names if name.startswith("head.")}
    assert not {name for name in names if name.startswith("backbone.")}
    assert not any(module.training for module in model.backbone.net.modules())
    assert model.head.training


def test_frozen_zero_is_the_stem_as_in_mmseg():
    backbone = TimmBackbone("test_resnet", frozen=0)
    still = {key.split(".")[0] for key, p in backbone.net.named_parameters() if not p.requires_grad}
    assert still == {"conv1", "bn1"}
    assert all(p.requires_grad for p in TimmBackbone("test_resnet").parameters())


@pytest.mark.parametrize(
    ("name", "still"),
    [
        ("test_convnext", {"stem_0", "stem_1", "stages_0"}),
        ("test_efficientnet", {"conv_stem", "bn1", "blocks.0"}),
        ("test_vit", {"model.patch_embed", "model.blocks.0"}),
    ],
)
def test_stages_of_other_families(name, still):
    assert set(TimmBackbone(name, frozen=1).kept_in_eval) == still


def test_frozen_batch_norm_keeps_statistics_and_trains_scales():
    model = build("model.backbone.frozen_bn=true").train()
    before = copy_of(model.backbone)
    zeros = {key for key, value in before.items() if not value.any()}
    step(model)
    names = changed(model.backbone, before)
    assert not {name for name in names if "running" in name or "tracked" in name}
    norms = [name for name, m in model.backbone.named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) > 5 and {f"{name}.weight" for name in norms} - names <= zeros
    assert not any(model.backbone.get_submodule(name).training for name in norms)
    assert model.backbone.training and model.head.refine.norm.training


def test_checkpointing_gives_the_same_loss_gradients_and_statistics():
    plain, again = build().train(), build("model.backbone.grad_checkpointing=true").train()
    again.load_state_dict(plain.state_dict())
    for _ in range(2):
        plain.zero_grad(), again.zero_grad()
        assert step(again) == pytest.approx(step(plain))
        for a, b in zip(again.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(again.state_dict()[key], value)
    assert batch_norms(again.backbone)[0].momentum == 0.1


def test_checkpointing_keeps_less_for_the_backward_pass():
    def kept(**options):
        elements = []
        backbone = TimmBackbone("test_resnet", **options)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: elements.append(t.numel()) or t, lambda t: t
        ):
            backbone(torch.rand(2, 3, 64, 64))
        return sum(elements)

    assert kept(grad_checkpointing=True) < 0.8 * kept()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frozen": 5}, "frozen is 5, but test_resnet has a stem and 4 stages; .* at most 4"),
        ({"frozen": -1}, "frozen is -1; set it to false .* true .* or N"),
        ({"frozen": "stem"}, "frozen is 'stem'; set it to false .* true .* or N"),
        ({"levels": [7]}, r"test_resnet has no levels \[7\]; set model.backbone.levels=null"),
    ],
)
def test_impossible_options_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        TimmBackbone("test_resnet", **options)


def test_options_without_effect_are_refused():
    with pytest.raises(ValueError, match=r"test_vit has no batch norm.*frozen_bn=false"):
        TimmBackbone("test_vit", frozen_bn=True)
    with pytest.raises(ValueError, match=r"dla46_c cannot .*; set .*grad_checkpointing=false"):
        # all stages but the first and the last could be computed again, and there is only one
        TimmBackbone("dla46_c", levels=[0], grad_checkpointing=True)


@pytest.mark.integration
def test_random_weights_are_not_frozen_and_a_frozen_norm_of_them_is_reported(
    gald_cli, tmp_path, capsys
):
    words = [*TINY, "model.backbone.name=test_resnet", f"output_dir={tmp_path / 'run'}"]
    with pytest.raises(ValueError, match=r"frozen is 1, but .*weights is null.*init_from=RUN"):
        gald_cli("train", *words, "model.backbone.frozen=1")
    assert not (tmp_path / "run" / "checkpoints").exists()
    frozen = ["model.backbone.frozen_bn=true", "trainer.max_epochs=1"]
    gald_cli("train", *words, *frozen)
    assert "batch norm of test_resnet keeps the initial statistics" in capsys.readouterr().out


# parameters without a gradient


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("overrides", "idle"),
    [
        (["model.backbone.name=hrnet_w18_small", "model/neck=none"], True),
        (["model.backbone.name=hrnet_w18_small", "model/neck=fpn"], False),
        (["model.backbone.name=resnet18", "model.backbone.levels=[0,1,2]"], False),
    ],
)
def test_every_parameter_that_trains_gets_a_gradient(overrides, idle):
    model = build("model.backbone.output_stride=null", *overrides).train()
    step(model, lr=0.0)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None), name
    assert idle == any(not p.requires_grad for p in model.parameters())


def test_idle_parameters_of_a_module_of_the_user_do_not_train():
    class Odd(nn.Identity):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(1))

    model = build("model/ga=none")
    model.ga = Odd()
    before = copy_of(model)
    state = torch.get_rng_state()
    model.stop_idle_parameters()
    assert not model.ga.unused.requires_grad and not changed(model, before)
    assert torch.equal(torch.get_rng_state(), state)
    assert sum(not p.requires_grad for p in model.parameters()) == 1


@pytest.mark.slow
def test_network_with_unread_maps_trains_on_two_processes(console, tmp_path):
    hrnet = ["model.backbone.name=hrnet_w18_small", "model.backbone.output_stride=null"]
    words = [*TINY, *hrnet, "trainer=ddp_cpu", "trainer.devices=2", "trainer.max_epochs=1"]
    words.remove("trainer.accelerator=cpu")
    done = console("train", *words, "output_dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "results.json").is_file()
