"""Which options may differ between a run and its resumption."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Options that change neither the weights nor the choice of the best checkpoint.
FREE = (
    "name",
    "output_dir",
    "ckpt_path",
    "init_from",
    "init_from_strict",
    "report",
    "tags",
    "test",
    "metrics",  # of the final evaluation
    "logger",
    "callbacks",
    "data.root",
    "data.groups",  # of the final evaluation
    "data.num_workers",
    "data.cache",
    "data.cache_dir",
    "data.micro_batch_size",
    "data.eval_batch_size",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.sync_batchnorm",
    "trainer.check_val_every_n_epoch",
    "trainer.log_every_n_steps",
    "trainer.limit_test_batches",
    "trainer.default_root_dir",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.profiler",
    "model.backbone.weights",  # initial weights, which the checkpoint replaces
    "model.host.weights",
    "trainer.compile",  # the same sums in another order, as in the two options below
    "model.channels_last",  # the same sums in another order, as on another device
    "model.fast_depthwise",
)
FIXED = ("callbacks.ema",)  # although callbacks are free
EPOCHS = "trainer.max_epochs"
REPLACED = ("output_dir=", "ckpt_path=")  # options that the command for resuming states anew


def resume_command(folder: Path, checkpoint: Path | str = "last") -> str:
    """Return the command line that resumes the run of this process."""
    words = [word for word in sys.argv[1:] if not word.startswith(REPLACED)]
    words += [f"output_dir={folder}", f"ckpt_path={checkpoint}"]
    return shlex.join(["gald", "train", *words])


def check_resume(before: dict[str, Any], now: dict[str, Any], path: Path) -> str | None:
    """Refuse to resume a run with options that would make it a different run.

    Args:
        before: resolved configuration of the run.
        now: resolved configuration of its resumption.
        path: checkpoint to resume from, for the message.

    Returns:
        what changes for the run, to be printed; None if nothing does.

    Raises:
        ValueError: an option differs that the training depends on, or the training gets shorter.
    """
    changed = changed_options(before, now)
    longer = None
    old, new = (config.get("trainer", {}).get("max_epochs") for config in (before, now))
    if EPOCHS in changed and 0 < (old or 0) < (new or 0):  # null and -1 set no end
        del changed[EPOCHS]
        longer = (
            f"{EPOCHS} was {old} and is now {new}: from here the learning rate "
            f"follows the schedule of {new} epochs"
        )
    if changed:
        raise ValueError(
            f"the run of {path} cannot be resumed with other options ({list_options(changed)}); "
            f"repeat its command, or start a new run from its weights with init_from={path}"
        )
    return longer


def changed_options(before: dict[str, Any], now: dict[str, Any]) -> dict[str, str]:
    """Return the options that make one config a different training than another.

    Args:
        before: resolved configuration of a run.
        now: another resolved configuration.

    Returns:
        both values of each option as text, `0.1 -> 0.2`, by key.
    """
    old, new = dict(_leaves(before)), dict(_leaves(now))
    keys = [key for key in sorted(old.keys() | new.keys()) if _differs(key, old, new)]
    return {key: f"{_show(old, key)} -> {_show(new, key)}" for key in keys if not _is_free(key)}


def list_options(changed: dict[str, str]) -> str:
    """Return changed options as one text, the first four of them."""
    listed = ", ".join(f"{key} {values}" for key, values in list(changed.items())[:4])
    return listed + (f" and {len(changed) - 4} more" if len(changed) > 4 else "")


def _leaves(node: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, node


def _differs(key: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    # A run of an earlier version does not have later options; they are off unless asked for.
    if key not in old:
        return new[key] not in (None, False, -1)  # -1 is no limit, and False is 0 too
    return old[key] != new.get(key)


def _is_free(key: str) -> bool:
    def inside(groups: tuple[str, ...]) -> bool:
        return any(key == group or key.startswith(f"{group}.") for group in groups)

    return inside(FREE) and not inside(FIXED)


def _show(values: dict[str, Any], key: str) -> str:
    return str(values[key]) if key in values else "not set"
