"""Contract of every GA and LD; modules are found by their YAML files, so new ones are covered."""

import importlib
import inspect
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from torch import nn

ROOT = Path(__file__).parents[2]
CHANNELS = 16
CASES = [
    pytest.param(slot, path, id=f"{slot}-{path.stem}")
    for slot in ("ga", "ld")
    for path in sorted((ROOT / "conf" / "model" / slot).glob("*.yaml"))
]
LD_WITH_MAP = [case for case in CASES if case.values[0] == "ld" and case.values[1].stem != "none"]
every_module = pytest.mark.parametrize(("slot", "path"), CASES)


class Aggregate(nn.Module):
    """Call a GA or an LD with one tensor, so that both pass the same tests."""

    def __init__(self, module, slot):
        super().__init__()
        self.module, self.slot = module, slot

    def forward(self, x):
        inputs = (x,) if self.slot == "ga" else (context_of(x), x)
        return self.module(*inputs, *extra_inputs(self.module, x))


def context_of(x):
    return 0.5 * x + x.mean(dim=(2, 3), keepdim=True)


def extra_inputs(module, x):
    """Return the extra inputs that a module reads, computed from x."""
    reads = getattr(module, "reads", None)
    if reads == "maps":
        return ((F.interpolate(x[:, : CHANNELS // 2], scale_factor=2.0), x),)
    if reads == "truth":
        return (F.interpolate((x[:, :1] > 1).float(), scale_factor=4.0),)
    return (x[:, :5],) if reads == "aux" else ()


def load(slot, path):
    model = {"channels": CHANNELS, "align_corners": False, slot: OmegaConf.load(path)}
    return OmegaConf.create({"model": model}).model[slot]


def build(slot, path):
    torch.manual_seed(0)
    module = instantiate(load(slot, path))
    if not isinstance(module, nn.Module):  # a factory, because it reads the maps
        module = module(in_channels=(CHANNELS // 2, CHANNELS), in_strides=(4, 8))
    return Aggregate(module, slot)


def image_feature(batch=2, height=17, width=23, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, CHANNELS, height, width, generator=generator)


def targets(node):
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield node["_target_"]
        for key in node:
            yield from targets(node._get_node(key))
    elif isinstance(node, ListConfig):
        for index in range(len(node)):
            yield from targets(node._get_node(index))


def test_yaml_files_are_found():
    assert {"ga-none", "ga-cgnl", "ld-none", "ld-mask"} <= {case.id for case in CASES}


@pytest.mark.parametrize("slot", ["ga", "ld"])
def test_every_public_module_class_has_a_yaml(slot):
    named = {target for case in CASES for target in targets(load(*case.values))}
    for path in sorted((ROOT / "src" / "gald" / "model" / slot).glob("[!_]*.py")):
        name = f"gald.model.{slot}.{path.stem}"
        for attribute, value in vars(importlib.import_module(name)).items():
            is_ours = inspect.isclass(value) and value.__module__ == name
            if is_ours and issubclass(value, nn.Module) and not attribute.startswith("_"):
                assert f"{name}.{attribute}" in named, (
                    f"{name}.{attribute} has no YAML; add one to conf/model/{slot}"
                )


@every_module
def test_yaml_gives_every_argument_of_the_signature_in_order(slot, path):
    node = load(slot, path)
    if not node["_target_"].startswith("gald."):
        return
    module, _, name = node["_target_"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    named = [key for key, value in parameters.items() if value.kind is value.POSITIONAL_OR_KEYWORD]
    passed_later = ("in_channels", "in_strides") if "_partial_" in node else ()
    keys = [key for key in node if not key.startswith("_")]
    assert keys == [name for name in named if name not in passed_later]


@every_module
def test_yaml_starts_with_a_comment(slot, path):
    assert path.read_text().startswith("# ")


@every_module
def test_shape_and_dtype_are_kept_in_training(slot, path):
    for shape in product((1, 2), ((17, 23), (16, 16), (33, 15))):
        x = image_feature(shape[0], *shape[1])
        y = build(slot, path).train()(x)
        assert y.shape == x.shape and y.dtype == x.dtype, shape
        assert y.isfinite().all(), shape


@every_module
def test_small_map_works_or_is_refused_with_both_sizes(slot, path):
    sizes = ((1, 1), (1, 5), (2, 3), (7, 8), (14, 40))
    for training, size in product((True, False), sizes):
        x = image_feature(1, *size)
        module = build(slot, path).train(training)
        try:
            y = module(x)
        except ValueError as error:
            assert f"{size[0]}x{size[1]}" in str(error)
            assert "at least" in str(error) and "padding=1" in str(error), size
            assert path.stem.endswith("official"), "only a faithful variant may refuse a size"
        else:
            assert y.shape == x.shape, (size, training)
            assert y.isfinite().all(), (size, training)


@every_module
def test_gradient_reaches_every_parameter_and_the_input(slot, path):
    for training in (True, False):
        x = image_feature().requires_grad_()
        module = build(slot, path).train(training)
        (module(x) * image_feature(seed=2)).sum().backward()
        for name, tensor in [*module.named_parameters(), ("input", x)]:
            assert tensor.grad is not None, (name, training)
            assert tensor.grad.isfinite().all(), (name, training)
            # A bias before batch norm has no effect in training, only in evaluation.
            no_effect = training and name.endswith("conv.bias")
            assert tensor.grad.any() or no_effect, (name, training)


@every_module
def test_input_is_not_changed_in_place(slot, path):
    x = image_feature()
    before = x.clone()
    build(slot, path).train()(x)
    assert torch.equal(x, before)


@every_module
def test_evaluation_is_deterministic(slot, path):
    x = image_feature()
    module = build(slot, path).eval()
    assert torch.equal(module(x), module(x))


@every_module
def test_images_of_a_batch_do_not_mix_in_evaluation(slot, path):
    x = image_feature(batch=3)
    module = build(slot, path).eval()
    alone = torch.cat([module(image) for image in x.split(1)])
    torch.testing.assert_close(module(x), alone, rtol=1e-4, atol=1e-4)


@every_module
def test_bfloat16_autocast_stays_within_three_percent_of_float32(slot, path):
    for training in (True, False):
        x = image_feature().requires_grad_()
        module = build(slot, path).train(training)
        exact = build(slot, path).train(training)(
            x
        )  # a second module: ema updates its bases in training
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = module(x)
            module(x.bfloat16()).float().square().sum().backward()
        assert (rounded - exact).norm() / exact.norm() < 0.03, training
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, (name, training)
            assert parameter.grad.isfinite().all(), (name, training)


@every_module
def test_bfloat16_input_gives_bfloat16_output_under_autocast(slot, path):
    module = build(slot, path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(image_feature().bfloat16())
    assert y.dtype == torch.bfloat16, "keep the dtype of x: end forward with .to(x.dtype)"


@pytest.mark.one_in(4)
@every_module
def test_float16_autocast_does_not_overflow_where_the_result_fits(slot, path):
    x = 300.0 * image_feature()
    for training in (True, False):
        for given in (x, x.half()):
            exact = build(slot, path).train(training)(given.float())
            with torch.autocast("cpu", dtype=torch.float16):
                y = build(slot, path).train(training)(given)
            assert y.dtype == given.dtype, training
            fits = exact.abs() < 6e4 if given.dtype == torch.float16 else exact.isfinite()
            assert y[fits].isfinite().all(), (training, given.dtype)


@every_module
def test_channels_last_gives_the_same_output_and_gradient(slot, path):
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = image_feature().to(memory_format=memory_format).requires_grad_()
        y = build(slot, path)(x)
        (gradient,) = torch.autograd.grad(y, x, image_feature(seed=2))
        results.append((y, gradient))
    for contiguous, channels_last in zip(*results, strict=True):
        assert (contiguous - channels_last).abs().max() < 1e-4 * contiguous.abs().max()


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("slot", "path"),
    [  # Each takes a second, so most are left to `make test-slow`.
        case
        if case.values[1].stem in ("psp", "nonlocal", "mask", "affinity")
        else pytest.param(*case.values, id=case.id, marks=pytest.mark.slow)
        for case in CASES
    ],
)
def test_compiles_without_a_graph_break(slot, path):
    torch.compiler.reset()
    module = build(slot, path).eval()
    x = image_feature()
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), module(x))


@pytest.mark.slow  # what breaks an export almost always breaks a graph, too
@every_module
def test_exports_as_one_graph(slot, path):
    module = build(slot, path).eval()
    x = image_feature(1)
    exported = torch.export.export(module, (x,)).module()
    torch.testing.assert_close(exported(x), module(x))


@every_module
def test_state_dict_round_trips(slot, path):
    source, target = build(slot, path).eval(), build(slot, path).eval()
    for tensor in source.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(0.1)
    target.load_state_dict(source.state_dict(), strict=True)
    assert torch.equal(source(image_feature()), target(image_feature()))


@pytest.mark.parametrize(("slot", "path"), LD_WITH_MAP)
def test_distribution_has_a_map_between_zero_and_one(slot, path):
    for training in (True, False):
        x = image_feature()
        module = build(slot, path).train(training).module
        ld_map = module.distribution_map(context_of(x), x, *extra_inputs(module, x))
        batch, maps, *size = ld_map.shape
        assert batch == len(x), training
        # Either maps for groups of channels, or weights of K places that sum to 1.
        sums_to_one = torch.allclose(ld_map.sum(1), torch.ones_like(ld_map[:, 0]))
        assert CHANNELS % maps == 0 or sums_to_one, training
        assert size == list(x.shape[-2:]), training
        assert ld_map.min() >= 0, training
        assert ld_map.max() <= 1, training
