"""wandb logger that needs no login and never stops or delays a run."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only, rank_zero_warn

from gald.logger.reachable import reachable
from gald.sweep.run_labels import run_labels

MODES = ("offline", "online", "disabled")


def wandb_logger(
    output_dir: str,
    mode: Literal["offline", "online", "disabled"] = "offline",
    project: str = "gald",
    group: str | None = None,
    tags: Sequence[str] = (),
) -> WandbLogger:
    """Create a wandb logger; it writes to files in the run folder unless the mode is online.

    The run id is derived from the folder, so a resumed run continues its wandb run. A cell of a
    sweep has the sweep as its group, the job type `cell` and its factors as tags; the config key
    `arm` is the same for all seeds. If online mode has no key or no network connection, the logger
    warns and logs offline instead of ending or delaying the training. `gald wandb sync` sends
    offline runs later.

    Args:
        output_dir: run folder; wandb's files go to its subfolder `wandb`.
        mode: offline, online or disabled.
        project: wandb project.
        group: name that the runs of one experiment share; cells use the name of their sweep.
        tags: words to find the run by, beside the factors of a cell.

    Raises:
        ValueError: the mode is not one of the three.
    """
    if mode not in MODES:
        raise ValueError(
            f"logger.wandb.mode is {mode!r}; choose one of {', '.join(MODES)} "
            "(the variable WANDB_MODE sets it too)"
        )
    folder = Path(output_dir).absolute()
    # In all processes but the first the logger does nothing.
    return WandbLogger(save_dir=str(folder), experiment=_start(folder, mode, project, group, tags))


@rank_zero_only
def _start(folder: Path, mode: str, project: str, group: str | None, tags: Sequence[str]) -> Any:
    import wandb  # takes 1.5 seconds, so only runs that log to wandb import it

    if mode == "online" and not has_key():
        rank_zero_warn("no wandb key found, logging offline; run `wandb login` to store a key")
        mode = "offline"
    elif mode == "online" and not reachable(wandb.Settings().base_url):
        rank_zero_warn(
            "the wandb server cannot be reached, logging offline; run `gald wandb sync` later"
        )
        mode = "offline"
    folder.mkdir(parents=True, exist_ok=True)
    settings = wandb.Settings(
        init_timeout=15, silent=True, console="off", disable_git=True, x_disable_stats=True
    )
    labels = run_labels(folder)
    run_id = hashlib.sha1(str(folder).encode()).hexdigest()[:12]
    if "WANDB_SWEEP_ID" in os.environ and labels.job_type == "train":
        run_id = os.environ.get("WANDB_RUN_ID", run_id)  # set by a wandb agent
    options: dict[str, Any] = {
        "project": project,
        "group": labels.group or group,
        "job_type": labels.job_type,
        "tags": [*labels.tags, *tags, *_tags_of_environment()],
        "config": labels.config,
        "name": os.environ.get("WANDB_NAME") or labels.name,
        "id": run_id,
        "dir": str(folder),
        "resume": "allow",
        # A failed run may still be open in this process; without this it would get our numbers.
        "reinit": "finish_previous",
        "settings": settings,
    }
    try:
        run = wandb.init(mode=mode, **options)  # ty: ignore[invalid-argument-type]
    except (wandb.errors.CommError, wandb.errors.UsageError, TimeoutError) as error:
        rank_zero_warn(
            f"wandb cannot go online ({error}), logging offline; run `gald wandb sync` later"
        )
        run = wandb.init(mode="offline", **options)
    step = "trainer/global_step"
    run.define_metric(step)
    run.define_metric("*", step_metric=step)
    run.define_metric("val/miou", step_metric=step, summary="max,last")
    return run


def _tags_of_environment() -> list[str]:
    return [tag for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag]


def has_key() -> bool:
    """Return whether wandb would find a key without asking the user."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "wandb" in netrc.read_text(errors="ignore")
