"""Loss of an optimizer step; a loss that is not finite stops the training."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gald.run.to_host import ToHost

REMEDY = "lower optimizer.lr or add trainer.gradient_clip_val=1, and start a new run"


class NotFiniteError(ValueError):
    """The training has diverged: a loss or a weight is infinite or nan."""


class StepLoss:
    """Sum of the losses of an optimizer step's micro-batches on this process.

    On a GPU the loss is copied while the GPU works, and checked one step later, or before the next
    validation or checkpoint.

    Attributes:
        checked: the newest loss that is checked; nan before the first.
    """

    def __init__(self) -> None:
        self.checked = math.nan
        self._parts: list[tuple[Tensor, Sequence[str]]] = []
        self._pending: _Pending | None = None

    def add(self, part: Tensor, names: Sequence[str]) -> None:
        """Add the part of a micro-batch with these images."""
        self._parts.append((part.detach(), names))

    def total(self) -> Tensor:
        """Return the sum of the parts, detached."""
        return torch.stack([part for part, _ in self._parts]).sum()

    def finish(self, total: Tensor, step: int) -> None:
        """Check the step before, and start the next step.

        Args:
            total: the loss of this step, summed over the processes.
            step: number of optimizer steps before this one.

        Raises:
            NotFiniteError: the loss of the previous step is not finite; on a CPU, of this step.
        """
        self.check()
        self._pending = _Pending(total, step, self._parts)
        self._parts = []
        if not total.is_cuda:
            self.check()

    def check(self) -> None:
        """Raise NotFiniteError if the last finished step's loss is not finite."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self.checked = pending.check()


class _Pending:
    """Loss of a step on its way from the GPU."""

    def __init__(self, total: Tensor, step: int, parts: list[tuple[Tensor, Sequence[str]]]) -> None:
        self.step, self.parts = step, parts
        self.total = ToHost(total)

    def check(self) -> float:
        value = self.total.read().item()
        if math.isfinite(value):
            return value
        guilty = [name for part, names in self.parts if not part.isfinite() for name in names]
        if torch.distributed.is_initialized():  # every process has the same sum, so all get here
            everywhere: list[Any] = [None] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(everywhere, guilty)
            guilty = [name for names in everywhere for name in names]
        shown = ", ".join(guilty[:8]) + (", ..." if len(guilty) > 8 else "")
        raise NotFiniteError(f"the loss is {value} at step {self.step} (images {shown}); {REMEDY}")
