import pytest
import torch
from torch import nn

from gald.model.layers import AtStride, ConvNormAct, resize


def test_resize_returns_the_same_tensor_when_the_size_is_right():
    x = torch.randn(1, 2, 5, 7)
    assert resize(x, (5, 7)) is x


def test_resize_interpolates_between_corners():
    x = torch.tensor([[[[0.0, 2.0]]]])
    torch.testing.assert_close(resize(x, (1, 3), True), torch.tensor([[[[0.0, 1.0, 2.0]]]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_resize_keeps_the_dtype_under_autocast(dtype):
    x = torch.randn(1, 2, 5, 7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = resize(x.to(dtype), (9, 9))
    assert y.dtype == dtype
    torch.testing.assert_close(y.float(), resize(x, (9, 9)), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("kernel", "dilation"), [(1, 1), (3, 1), (3, 6), (5, 2)])
def test_conv_keeps_the_size_by_default(kernel, dilation):
    x = torch.randn(2, 4, 9, 11)
    assert ConvNormAct(4, 6, kernel, dilation=dilation)(x).shape == (2, 6, 9, 11)


def test_conv_takes_an_explicit_padding_of_zero():
    assert ConvNormAct(4, 4, 3, padding=0)(torch.randn(2, 4, 9, 11)).shape == (2, 4, 7, 9)


def test_conv_norm_act_equals_torch_layers_in_sequence():
    torch.manual_seed(0)
    ours = ConvNormAct(4, 6, 3, stride=2)
    theirs = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    x = torch.randn(2, 4, 9, 11)
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.norm.running_var, theirs[1].running_var)


def test_single_value_trains_with_unchanged_running_statistics():
    block = ConvNormAct(4, 4).train()
    x = torch.randn(1, 4, 1, 1, requires_grad=True)
    y = block(x)
    y.sum().backward()
    assert block.norm.running_mean.eq(0).all()
    assert block.norm.num_batches_tracked == 0
    assert block.conv.weight.grad.any()
    torch.testing.assert_close(y, block.eval()(x))


def test_two_values_train_with_batch_statistics():
    block = ConvNormAct(4, 4).train()
    block(torch.randn(2, 4, 1, 1))
    assert block.norm.num_batches_tracked == 1


def test_norm_becomes_synchronised_with_the_same_keys():
    block = ConvNormAct(4, 4)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(ConvNormAct(4, 4))
    assert isinstance(synchronised.norm, nn.SyncBatchNorm)
    synchronised.load_state_dict(block.state_dict(), strict=True)


@pytest.mark.parametrize(("stride", "dtype"), [(1, torch.bfloat16), (2, torch.float32)])
def test_strided_depthwise_conv_stays_float32_under_cpu_autocast(stride, dtype):
    block = ConvNormAct(4, 4, 3, stride=stride, groups=4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert block(torch.randn(2, 4, 8, 8).bfloat16()).dtype == dtype


@pytest.mark.parametrize(("padding", "expected"), [(0, (8, 11)), (1, (9, 12))])
def test_at_stride_runs_its_module_on_the_smaller_map(padding, expected):
    sizes = []

    class Spy(nn.Module):
        def forward(self, x):
            sizes.append(tuple(x.shape[-2:]))
            return x

    y = AtStride(Spy(), 4, padding=padding)(torch.randn(2, 4, 17, 23))
    assert sizes == [expected]
    assert y.shape == (2, 4, 17, 23)


def test_at_stride_names_both_sizes_below_its_minimum():
    with pytest.raises(ValueError, match=r"\(2x9\) must be at least 3x3 .* set padding=1"):
        AtStride(nn.Identity(), 4, padding=0)(torch.randn(1, 4, 2, 9))


def test_at_stride_refuses_an_unknown_padding():
    with pytest.raises(ValueError, match=r"padding \(2\) must be 0 or 1"):
        AtStride(nn.Identity(), 4, padding=2)
