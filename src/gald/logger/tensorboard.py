"""TensorBoard logger."""

from pytorch_lightning.loggers import TensorBoardLogger

from gald.install.extras import require


def tensorboard_logger(output_dir: str) -> TensorBoardLogger:
    """Create a logger of curves and config to the folder `tensorboard` of the run folder.

    `tensorboard --logdir runs` shows all runs; a resumed run continues its curves.

    Args:
        output_dir: run folder.

    Raises:
        ValueError: tensorboard is not installed.
    """
    require("logger=tensorboard", "tensorboard")
    return TensorBoardLogger(output_dir, name="", version="tensorboard")
