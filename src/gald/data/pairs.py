"""Pairing of images and masks by name, and collection of files without a partner."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from gald.data.dataset import Sample
from gald.data.reading.listing import IMAGE_SUFFIXES, composed, list_files
from gald.data.reading.sample_error import SampleError

_DERIVED = "_labelTrainIds"  # suffix that cityscapesScripts and mmsegmentation write
_REJECTS: ContextVar[list[str] | None] = ContextVar("_REJECTS", default=None)


def by_name(folder: Path, endings: tuple[str, ...] = IMAGE_SUFFIXES) -> dict[str, Path]:
    """List a folder's files, at any depth, by their names without the ending."""
    files: dict[str, Path] = {}
    for path in list_files(folder, tuple(f".{ending.rpartition('.')[2]}" for ending in endings)):
        ending = next((e for e in endings if path.name.lower().endswith(e.lower())), None)
        if ending is None:
            continue
        name = composed(path.name[: -len(ending)])
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
    """Pair the images and masks of two folders by name, sorted; each image must have a mask.

    Files with other endings are ignored, and so are the train ids that other tools write beside
    the masks.

    Raises:
        SampleError: an image without a mask or a mask without an image; see `reject`.
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
    """Reject a file in `list_samples`; the caller skips the file if this returns.

    Args:
        sentence: the file, what is wrong, the remedy.

    Raises:
        SampleError: with the sentence, unless `note_rejects` collects it.
    """
    rejects = _REJECTS.get()
    if rejects is None:
        raise SampleError(sentence)
    rejects.append(sentence)


@contextmanager
def note_rejects() -> Generator[list[str], None, None]:
    """Collect the rejects of datasets created in this context, instead of raising the first."""
    rejects: list[str] = []
    token = _REJECTS.set(rejects)
    try:
        yield rejects
    finally:
        _REJECTS.reset(token)
