"""TensorBoard logger."""

from importlib.util import find_spec

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard_logger(output_dir: str) -> TensorBoardLogger:
    """Create a logger of curves and config to the folder `tensorboard` of the run folder.

    `tensorboard --logdir runs` shows all runs; a resumed run continues its curves.

    Args:
        output_dir: run folder.

    Raises:
        ValueError: tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise ValueError(
            "logger=tensorboard needs the package tensorboard; pip install 'gald[tensorboard]'"
        )
    return TensorBoardLogger(output_dir, name="", version="tensorboard")
