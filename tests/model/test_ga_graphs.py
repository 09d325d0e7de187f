import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gald.model.ga.dual_gcn import DualGCN
from gald.model.ga.glore import GloRe
from gald.model.ga.ocr import OCR
from gald.model.ga.spatial_gcn import SpatialGCN

GOLDEN = Path(os.environ.get("GALD_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
SPATIAL = {
    "node_q.": "query.",
    "node_k.": "key.",
    "node_v.": "value.",
    "conv_wg.": "update.conv.",
    "bn_wg.": "update.norm.",
    "out.0.": "project.conv.",
    "out.1.": "project.norm.",
}
DUAL = {
    "phi.": "state.conv.",
    "bn_phi.": "state.norm.",
    "theta.": "assign.conv.",
    "bn_theta.": "assign.norm.",
    "conv_adj.": "adjacency.conv.",
    "bn_adj.": "adjacency.norm.",
    "conv_wg.": "update.conv.",
    "bn_wg.": "update.norm.",
    "conv3.": "project.conv.",
    "bn3.": "project.norm.",
    "final.0.": "fuse.conv.",
    "final.1.": "fuse.norm.",
}
for step in range(3):
    DUAL |= {
        f"local.{2 * step}.": f"down.{step}.conv.",
        f"local.{2 * step + 1}.": f"down.{step}.norm.",
    }
DUAL |= {f"gcn_local_attention.{key}": f"positions.{value}" for key, value in SPATIAL.items()}
GOLDEN_CASES = {
    "spatial_gcn": (lambda: SpatialGCN(32), SPATIAL),
    "dual_gcn": (lambda: DualGCN(32, align_corners=True), DUAL),
}


def feature(channels=16, size=(9, 11), scale=1.0):
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(2, channels, *size, generator=generator).double()


def build(module):
    """Convert to double precision and change the running statistics, so that ReLUs are active."""
    generator = torch.Generator().manual_seed(2)
    for name, tensor in module.double().named_buffers():
        drawn = torch.rand(tensor.shape, generator=generator).double()
        if name.endswith("running_mean"):
            tensor.sub_(drawn)
        elif name.endswith("running_var"):
            tensor.add_(drawn)
    return module.eval()


def norm(layer, y, dim=1):
    """Apply batch norm in eval mode along one dimension, written out."""
    shape = [-1 if index == dim else 1 for index in range(y.ndim)]
    mean, var, weight, bias = (
        part.view(shape)
        for part in (layer.running_mean, layer.running_var, layer.weight, layer.bias)
    )
    return (y - mean) / (var + layer.eps).sqrt() * weight + bias


def matrix(conv):
    return conv.weight.flatten(1)


def spatial_gcn_of(module, x):
    q, k, v = (conv(x).flatten(2) for conv in (module.query, module.key, module.value))
    logits = torch.einsum("bin,bjn->bij", q, v)
    graph = logits.exp() / logits.exp().sum(2, keepdim=True)
    y = torch.einsum("bij,bin->bjn", graph, k)
    y = norm(module.update.norm, torch.einsum("oj,bjn->bon", matrix(module.update.conv), y))
    y = torch.einsum("oj,bjn->bon", matrix(module.project.conv), y)
    y = norm(module.project.norm, y + module.project.conv.bias[:, None])
    return (x.flatten(2) + y).clamp(min=0).view_as(x)


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_spatial_gcn_matches_its_formula(scale):
    torch.manual_seed(0)
    module = build(SpatialGCN(16))
    x = feature(scale=scale)
    torch.testing.assert_close(module(x), spatial_gcn_of(module, x))


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("align_corners", [False, True])
def test_dual_gcn_matches_its_formula(scale, align_corners):
    torch.manual_seed(0)
    module = build(DualGCN(16, align_corners=align_corners))
    x = feature(scale=scale)
    local = x
    for step in module.down:
        local = norm(step.norm, F.conv2d(local, step.conv.weight, None, 2, 1, 1, 16))
    local = spatial_gcn_of(module.positions, local)
    local = F.interpolate(local, (9, 11), mode="bilinear", align_corners=align_corners)
    state, assign = (
        norm(part.norm, torch.einsum("oc,bcn->bon", matrix(part.conv), x.flatten(2)))
        for part in (module.state, module.assign)
    )
    z = torch.einsum("bpn,bkn->bpk", state, assign)
    z = z + norm(
        module.adjacency.norm, torch.einsum("ok,bpk->bpo", matrix(module.adjacency.conv), z), dim=2
    )
    z = norm(module.update.norm, torch.einsum("op,bpk->bok", matrix(module.update.conv), z))
    y = torch.einsum("op,bpk,bkn->bon", matrix(module.project.conv), z, assign)
    nodes = (x + norm(module.project.norm, y).view_as(x)).clamp(min=0)
    both = torch.cat([x * local + x, nodes], 1)
    fused = torch.einsum("oc,bchw->bohw", matrix(module.fuse.conv), both)
    torch.testing.assert_close(module(x), norm(module.fuse.norm, fused))


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_glore_matches_a_loop_over_nodes(scale):
    torch.manual_seed(0)
    module = build(GloRe(16, nodes=3, states=5))
    x = feature(scale=scale)
    state, assign = module.state(x).flatten(2), module.assign(x).flatten(2)
    nodes = [(state * assign[:, [k]]).sum(2) / 99 for k in range(3)]  # (B, states) each
    a, bias = matrix(module.adjacency), module.adjacency.bias
    y = torch.zeros_like(state)
    for k in range(3):
        mixed = nodes[k] + sum(a[k, other] * nodes[other] for other in range(3)) + bias[k]
        y = y + (mixed.clamp(min=0) @ matrix(module.update).T)[:, :, None] * assign[:, [k]]
    y = torch.einsum("os,bsn->bon", matrix(module.project.conv), y)
    torch.testing.assert_close(module(x), x + norm(module.project.norm, y).view_as(x))


@pytest.mark.parametrize("module", [SpatialGCN, DualGCN, GloRe])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("batch", "size"), [(1, (9, 12)), (2, (9, 12)), (2, (10, 1))])
def test_graph_gradient_equals_finite_differences(module, training, batch, size):
    # On CPU torch's batch norm silently returns wrong gradients for some memory layouts.
    torch.manual_seed(0)
    module = build(module(8)).train(training)
    x = feature(8, size=size)[:batch].requires_grad_()
    torch.autograd.gradcheck(module, x, fast_mode=True)


@pytest.mark.skipif(
    not GOLDEN.is_dir(), reason=f"no recorded outputs in {GOLDEN}; set GALD_GOLDEN to their folder"
)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("name", GOLDEN_CASES)
def test_golden_graph_output_and_input_gradient_are_reproduced(name, case, memory_format):
    create, names = GOLDEN_CASES[name]
    with np.load(GOLDEN / f"{name}.npz") as archive:
        arrays = {key: torch.from_numpy(archive[key]) for key in archive.files}
    module = create().eval()
    weights = {}
    for key, value in arrays.items():
        if key.startswith("weight/"):
            theirs = key.removeprefix("weight/")
            prefix = next(prefix for prefix in names if theirs.startswith(prefix))
            ours = names[prefix] + theirs.removeprefix(prefix)
            weights[ours] = value.view_as(module.state_dict()[ours])
    module.load_state_dict(weights, strict=True)
    x = arrays[f"case{case}/input"].contiguous(memory_format=memory_format).requires_grad_()
    y = module(x)
    y.square().sum().backward()
    assert x.grad is not None
    for actual, key, tolerance in ((y, "eval_output", 1e-5), (x.grad, "eval_input_grad", 1e-4)):
        expected = arrays[f"case{case}/{key}"]
        error = (actual - expected).abs().max() / expected.abs().max()
        assert error < tolerance, f"{key} of {name} is off by {error:.1e} of its largest value"


@pytest.mark.parametrize("module", [SpatialGCN(16), DualGCN(16), GloRe(16)])
def test_graph_survives_sums_beyond_float16(module):
    torch.manual_seed(0)
    x = feature(size=(64, 64), scale=30.0).float()
    with torch.autocast("cpu", dtype=torch.float16):
        assert module.train()(x).isfinite().all()


@pytest.mark.parametrize("ratio", [0, 17])
def test_dual_gcn_names_both_numbers_for_an_impossible_ratio(ratio):
    with pytest.raises(ValueError, match=rf"ratio \({ratio}\) .* channels \(16\)"):
        DualGCN(16, ratio=ratio)


def unit(layer, y):
    return norm(layer.norm, torch.einsum("oc,bcn->bon", matrix(layer.conv), y)).clamp(min=0)


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("align_corners", [False, True])
def test_ocr_matches_loops_over_classes(scale, align_corners):
    torch.manual_seed(0)
    module = build(OCR(16, key_channels=6, align_corners=align_corners))
    x, aux = feature(scale=scale), 3 * feature(4, size=(5, 6))
    scores = F.interpolate(aux, (9, 11), mode="bilinear", align_corners=align_corners).flatten(2)
    pixels = x.flatten(2)
    queries = unit(module.query[1], unit(module.query[0], pixels))
    keys, values = [], []
    for k in range(4):
        weights = scores[:, k].exp() / scores[:, k].exp().sum(1, keepdim=True)
        region = (pixels * weights[:, None]).sum(2, keepdim=True)  # (B, C, 1)
        keys.append(unit(module.key[1], unit(module.key[0], region)))
        values.append(unit(module.value, region))
    attention = torch.stack([(queries * key).sum(1) / 6**0.5 for key in keys])  # (K, B, N)
    attention = attention.exp() / attention.exp().sum(0)
    y = sum(attention[k][:, None] * values[k] for k in range(4))
    expected = unit(module.fuse, torch.cat([pixels, unit(module.project, y)], 1))
    assert y.any()
    torch.testing.assert_close(module(x, aux), expected.view_as(x))


def test_ocr_ignores_a_constant_added_to_the_scores_of_a_class():
    torch.manual_seed(0)
    module = build(OCR(16))
    x, aux = feature(), feature(4)
    offset = torch.tensor([5.0, -5.0, 0.0, 90.0]).view(4, 1, 1).double()
    torch.testing.assert_close(module(x, aux + offset), module(x, aux))
    assert not torch.allclose(module(x, aux.flip(3)), module(x, aux))


def test_ocr_gradient_equals_finite_differences():
    torch.manual_seed(0)
    module = build(OCR(4))
    x, aux = feature(4, size=(5, 4)).requires_grad_(), feature(3, size=(4, 4)).requires_grad_()
    torch.autograd.gradcheck(module, (x, aux), fast_mode=True)


def test_ocr_survives_scores_beyond_float16():
    torch.manual_seed(0)
    x, aux = feature(size=(64, 64), scale=30.0).float(), feature(4, scale=1e5).float()
    with torch.autocast("cpu", dtype=torch.float16):
        assert OCR(16)(x, aux).isfinite().all()
