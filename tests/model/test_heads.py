"""Contract of every head, on every family of backbones, and parity with other implementations."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from torch import nn

from gald.config import CONF_DIR, compose
from gald.model.aux_head import AuxHead
from gald.model.head.deeplabv3plus import DeepLabV3PlusHead
from gald.model.head.fcn import FCNHead
from gald.model.head.linear import LinearHead
from gald.model.head.segformer_mlp import SegFormerMLPHead
from gald.model.head.uper import UPerHead

HEADS = sorted(path.stem for path in (CONF_DIR / "model" / "head").glob("*.yaml"))
CHANNELS, CLASSES = 16, 5
WIDTHS, STRIDES = (6, 8, 10, 12), (4, 8, 16, 32)
# backbone: output stride, neck, odd size of the image
BACKBONES = {
    "resnet18": (8, "none", (65, 97)),
    "test_resnet": (None, "none", (65, 97)),
    "convnext_atto": (None, "none", (33, 70)),
    "swin_tiny_patch4_window7_224": (None, "fpn", (65, 97)),
    "vit_small_patch14_dinov2": (None, "fpn", (57, 71)),
    "test_vit": (None, "none", (49, 66)),
}
every_head = pytest.mark.parametrize("name", HEADS)


def make(name, widths=WIDTHS, strides=STRIDES, **options):
    torch.manual_seed(0)
    model = {"channels": CHANNELS, "align_corners": False}
    model["head"] = OmegaConf.load(CONF_DIR / "model" / "head" / f"{name}.yaml")
    node = OmegaConf.merge(OmegaConf.create({"model": model}), {"model": {"head": options}})
    head = instantiate(node.model.head)
    return head(in_channels=widths, in_strides=strides, num_classes=CLASSES)


def features(size=(65, 97), batch=2, widths=WIDTHS, strides=STRIDES):
    generator = torch.Generator().manual_seed(1)
    cells = [[math.ceil(side / stride) for side in size] for stride in strides]
    maps = [
        torch.randn(batch, width, *cell, generator=generator)
        for width, cell in zip(widths, cells, strict=True)
    ]
    return tuple(maps), torch.randn(batch, CHANNELS, *cells[-1], generator=generator)


def randomise(module):
    """Give norms and biases values other than 0 and 1, so that a comparison sees them."""
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand_like(tensor) if tensor.ndim == 1 else tensor)


@every_head
def test_yaml_gives_every_argument_of_the_signature_in_order(name):
    node = OmegaConf.load(CONF_DIR / "model" / "head" / f"{name}.yaml")
    arguments = list(inspect.signature(get_object(node["_target_"])).parameters)
    assert arguments[:4] == ["in_channels", "in_strides", "channels", "num_classes"]
    assert [key for key in node if not key.startswith("_")] == ["channels", *arguments[4:]]


@pytest.mark.parametrize("index", [0, 2, -1, -2])
def test_auxiliary_head_reads_the_map_of_its_index(index):
    maps, _ = features(widths=(6,) * 4)
    aux = AuxHead((6,) * 4, STRIDES, 9, CLASSES, index=index).eval()
    assert torch.equal(aux(maps), aux.classify(aux.hidden(maps[index])))
    plain = AuxHead((6,) * 4, STRIDES, 9, CLASSES, index=index, act=False).eval()
    assert (plain.hidden(maps[index]) < 0).any() and not (aux.hidden(maps[index]) < 0).any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("name", ["lowlevel", "deeplabv3plus"])
def test_x_is_resized_to_the_fine_map_as_in_the_model(name, align_corners):
    head, (maps, x) = make(name, align_corners=align_corners).eval(), features()
    size = maps[0].shape[-2:]
    full = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(head(maps, x), head(maps, full))


@pytest.mark.parametrize("name", ["fcn", "lowlevel", "deeplabv3plus", "uper", "segformer_mlp"])
def test_dropout_of_a_head_has_the_share_of_its_option(name):
    found = [m.p for m in make(name, dropout=0.3).modules() if isinstance(m, nn.Dropout2d)]
    assert found == [0.3]


@every_head
def test_scores_have_one_map_per_class_at_any_size_and_batch(name):
    for training in (True, False):
        for batch, size in ((1, (65, 97)), (3, (33, 50)), (1, (5, 7))):
            maps, x = features(size, batch)
            before = [m.clone() for m in (*maps, x)]
            scores = make(name).train(training)(maps, x)
            assert scores.shape[:2] == (batch, CLASSES) and scores.isfinite().all()
            assert scores.shape[-2:] in {m.shape[-2:] for m in maps}
            assert all(map(torch.equal, (*maps, x), before)), "an input was changed in place"


@every_head
def test_gradient_reaches_every_parameter_and_x(name):
    for training in (True, False):
        maps, x = features()
        head = make(name).train(training)
        scores = head(maps, x.requires_grad_())
        (scores * torch.randn(scores.shape)).sum().backward()
        for key, tensor in [*head.named_parameters(), ("x", x)]:
            assert tensor.grad is not None and tensor.grad.isfinite().all(), key
            assert tensor.grad.any(), key


@every_head
def test_x_takes_the_place_of_the_deepest_map(name):
    """Only the authors' head reads the deepest map too."""
    maps, x = features()
    head = make(name).eval()
    changed = head((*maps[:-1], maps[-1] + 1), x)
    assert torch.equal(changed, head(maps, x)) is (name != "gald")
    assert not torch.allclose(head(maps, x.flip(1)), head(maps, x))


