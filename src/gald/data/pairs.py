"""Pairs the files of two folders, and says which of them make no scene."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gald.data.dataset import Sample
from gald.data.reading.files import IMAGE_SUFFIXES, SampleError, list_files

_DERIVED = "_labelTrainIds"  # of cityscapesScripts and mmsegmentation
_NOTED: ContextVar[list[str] | None] = ContextVar("_NOTED", default=None)


def by_name(folder: Path, endings: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """List a folder's files, at any depth, by what their names say before the ending."""
    files: dict[str, Path] = {}
    for path in list_files(folder, tuple(f".{ending.rpartition('.')[2]}" for ending in endings)):
        ending = next((e for e in endings if path.name.lower().endswith(e.lower())), None)
        # A name that starts with a dot is what macOS leaves beside a file.
        if ending is None or path.name.startswith("."):
            continue
        name = path.name[: -len(ending)]
        if name in files:
            reject(f"{files[name]} and {path} are both called {name}; remove one of them")
        files[name] = path
    return files


def pair(
    images: Path,
    masks: Path,
    image_endings: tuple[str, ...] = IMAGE_SUFFIXES,
    mask_ending: str = ".png",
) -> list[Sample]:
    """Pair the images and masks of two folders by name, sorted; each must have its other half.

    Files that end otherwise are left alone, and so are the train ids that other tools write beside
    the labels.
    """
    image_of, mask_of = by_name(images, image_endings), by_name(masks, (mask_ending,))
    mask_of = {name: path for name, path in mask_of.items() if not name.endswith(_DERIVED)}
    for name in sorted(image_of.keys() - mask_of.keys()):
        reject(
            f"image {image_of[name]} has no mask {name}{mask_ending} in {masks}; "
            "restore the mask or remove the image"
        )
    for name in sorted(mask_of.keys() - image_of.keys()):
        reject(
            f"mask {mask_of[name]} has no image {name}{' or '.join(image_endings)} in {images}; "
            "restore the image or remove the mask"
        )
    names = sorted(image_of.keys() & mask_of.keys())
    return [Sample(name, image_of[name], mask_of[name]) for name in names]


def reject(sentence: str) -> None:
    """Refuse files that make no scene, from within `find`, which goes on if this returns.

    Raises:
        SampleError: with the sentence, unless `note_rejects` collects them.
    """
    noted = _NOTED.get()
    if noted is None:
        raise SampleError(sentence)
    noted.append(sentence)


@contextmanager
def note_rejects() -> Generator[list[str], None, None]:
    """Collect what datasets made in this context reject, for one who wants to know all of it."""
    noted: list[str] = []
    token = _NOTED.set(noted)
    try:
        yield noted
    finally:
        _NOTED.reset(token)
