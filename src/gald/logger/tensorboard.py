"""TensorBoard, for those who would rather look there."""

from importlib.util import find_spec

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard_logger(output_dir: str) -> TensorBoardLogger:
    """Logs curves and the config into the run folder's `tensorboard`.

    `tensorboard --logdir runs` then shows all runs; a resumed run goes on in the same curves.

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
