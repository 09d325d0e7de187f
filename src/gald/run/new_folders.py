"""Folders that Hydra creates for a run, and their removal if the run never begins."""

from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import override

_created: set[Path] = set()  # folders that did not exist before this process


class NewFolders(Callback):
    """Hydra callback that remembers which folders exist before Hydra creates the run folder."""

    @override
    def on_run_start(self, config: DictConfig, **_: object) -> None:
        with suppress(OmegaConfBaseException):  # Hydra itself reports a folder that is not set
            remember(Path(config.hydra.run.dir))


def remember(folder: Path) -> None:
    """Remember which of a folder and its parents do not exist yet."""
    folder = folder.absolute()
    _created.update(path for path in (folder, *folder.parents) if not path.exists())


def refuse_unwritable(folder: Path, option: str) -> None:
    """Refuse an output folder that cannot be created, before any work is done for it.

    Args:
        folder: the folder; nothing of it remains.
        option: how the user names it, for the message.

    Raises:
        ValueError: a part of its path is a file, or it may not be written.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(
            f"{option} {folder} cannot be written ({error.strerror}); name another folder"
        ) from error
    finally:
        for path in absent:
            with suppress(OSError):  # it was not created, or something else is in it
                path.rmdir()


@contextmanager
def no_empty_folder(folder: Path) -> Generator[None]:
    """Remove a new folder, and new folders around it, if an error leaves them empty."""
    remember(folder)
    try:
        yield
    except BaseException:
        for path in (folder.absolute(), *folder.absolute().parents):
            if path not in _created or not path.is_dir() or any(path.iterdir()):
                break
            path.rmdir()
        raise
