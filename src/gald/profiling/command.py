"""`gald profile`: measure the cost of each part of a network on this machine.

gald profile model/ga=psp size=[769,769]
gald profile experiment=gald_official device=cuda trainer.precision=bf16-mixed
"""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from gald.cli import report_errors, run
from gald.config import CONF_DIR
from gald.run.new_folders import no_empty_folder


@hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="profile")
@report_errors
def main(cfg: DictConfig) -> None:
    """Profile a network with the options of the command line."""
    cfg.output_dir = str(Path(HydraConfig.get().runtime.output_dir).absolute())
    from gald.profiling.network_cost import profile  # imports torch, which takes seconds

    with no_empty_folder(Path(cfg.output_dir)):
        profile(cfg)


if __name__ == "__main__":
    run("gald.profiling.command:main", sys.argv[1:])
