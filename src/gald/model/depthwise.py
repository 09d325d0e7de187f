"""Depth-wise convolutions that train fast on a CPU."""

from typing import Any

import torch
from timm.layers import Conv2dSame, pad_same
from torch import Tensor, nn
from torch.nn import functional as F
from typing_extensions import override

Pair = tuple[int, ...]


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with one group per channel and a faster backward pass on a CPU.

    The output is that of `nn.Conv2d`, bit for bit. The gradients are the same sums in another
    order; under autocast they are computed in float32.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str), "fast_depthwise leaves out padding by name"
        return _convolve(input, self, self.padding)


class DepthwiseConv2dSame(Conv2dSame):
    """The same for timm's convolution that pads as TensorFlow does."""

    @override
    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation))
        return _convolve(x, self, (0, 0))


_FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: DepthwiseConv2d,
    Conv2dSame: DepthwiseConv2dSame,
}


def has_depthwise(net: nn.Module) -> bool:
    """Return whether a network has a depth-wise convolution that sees more than one pixel."""
    return any(_is_depthwise(module) for module in net.modules())


def fast_depthwise(net: nn.Module) -> None:
    """Give the depth-wise convolutions of a network a faster backward pass on a CPU.

    Names, weights, outputs and exported graphs stay the same. Convolutions of a class other than
    `nn.Conv2d` and timm's `Conv2dSame` are left as they are.
    """
    for module in net.modules():
        if type(module) in _FAST and _is_depthwise(module):
            module.__class__ = _FAST[type(module)]


def _is_depthwise(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and 1 < module.groups == module.in_channels == module.out_channels
        and max(module.kernel_size) > 1
        and module.padding_mode == "zeros"
        and not isinstance(module.padding, str)
    )


def _convolve(x: Tensor, conv: nn.Conv2d, padding: Any) -> Tensor:
    options = (conv.stride, padding, conv.dilation)
    autocast = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
    low = autocast or x.dtype in (torch.bfloat16, torch.float16)
    if (
        x.device.type != "cpu"  # a GPU has kernels of its own; shapes alone cost nothing
        or not torch.is_grad_enabled()
        or not (low or _flips(conv.weight.shape, *options))
        or torch.compiler.is_exporting()  # an exported graph has a plain convolution
    ):
        return F.conv2d(x, conv.weight, conv.bias, *options, conv.groups)
    dtype = torch.get_autocast_dtype("cpu") if autocast and x.dtype != torch.float64 else x.dtype
    return _Depthwise.apply(x, conv.weight, conv.bias, options, dtype)


def _flips(weight: torch.Size, stride: Pair, padding: Pair, dilation: Pair) -> bool:
    """Return whether the gradient of the input is faster as a convolution of the gradient."""
    reach = [d * (k - 1) for d, k in zip(dilation, weight[-2:], strict=True)]
    return (
        max(dilation) > 1
        and tuple(stride) == (1, 1)
        and all(p <= r for p, r in zip(padding, reach, strict=True))
    )


class _Depthwise(torch.autograd.Function):
    """Convolution in `dtype`; its gradients in float32, in operations that a CPU has fast.

    In torch 2.15 the backward pass in bfloat16 is several times slower than in float32, and that of
    a dilated convolution is up to 26 times slower than a convolution with mirrored weights, which
    computes the same gradient of the input. The gradient of its weights is 2 to 8 times slower than
    that of a convolution without dilation, to which `_split` turns it.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        options: tuple[Pair, Pair, Pair],
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.dtypes = [None if t is None else t.dtype for t in (x, weight, bias)]
        ctx.options = options
        with torch.autocast("cpu", enabled=False):
            x, weight = x.to(dtype), weight.to(dtype)
            ctx.save_for_backward(x, weight)
            bias = None if bias is None else bias.to(dtype)
            return F.conv2d(x, weight, bias, *options, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        stride, padding, dilation = ctx.options
        x_needs, weight_needs, bias_needs = ctx.needs_input_grad[:3]
        with torch.autocast("cpu", enabled=False):
            y, x, weight = (_at_least_float32(t) for t in (*gradients, *ctx.saved_tensors))
            grads: list[Tensor | None] = [None, None, None]
            flips = _flips(weight.shape, *ctx.options)
            if flips and x_needs:
                sides = zip(dilation, weight.shape[-2:], padding, strict=True)
                around = [d * (k - 1) - p for d, k, p in sides]
                mirrored = weight.flip(2, 3)
                grads[0] = F.conv2d(y, mirrored, None, 1, around, dilation, len(weight))
            wanted = [x_needs and grads[0] is None, weight_needs, bias_needs]
            if flips:
                y, x, padding, dilation = _split(y, x, weight.shape, padding, dilation)
            if any(wanted):
                others = torch.ops.aten.convolution_backward(
                    y,
                    x,
                    weight,
                    [len(weight)],
                    stride,
                    padding,
                    dilation,
                    False,
                    [0, 0],
                    len(weight),
                    wanted,
                )
                pairs = zip(grads, others, strict=True)
                grads = [old if new is None else new for old, new in pairs]
        pairs = zip(grads, ctx.dtypes, strict=True)
        return *(None if g is None else g.to(dtype) for g, dtype in pairs), None, None


def _split(
    y: Tensor, x: Tensor, weight: torch.Size, padding: Pair, dilation: Pair
) -> tuple[Tensor, Tensor, Pair, Pair]:
    """Split output and input into images of every `dilation`-th pixel, which need no dilation.

    A pixel and all pixels that the kernel reads around it are in the same image if the dilation
    divides the padding. Otherwise, all arguments come back as they are, and so do those that would
    not gain: another layout than channels_last, images smaller than the kernel.
    """
    sides = list(zip(y.shape[2:], weight[2:], padding, dilation, strict=True))
    if any(p % d or size < d * k for size, k, p, d in sides) or not x.is_contiguous(
        memory_format=torch.channels_last
    ):
        return y, x, padding, dilation
    missing = [-size % d for size, _, _, d in sides]
    below = (0, missing[1], 0, missing[0])  # rows and columns of zeros add nothing to a gradient
    y, x = (_every(F.pad(t, below) if any(missing) else t, dilation) for t in (y, x))
    return y, x, tuple(p // d for _, _, p, d in sides), (1, 1)


def _every(t: Tensor, step: Pair) -> Tensor:
    """Return the images of every step-th pixel, (B * step[0] * step[1], C, h, w)."""
    batch, channels, height, width = t.shape
    cells = t.permute(0, 2, 3, 1).reshape(
        batch, height // step[0], step[0], width // step[1], step[1], channels
    )
    images = cells.permute(0, 2, 4, 1, 3, 5).flatten(0, 2).contiguous()
    return images.permute(0, 3, 1, 2)


def _at_least_float32(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
