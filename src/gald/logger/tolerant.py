"""Loggers that never end a training: what they cannot write is lost, and said once."""

import functools
from collections.abc import Callable
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_warn

from gald.errors import to_sentence

_METHODS = ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize")


def tolerant(logger: Logger) -> Logger:
    """Let a logger stop with a warning, instead of ending the run, when it fails.

    After its first error it writes nothing more.
    """
    failed: list[BaseException] = []

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*arguments: Any, **options: Any) -> Any:
            if failed:
                return None
            try:
                return method(*arguments, **options)
            except Exception as error:
                failed.append(error)
                warn(type(logger).__name__, error)

        return call

    for name in _METHODS:
        setattr(logger, name, guarded(getattr(logger, name)))
    return logger


def warn(name: str, error: BaseException) -> None:
    """Say that a logger has stopped, and why."""
    rank_zero_warn(f"{name} logs no more, the training goes on without it: {to_sentence(error)}")
