"""`gald probe`: train heads of GA x LD on frozen features.

gald probe experiment=screen_camvid data.root=FOLDER
gald probe -m data=camvid model/backbone=lite0 model/ga=none,psp_bare model/ld=none,const seed=0,1,2
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gald.cli import report_errors, run
from gald.config import CONF_DIR


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="probe")
@report_errors
def main(cfg: DictConfig) -> float:
    """Run one cell with the options of the command line; return val/miou."""
    cfg.output_dir = str(Path(HydraConfig.get().runtime.output_dir).absolute())
    from gald.probe.alone import run_alone  # imports torch, which takes seconds

    return run_alone(cfg)


if __name__ == "__main__":
    run("gald.probe.command:main", sys.argv[1:])
