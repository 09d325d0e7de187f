"""`gald train`: train a network, evaluate it, write its run folder.

gald train experiment=demo
gald train data=camvid model/ga=psp model/ld=none trainer.max_epochs=3
gald train -m model/ga=none,psp,cgnl model/ld=none,mask
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from gald.cli import report_errors, run
from gald.config import CONF_DIR


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="train")
@report_errors
def main(cfg: DictConfig) -> float | str:
    """Train with the options of the command line; return val/miou for sweepers to maximise."""
    job = HydraConfig.get()
    if job.mode == RunMode.MULTIRUN:
        from gald.sweep.launch.foreign_launcher import run_single  # not started by our launcher

        return run_single(cfg)
    # In the further processes that Lightning starts, only Hydra knows the run folder.
    cfg.output_dir = str(Path(job.runtime.output_dir).absolute())
    from gald.training.train import train  # imports torch, which takes seconds

    return train(cfg)["val/miou"]


if __name__ == "__main__":
    run("gald.training.command:main", sys.argv[1:])
