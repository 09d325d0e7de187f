"""Our modules against recorded outputs and gradients of the authors' modules."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gald.model.ga.cgnl import CGNL
from gald.model.layers import AtStride
from gald.model.ld.mask import Mask

GOLDEN = Path(os.environ.get("GALD_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
pytestmark = pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no recorded outputs in {GOLDEN}; set GALD_GOLDEN to their folder"
)


class Distribution(nn.Module):
    def __init__(self):
        super().__init__()
        self.ld = Mask(32, padding=0, align_corners=True)

    def forward(self, x):
        return self.ld(x, x)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ga = AtStride(CGNL(32, planes=16), 32, padding=0, align_corners=True)
        self.ld = Mask(32, padding=0, align_corners=True)

    def forward(self, x):
        context = self.ga(x)
        return self.ld(context, x) + context  # model.add_context_twice=true


def block_names(prefix, ours):
    """Return a dict from the authors' key prefixes to ours for one convolution and its norm."""
    return {f"{prefix}.0.": f"{ours}.conv.", f"{prefix}.1.": f"{ours}.norm."}


def mask_names(prefix):
    names = {}
    for step in range(3):
        names |= block_names(f"{prefix}dconv{step + 1}", f"ld.phi.{step}")
    return names


CASES = {
    "cgnl_groups8": (lambda: CGNL(32), {}),
    "cgnl_groups4": (lambda: CGNL(32, groups=4), {}),
    "cgnl_groups8_scaled": (lambda: CGNL(32, use_scale=True), {}),
    "local_distribution": (Distribution, mask_names("")),
    "gald_block": (
        Block,
        block_names("down", "ga.down")
        | {"long_relation.": "ga.module."}
        | mask_names("local_attention."),
    ),
}


def our_key(key, names):
    for theirs, replacement in names.items():
        if key.startswith(theirs):
            return replacement + key.removeprefix(theirs)
    return key


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("name", CASES)
def test_golden_output_and_input_gradient_are_reproduced(name, case, memory_format):
    build, names = CASES[name]
    with np.load(GOLDEN / f"{name}.npz") as archive:
        arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
    module = build().eval()
    weights = {
        our_key(key.removeprefix("weight/"), names): value
        for key, value in arrays.items()
        if key.startswith("weight/")
    }
    module.load_state_dict(weights, strict=True)
    x = arrays[f"case{case}/input"].contiguous(memory_format=memory_format).requires_grad_()
    y = module(x)
    y.square().sum().backward()
    for actual, key, tolerance in ((y, "eval_output", 1e-5), (x.grad, "eval_input_grad", 1e-4)):
        expected = arrays[f"case{case}/{key}"]
        error = (actual - expected).abs().max() / expected.abs().max()
        assert error < tolerance, f"{key} of {name} is off by {error:.1e} of its largest value"
