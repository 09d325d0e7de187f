"""Parameters, GMACs and memory of the recipes in conf/experiment, without computing anything.

    python benchmarks/recipes.py                          # the table of docs/recipes.md
    python benchmarks/recipes.py ade20k_dinov3_s          # one row

Only shapes are propagated, so that no GPU is needed and a row takes seconds. GMACs are those of one
image of the training size in evaluation. Memory is what one GPU holds in a training step: weights,
gradients, state of the optimiser, the moving average if there is one, and the largest sum of live
tensors of a forward and backward pass, in the recipe's precision. The context of CUDA, workspaces
of its kernels and the buckets of several processes come on top.
"""

import argparse
import weakref
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from gald.config import CONF_DIR, compose
from gald.profiling.flops import part_costs
from gald.profiling.network_cost import DTYPES
from gald.run.building import build_own

GPUS = 8  # of a recipe with trainer=ddp
STATES = {"torch.optim.SGD": 1, "torch.optim.AdamW": 2}  # tensors of state for each parameter
DATASETS = ("cityscapes", "ade20k", "pascal_context", "coco_stuff", "camvid")
FAMILIES = ("gald_r50", "gald_r101", "dinov3_s", "dinov3_b", "convnext_b")


class Cost(NamedTuple):
    """One row: parameters, GMACs of an image, its side, images on a GPU, bytes on that GPU."""

    params: int
    gmacs: float
    side: int
    images: int
    bytes: int


class LiveBytes(TorchDispatchMode):
    """Sum of the storages that exist at once, by their shapes; fake tensors have no address.

    Args:
        outside: tensors that do not count.
    """

    def __init__(self, outside: list[Tensor]) -> None:
        super().__init__()
        self.outside = {t.untyped_storage()._cdata for t in outside}
        self.live: dict[int, int] = {}
        self.now = self.peak = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        for tensor in outputs if isinstance(outputs, tuple | list) else (outputs,):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return outputs

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.live and key not in self.outside:
            self.live[key] = storage.nbytes()
            self.now += storage.nbytes()
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self.live.pop(key)


def step_bytes(model: Any, loss: Any, images: int, size: list[int], dtype: Any) -> int:
    """Return the peak of live tensors in a forward and backward pass, weights not included."""
    fakes = FakeTensorMode(allow_non_fake_inputs=True)
    with fakes:
        weights = {k: fakes.from_tensor(p) for k, p in model.named_parameters()}
        buffers = {k: fakes.from_tensor(b) for k, b in model.named_buffers()}
        image = torch.empty(images, 3, *size, dtype=torch.uint8)
        mask = torch.empty(images, *size, dtype=torch.uint8)
    live = LiveBytes([*weights.values(), *buffers.values(), image, mask])
    with fakes, live:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            output = functional_call(model, weights | buffers, (image,))
            value = loss(output, mask)
        trained = [p for p in weights.values() if p.requires_grad]
        torch.autograd.grad(value, trained, allow_unused=True)
    return live.peak


def cost(name: str) -> Cost:
    """Compute the row of one recipe."""
    config: DictConfig = compose("train", [f"experiment={name}", "model.backbone.weights=null"])
    model = build_own(config.model, num_classes=build_own(config.data).num_classes)
    size = list(config.data.train_transform.crop_size)
    counts = part_costs(model, size)
    images = config.data.global_batch_size // (GPUS if config.trainer.strategy == "ddp" else 1)
    copies = 1 + STATES[config.optimizer._target_] + ("ema" in config.callbacks)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    loss, dtype = build_own(config.loss), DTYPES[config.trainer.precision]
    step = step_bytes(model.train(), loss, images, size, dtype)
    params, gmacs = counts["cost/total/params"], counts["cost/total/gmacs"]
    return Cost(int(params), gmacs, size[0], images, copies * weights + step)


def row(name: str, cost: Cost) -> str:
    """Format the computed columns of the table in docs/recipes.md."""
    return (
        f"| `{name}` | {cost.params / 1e6:.1f} | {cost.gmacs:.0f} | {cost.side} "
        f"| {cost.images} | {cost.bytes / 2**30:.1f} |"
    )


def recipes() -> list[str]:
    """List the recipes, by dataset."""
    names = [f"{data}_{family}" for data in DATASETS for family in FAMILIES]
    return [name for name in names if (CONF_DIR / "experiment" / f"{name}.yaml").is_file()]


def main() -> None:
    """Print a row for each named recipe."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("names", nargs="*")
    for name in parser.parse_args().names or recipes():
        print(row(name, cost(name)), flush=True)


if __name__ == "__main__":
    main()
