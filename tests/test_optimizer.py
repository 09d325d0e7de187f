import collections
import copy
import json
from functools import partial

import pytest
import torch
from hydra.utils import instantiate
from rich.console import Console
from torch import nn

from gald.config import CONF_DIR, compose
from gald.errors import to_sentence
from gald.optimizer import (
    build_optimizer,
    group_table,
    parameter_groups,
    refuse_fused_clipping,
)
from gald.options.check import check_config
from gald.options.roots import Train
from gald.task import SegmentationTask


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


# optimizers of timm

OPTIONS = sorted(path.stem for path in (CONF_DIR / "optimizer").glob("*.yaml"))
CHOICES = [[f"optimizer={option}"] for option in OPTIONS] + [
    ["optimizer=lion", "optimizer.betas=[0.8,0.9]", "optimizer.foreach=true"],
    ["optimizer=muon", "+optimizer.ns_coefficients=[[3.4,-4.8,2.0],[3.4,-4.7,2.0]]"],
    ["optimizer=timm", "optimizer.name=nesterov", "+optimizer.momentum=0.8"],
    ["optimizer=timm", "optimizer.name=lamb", "+optimizer.betas=[0.8,0.9]"],
]


def steps(model, optimizer, seeds):
    for seed in seeds:
        torch.manual_seed(seed)  # of dropout, too
        image = torch.rand(2, 3, 32, 32)
        optimizer.zero_grad()
        out = model(image)
        (out.logits.square().mean() + out.aux.square().mean()).backward()
        optimizer.step()


@pytest.mark.integration
@pytest.mark.one_in(4)
@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_optimizer_keeps_the_groups_and_continues_from_plain_data(build, words, tmp_path):
    cfg = compose("train", words)
    check_config(cfg, Train)

    def make():
        torch.manual_seed(0)
        model = build()
        return model, build_optimizer(model, instantiate(cfg.optimizer), 10, False, 0.5)

    model, optimizer = make()
    expected = parameter_groups(
        model, cfg.optimizer.lr, cfg.optimizer.weight_decay, 10, False, layer_decay=0.5
    )
    keys = ("name", "lr", "weight_decay")
    groups = [{key: group[key] for key in keys} for group in optimizer.param_groups]
    assert groups == [{key: group[key] for key in keys} for group in expected]
    before = copy.deepcopy(model.state_dict())
    steps(model, optimizer, range(2))
    moved = [not torch.equal(p, before[name]) for name, p in model.named_parameters()]
    assert sum(moved) > 0.8 * len(moved)
    torch.save([model.state_dict(), optimizer.state_dict()], tmp_path / "saved")
    steps(model, optimizer, range(2, 4))
    again, resumed = make()
    weights, state = torch.load(tmp_path / "saved", weights_only=True)
    again.load_state_dict(weights)
    resumed.load_state_dict(state)
    steps(again, resumed, range(2, 4))
    assert all(map(torch.equal, model.state_dict().values(), again.state_dict().values()))


WRONG = {
    "optimizer.name=loin": "did you mean lion?",
    "optimizer.name=Lion": "did you mean lion?",
    "optimizer.name=bnblion": "did you mean lion?",
    "optimizer.name=adahessian": "optimizers of timm that train here; choose lamb, lion, nadamw",
    "+optimizer.beta=0.9": "NAdamW has no option beta; did you mean betas?",
    "+optimizer.betas=[0.9]": "must be a list with 2 entries, each a finite number >= 0 and < 1",
    "+optimizer.foreach=5": "foreach must be true or false or null",
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_option_of_a_timm_optimizer_is_one_sentence(word):
    cfg = compose("train", ["optimizer=timm", word])
    with pytest.raises(Exception) as error:
        instantiate(cfg.optimizer)
    sentence = to_sentence(error.value)
    assert WRONG[word] in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["optimizer=adan", "optimizer.betas=[0.9,0.99]"], "with 3 entries"),
        (["optimizer=lion", "+optimizer.momentum=0.9"], "Lion has no option momentum"),
        (["optimizer=muon", "optimizer.adjust_lr_fn=adamw"], "one of original, match_rms_adamw"),
        (["optimizer=adopt", "~optimizer.lr"], "needs optimizer.lr"),
    ],
)
def test_wrong_option_is_refused_when_the_config_is_composed(words, match):
    with pytest.raises(ValueError, match=match):
        check_config(compose("train", words), Train)


def test_fused_step_with_clipping_in_float16_is_refused():
    weights = [torch.nn.Parameter(torch.zeros(2))]
    fused, plain = (torch.optim.AdamW(weights, fused=fused) for fused in (True, None))
    refuse_fused_clipping(plain, "16-mixed", 1.0)
    refuse_fused_clipping(fused, "16-mixed", None)
    refuse_fused_clipping(fused, "bf16-mixed", 1.0)
    with pytest.raises(ValueError, match=r"gradient_clip_val=1.0 .*; set optimizer\.fused=null"):
        refuse_fused_clipping(fused, "16-mixed", 1.0)


@pytest.mark.integration
def test_optimizer_schedule_and_losses_accumulate_and_resume_to_the_same_weights(
    gald_cli, tmp_path, monkeypatch
):
    """Losses are those of the whole batch; a run that was cut off ends with the same weights."""
    words = ["train", "data.size=[48,64]", "data.train_transform.crop_size=[48,64]"]
    words += ["data.train_count=12", "data.val_count=3", "data.global_batch_size=4"]
    words += ["data.num_workers=0", "model.channels=16", "model.backbone.name=test_resnet"]
    words += ["trainer.accelerator=cpu", "trainer.max_epochs=2", "logger=[]", "metrics=miou"]
    words += ["report=false"]
    words += ["test=false", "callbacks=[checkpoint]", "optimizer=muon", "scheduler=wsd"]
    words += ["scheduler.decay=0.6", "loss=combined", "loss.main.losses.ohem.min_kept=200"]
    words += [f"loss.main.weights.{name}=0.5" for name in ("ohem", "focal", "boundary")]
    words += [f"loss.main.weights.{name}=0.5" for name in ("tversky", "lovasz")]
    # Without batch statistics, micro-batches change only the order of sums.
    words += ["+callbacks.frozen._target_=frozen.FrozenNorm"]
    words += ["+callbacks.frozen.path=${output_dir}/losses"]

    def cut_off(self):
        if self.trainer.current_epoch == 1:
            raise RuntimeError("power cut")

    gald_cli(*words, f"output_dir={tmp_path / 'whole'}")
    words += ["data.micro_batch_size=2"]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(SegmentationTask, "on_train_epoch_start", cut_off)
        gald_cli(*words, f"output_dir={tmp_path / 'parts'}")
    gald_cli(*words, f"output_dir={tmp_path / 'parts'}", "ckpt_path=last")
    curve, rest = (losses(tmp_path / name / "losses") for name in ("whole", "parts"))
    assert rest.keys() == {1000, 1001, 1002} < curve.keys()
    assert [curve[step] for step in rest] == pytest.approx([*rest.values()], rel=1e-4)
    assert curve[1] != pytest.approx(curve[0], rel=1e-3)


def losses(folder):
    """The mean loss of each step over its micro-batches."""
    (file,) = folder.glob("*.json")
    found = collections.defaultdict(list)
    for step, loss in json.loads(file.read_text()):
        found[step].append(loss)
    return {step: sum(values) / len(values) for step, values in found.items()}
