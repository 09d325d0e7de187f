"""Passes through the network in bfloat16, with the channels innermost."""

from typing import Literal

import torch
from torch import Tensor

from gald.model.network import Network

Precision = Literal["bf16"] | None


def check_precision(precision: Precision) -> Precision:
    """Return the precision of an inference if it is known.

    Raises:
        ValueError: it is not.
    """
    if precision not in ("bf16", None):
        raise ValueError(
            f"inference.precision is {precision!r}; choose bf16, or null for the precision of the "
            "trainer"
        )
    return precision


def refuse_two_precisions(precision: Precision, trainer: str) -> None:
    """Refuse a precision of the inference beside another low precision of the trainer.

    Raises:
        ValueError: the trainer has neither 32 bits nor the precision of the inference.
    """
    if precision is not None and trainer not in ("32-true", "bf16-mixed"):
        raise ValueError(
            f"inference.precision={precision} and trainer.precision={trainer} are two precisions "
            "of one network; set inference.precision=null, or trainer.precision=32-true"
        )


def slow_precision(precision: Precision, trainer: str, device: torch.device) -> str | None:
    """Return a warning if a precision is emulated, which makes a network 10 to 80 times slower.

    Args:
        precision: that of the inference.
        trainer: that of the trainer.
        device: where the network computes.
    """
    keys = {"inference.precision": precision == "bf16", "trainer.precision": trainer[:4] == "bf16"}
    chosen = [key for key, low in keys.items() if low]
    if not chosen or device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return None
    remedies = {"inference.precision": "null", "trainer.precision": "32-true"}
    remedy = " ".join(f"{key}={remedies[key]}" for key in chosen)
    return (
        "warning: this CPU has no instructions for bfloat16, so it computes many times slower than "
        f"in 32 bits; add {remedy}"
    )


def run_network(model: Network, image: Tensor, precision: Precision) -> Tensor:
    """Return the logits of an image (B, 3, H, W) -> (B, K, h, w), float32 if a precision is given.

    Raises:
        ValueError: the device does not compute in this precision.
    """
    if precision is None:
        return model.logits(image)
    device = image.device
    if not _has_bf16(device):
        raise ValueError(
            f"inference.precision=bf16 needs bfloat16, which {device} does not have; use "
            "inference.precision=null, or another device"
        )
    with torch.autocast(device.type, torch.bfloat16):
        # The maps take the layout of the image, and convolutions in bfloat16 prefer this one.
        return model.logits(image.contiguous(memory_format=torch.channels_last)).float()


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.amp.is_autocast_available(device.type)
