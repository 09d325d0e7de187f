"""GA modules of other packages and our corresponding ones; used by benchmarks/modules.py."""

import sys
from typing import NamedTuple

import torch
from peers import NoOperators
from torch import nn

from gald.model.ga.ann import ANN
from gald.model.ga.aspp import ASPP
from gald.model.ga.cc import CrissCross
from gald.model.ga.danet import CAM, PAM
from gald.model.ga.dnl import DNL
from gald.model.ga.ema import EMA
from gald.model.ga.global_context import GC
from gald.model.ga.nonlocal_block import NonLocal
from gald.model.ga.psp import PSP

_LAYERS = {"conv_cfg": None, "norm_cfg": {"type": "BN"}, "act_cfg": {"type": "ReLU"}}


class PeerModule(NamedTuple):
    """The same idea in ours and in another package: equal widths and steps, not equal weights."""

    name: str
    package: str
    ours: nn.Module
    other: nn.Module


class Rounds(nn.Module):
    """The same module, applied several times."""

    def __init__(self, module: nn.Module, rounds: int) -> None:
        super().__init__()
        self.module = module
        self.rounds = rounds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the module `rounds` times."""
        for _ in range(self.rounds):
            x = self.module(x)
        return x


def peer_modules(channels: int) -> list[PeerModule]:
    """Return all pairs at one width, in eval mode."""
    sys.modules.setdefault("mmcv._ext", NoOperators("mmcv._ext"))
    from mmcv.cnn.bricks.context_block import ContextBlock
    from mmcv.cnn.bricks.non_local import NonLocal2d
    from mmcv.ops.cc_attention import CrissCrossAttention
    from mmseg.models.decode_heads import ann_head, da_head, dnl_head, ema_head
    from segmentation_models_pytorch.decoders.deeplabv3 import decoder as deeplab
    from segmentation_models_pytorch.decoders.pspnet import decoder as pspnet

    torch.manual_seed(0)
    c, mm = channels, "mmsegmentation"
    smp = "segmentation_models_pytorch"
    pyramid = nn.Sequential(
        pspnet.PSPModule(c, (1, 2, 3, 6), use_norm="batchnorm"),
        nn.Conv2d(2 * c, c, 3, padding=1, bias=False),
        nn.BatchNorm2d(c),
        nn.ReLU(),
    )
    disentangled = dnl_head.DisentangledNonLocal2d(
        c, temperature=1.0, reduction=2, use_scale=False, mode="embedded_gaussian"
    )
    regions = ann_head.APNB(c, c // 2, c, (1,), (1, 3, 6, 8), **_LAYERS)
    bases = nn.Sequential(
        nn.Conv2d(c, c, 1),
        ema_head.EMAModule(c, 64, 3, 0.1),
        nn.Conv2d(c, c, 1, bias=False),
        nn.BatchNorm2d(c),
    )
    pairs = [
        PeerModule(
            "nonlocal", mm, NonLocal(c), NonLocal2d(c, reduction=2, mode="embedded_gaussian")
        ),
        PeerModule("dnl", mm, DNL(c), disentangled),
        PeerModule("gc", mm, GC(c), ContextBlock(c, 1 / 4)),
        PeerModule("cc", mm, CrissCross(c), Rounds(CrissCrossAttention(c), 2)),
        PeerModule("danet_position", mm, PAM(c), da_head.PAM(c, c // 8)),
        PeerModule("danet_channel", mm, CAM(c), da_head.CAM()),
        PeerModule("ann", mm, ANN(c), regions),
        PeerModule("ema", mm, EMA(c), bases),
        PeerModule("psp", smp, PSP(c), pyramid),
        PeerModule(
            "aspp", smp, ASPP(c), deeplab.ASPP(c, c, (6, 12, 18), separable=False, dropout=0.5)
        ),
    ]
    for pair in pairs:
        pair.ours.eval()
        pair.other.eval()
    return pairs
