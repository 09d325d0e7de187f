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


def main() -> float | None:
    """Evaluate, or repeat an evaluation: `--check RESULTS_JSON [data.root=FOLDER]`."""
    if "--check" not in sys.argv:
        return _evaluate()
    place = sys.argv.index("--check")
    if place + 1 == len(sys.argv):
        raise ValueError("--check needs the results.json to repeat; write --check RESULTS_JSON")
    from gald.evaluation.reproduce import reproduce  # imports torch, which takes seconds

    overrides = sys.argv[1:place] + sys.argv[place + 2 :]
    return reproduce(Path(sys.argv[place + 1]), overrides)


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