@every_head
def test_images_do_not_mix_and_layouts_agree_in_evaluation(name):
    maps, x = features(batch=3)
    head = make(name).eval()
    together = head(maps, x)
    alone = [head(tuple(m[i : i + 1] for m in maps), x[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    last = [m.to(memory_format=torch.channels_last) for m in (*maps, x)]
    torch.testing.assert_close(head(tuple(last[:-1]), last[-1]), together, rtol=1e-4, atol=1e-5)


@every_head
def test_autocast_stays_close_and_gradients_finite(name):
    maps, x = features()
    head = make(name).train()
    for module in head.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    exact = head(maps, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = head(maps, x)
    assert (rounded.float() - exact).norm() / exact.norm() < 0.03
    rounded.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@every_head
def test_exports_as_one_graph(name):
    maps, x = features()
    head = make(name).eval()
    program = torch.export.export(head, (maps, x)).module()
    torch.testing.assert_close(program(maps, x), head(maps, x))


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", BACKBONES)
def test_every_head_learns_with_every_backbone_at_an_odd_size(name):
    stride, neck, size = BACKBONES[name]
    overrides = [f"model.channels={CHANNELS}", f"model.backbone.name={name}", "model/ga=none"]
    overrides += [f"model.backbone.output_stride={'null' if stride is None else stride}"]
    cfg = compose("train", [*overrides, f"model/neck={neck}", "model/ld=none"])
    model = instantiate(cfg.model, num_classes=CLASSES).train()
    image = torch.rand(1, 3, *size)
    pyramid = model.neck
    widths, strides = pyramid.channels, pyramid.strides
    with torch.no_grad():
        maps = [m.detach() for m in model.backbone(image)]
    model.backbone.forward = lambda image: tuple(maps)
    for option in HEADS:
        finest = {"low_stride": min(strides)} if "low_stride" in signature(option) else {}
        model.head = make(option, widths, strides, **finest)
        model.zero_grad()
        out = model(image)
        assert out.logits.shape[:2] == (1, CLASSES), option
        assert out.logits.shape[-2] <= math.ceil(size[0] / min(strides)), option
        (out.logits * torch.randn(out.logits.shape)).sum().backward()
        for key, parameter in model.head.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), (option, key)


def signature(option):
    node = OmegaConf.load(CONF_DIR / "model" / "head" / f"{option}.yaml")
    return inspect.signature(get_object(node["_target_"])).parameters


@pytest.mark.parametrize("name", ["uper", "segformer_mlp"])
def test_scores_have_the_size_of_the_finest_map_that_is_read(name):
    maps, x = features((64, 96))
    for min_stride, cells in ((1, (16, 24)), (4, (16, 24)), (5, (8, 12)), (16, (4, 6))):
        assert make(name, min_stride=min_stride).eval()(maps, x).shape[-2:] == cells


@pytest.mark.parametrize("name", ["uper", "segformer_mlp"])
def test_without_a_map_to_read_the_error_has_the_strides_and_a_remedy(name):
    sentence = (
        r"strides \(4, 8, 16, 32\), none before the last has a stride of at least min_stride "
        r"\(32\); set model\.head\.min_stride=16 or model/head=fcn"
    )
    with pytest.raises(Exception, match=sentence):
        make(name, min_stride=32)
    assert make(name, min_stride=16).levels == [2]
    with pytest.raises(Exception, match=r"strides \(16,\), .* \(4\); set model/head=fcn"):
        make(name, widths=(8,), strides=(16,))


def test_low_stride_error_lists_the_strides_of_deeplab():
    with pytest.raises(Exception, match=r"low_stride \(3\) is not among .* \(4, 8, 16, 32\); set"):
        make("deeplabv3plus", low_stride=3)


def conv(x, layer):
    """Compute a convolution tap by tap, with zeros outside of the map."""
    weight, groups = layer.weight, layer.groups
    side = weight.shape[-1]
    padded = F.pad(x, [side // 2] * 4)
    h, w = x.shape[-2:]
    out = 0
    for i in range(side):
        for j in range(side):
            taps = padded[..., i : i + h, j : j + w].unflatten(1, (groups, -1))
            kernel = weight[:, :, i, j].unflatten(0, (groups, -1))
            out = out + torch.einsum("bgihw,goi->bgohw", taps, kernel).flatten(1, 2)
    return out if layer.bias is None else out + layer.bias[:, None, None]


def conv_norm_act(x, block):
    norm = block.norm
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    y = conv(x, block.conv) * scale[:, None, None] + shift[:, None, None]
    return y.clamp(min=0)


@torch.no_grad()
def test_fcn_matches_a_convolution_computed_tap_by_tap():
    head = FCNHead(WIDTHS, STRIDES, CHANNELS, CLASSES).eval()
    randomise(head)
    maps, x = features()
    expected = conv(conv_norm_act(x, head.hidden), head.classify[1])
    torch.testing.assert_close(head(maps, x), expected)


@torch.no_grad()
def test_deeplabv3plus_matches_its_formula_computed_tap_by_tap():
    head = DeepLabV3PlusHead(WIDTHS, STRIDES, CHANNELS, CLASSES, low_channels=6).eval()
    randomise(head)
    maps, x = features()
    low = conv_norm_act(maps[0], head.low)
    up = F.interpolate(x, low.shape[-2:], mode="bilinear", align_corners=False)
    y = torch.cat([up, low], dim=1)
    for block in head.fuse:
        y = conv_norm_act(y, block)
    torch.testing.assert_close(head(maps, x), conv(y, head.classify[1]))
    kernels = [(block.conv.kernel_size[0], block.conv.groups) for block in head.fuse]
    assert kernels == [(3, 22), (1, 1), (3, 16), (1, 1)]


@torch.no_grad()
def test_linear_matches_layer_norm_and_a_linear_layer_on_tokens():
    head = LinearHead(WIDTHS, STRIDES, CHANNELS, CLASSES).eval()
    randomise(head)
    maps, x = features()
    tokens = x.flatten(2).transpose(1, 2)  # (B, h w, C)
    centred = tokens - tokens.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    scores = (normed * head.norm.weight + head.norm.bias) @ head.classify.weight.T
    expected = (scores + head.classify.bias).transpose(1, 2).unflatten(2, x.shape[-2:])
    torch.testing.assert_close(head(maps, x), expected)


def copy_in_order(source, target):
    """Copy the tensors of modules that list the same layers in the same order."""
    tensors = [v for k, v in source.state_dict().items() if "num_batches" not in k]
    named = {k: v for k, v in target.state_dict().items() if "num_batches" not in k}
    for (key, value), tensor in zip(named.items(), tensors, strict=True):
        assert value.numel() == tensor.numel(), key
        value.copy_(tensor.reshape(value.shape))


@torch.no_grad()
def test_uper_matches_the_head_of_transformers_with_copied_weights():
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.upernet.modeling_upernet")
    config = transformers.UperNetConfig(
        backbone_config=transformers.ResNetConfig(), hidden_size=CHANNELS, num_labels=CLASSES
    )
    theirs = modeling.UperNetHead(config, list(WIDTHS)).eval()
    randomise(theirs)
    ours = UPerHead(WIDTHS, STRIDES, CHANNELS, CLASSES).eval()
    order = (theirs.lateral_convs, theirs.fpn_convs, theirs.fpn_bottleneck, theirs.classifier)
    copy_in_order(nn.ModuleList(order), ours)
    maps, x = features()
    theirs.psp_forward = lambda maps: x
    torch.testing.assert_close(ours(maps, x), theirs(list(maps)))


@torch.no_grad()
def test_segformer_mlp_matches_the_head_of_transformers_with_copied_weights():
    transformers = pytest.importorskip("transformers")
    modeling = pytest.importorskip("transformers.models.segformer.modeling_segformer")
    config = transformers.SegformerConfig(
        hidden_sizes=[*WIDTHS[:-1], CHANNELS], decoder_hidden_size=CHANNELS, num_labels=CLASSES
    )
    theirs = modeling.SegformerDecodeHead(config).eval()
    randomise(theirs)
    ours = SegFormerMLPHead(WIDTHS, STRIDES, CHANNELS, CLASSES).eval()
    copy_in_order(theirs, ours)
    maps, x = features()
    torch.testing.assert_close(ours(maps, x), theirs([*maps[:-1], x]))
