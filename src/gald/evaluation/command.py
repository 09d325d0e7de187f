"""`gald eval`: evaluate a trained network, or repeat an evaluation.

gald eval ckpt_path=runs/demo/2026-11-22_12-00-00 split=test
gald eval ckpt_path=best.ckpt data=camvid data.root=FOLDER inference=slide
gald eval --check runs/demo/2026-11-22_12-00-00/results.json
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gald.cli import report_errors, run
from gald.config import CONF_DIR
from gald.options.roots import FROM_CHECKPOINT


def main() -> float | None:
    """Evaluate, or repeat an evaluation: `--check RESULTS_JSON [data.root=FOLDER]`."""
    if "--check" not in sys.argv:
        sys.argv[1:] = _changing_the_checkpoint(sys.argv[1:])
        return _evaluate()
    place = sys.argv.index("--check")
    if not "".join(sys.argv[place + 1 : place + 2]):
        raise ValueError("--check needs the results.json to repeat; write --check RESULTS_JSON")
    from gald.evaluation.reproduce import reproduce  # imports torch, which takes seconds

    overrides = sys.argv[1:place] + sys.argv[place + 2 :]
    return reproduce(Path(sys.argv[place + 1]), overrides)


def _changing_the_checkpoint(words: list[str]) -> list[str]:
    """Let keys such as data.root change the parts of the checkpoint, which Hydra does not know."""
    chosen = [part for part in FROM_CHECKPOINT if any(w.startswith(f"{part}=") for w in words)]
    parts = tuple(f"{part}." for part in FROM_CHECKPOINT if part not in chosen)
    return [f"+{word}" if word.startswith(parts) else word for word in words]


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="eval")
@report_errors
def _evaluate(cfg: DictConfig) -> float:
    """Evaluate with the options of the command line; return the split's mIoU."""
    cfg.output_dir = str(Path(HydraConfig.get().runtime.output_dir).absolute())
    # Imported here, because torch takes seconds.
    from gald.evaluation.checkpoint import evaluate_checkpoint
    from gald.run.lock import own_folder

    with own_folder(Path(cfg.output_dir)):
        return evaluate_checkpoint(cfg)[f"{cfg.split}/miou"]


if __name__ == "__main__":
    run("gald.evaluation.command:main", sys.argv[1:])
