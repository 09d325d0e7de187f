"""Writer of images, masks and `classes.yaml` in the layout of `data=folder`."""

import io
import json
import os
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gald.data.labels import VOID
from gald.data.reading.files import read_bytes
from gald.data.reading.header import read_size
from gald.data.reading.image import read_image, refuse_large
from gald.data.reading.listing import IMAGE_SUFFIXES
from gald.data.reading.sample_error import SampleError
from gald.data.tools.importing.coco import read_coco
from gald.data.tools.importing.jobs import BACKGROUND, UNLABELLED, Import, Job, Opened, counted
from gald.data.tools.importing.labelme import read_labelme
from gald.errors import to_sentence
from gald.progress import in_order
from gald.run.atomic import new_folder, refuse_filled

READERS: dict[str, Callable[[Path, str, Path | None], Import]] = {
    "coco": read_coco,
    "labelme": read_labelme,
}
_SHOWN = 10  # problems that are printed
_ORIENTATION = 0x0112  # tag of EXIF
_SWAPPED = (5, 6, 7, 8)  # orientations that exchange width and height
_SUFFIX_OF = {b"\x89PNG": ".png", b"\xff\xd8": ".jpg"}  # by the first bytes
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


def import_folder(
    kind: str,
    folder: Path,
    output: Path | None = None,
    unlabelled: str = BACKGROUND,
    images: Path | None = None,
    copy: bool = False,
) -> int:
    """Draw the annotations in a folder as masks, and print the command to run next.

    Args:
        kind: `coco` or `labelme`.
        folder: folder with the json files and the images.
        output: a new folder; None is `FOLDER_masks`.
        unlabelled: what pixels without annotation are: `background`, a class, or `void`.
        images: folder of the images, if it is not found by itself.
        copy: copy the images instead of linking them.

    Returns:
        0 if every image was written, 1 if some were left out.

    Raises:
        ValueError: the output exists, or there is nothing to write.
    """
    folder = folder.expanduser()
    images = images.expanduser() if images else None
    for path in (folder, images):
        if path is not None and not path.is_dir():
            raise ValueError(f"{path} is not a folder; choose the folder of the json files")
    if output is None:
        whole = folder if folder.name not in ("", "..") else folder.resolve()
        output = whole.with_name(f"{whole.name}_masks")
    output = output.expanduser()
    refuse_filled(output, "choose another --to")
    found = READERS[kind](folder, unlabelled, images)
    problems = list(found.problems)
    counts: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    with new_folder(output) as new:
        work = partial(_write, jobs=found.jobs, output=new, copy=copy)
        results = in_order(work, range(len(found.jobs)), "write masks")
        for job, result in zip(found.jobs, results, strict=True):
            if isinstance(result, SampleError):
                problems.append(str(result))
            else:
                counts[job.split] += 1
                ways[result] += 1
        if not counts:
            raise ValueError(problems[0] if problems else f"{folder} lists no images")
        (new / "classes.yaml").write_text(_classes(found.labels, kind, unlabelled), "utf-8")
        if problems:
            lines = (f"{problem}\n" for problem in problems)
            (new / "problems.txt").write_text("".join(lines), "utf-8")
    meaning = "void" if unlabelled == "void" else f"the class {_class_names(found.labels)[0]}"
    notes = [", ".join(f"{counted(n, 'image')} {way}" for way, n in sorted(ways.items()))]
    notes += [f"pixels without annotation are {meaning} (--unlabelled)", *found.notes]
    _report(output, counts, found.labels, problems, notes)
    return 1 if problems else 0


def _report(
    output: Path,
    counts: Counter[str],
    labels: dict[str, int],
    problems: list[str],
    notes: list[str],
) -> None:
    images = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test"))
    print(f"{output}: {images} images; classes: {', '.join(_class_names(labels))}")
    for note in notes:
        print(note)
    for problem in problems[:_SHOWN]:
        print(f"left out: {problem}")
    if len(problems) > _SHOWN:
        print(f"and {len(problems) - _SHOWN} more in {output / 'problems.txt'}")
    root = shlex.quote(f"data.root={output}")
    fraction = ""
    if not counts["val"]:
        print("no folder or json file is named val; data.val_fraction holds out a part of train")
        fraction = " data.val_fraction=0.2"
    print(f"next: gald data verify folder {root}{fraction}")


def _class_names(labels: dict[str, int]) -> list[str]:
    """Return the classes in the order of the scores; names with the same label are one class."""
    first = {label: name for name, label in reversed(labels.items()) if label != VOID}
    return [first[label] for label in sorted(first)]


def _classes(labels: dict[str, int], kind: str, unlabelled: str) -> str:
    """Return the content of `classes.yaml`; text of json is also YAML."""
    names = _class_names(labels)
    first = UNLABELLED if unlabelled == BACKGROUND else UNLABELLED + 1
    entries = [
        f"  - {{name: {json.dumps(name, ensure_ascii=False)}, ids: [{label}]}}"
        for label, name in enumerate(names, first)
    ]
    void = [VOID] if unlabelled == BACKGROUND else [UNLABELLED, VOID]
    return "\n".join(
        [
            f"# Written by gald data import {kind}; {UNLABELLED} is a pixel without annotation.",
            "classes:",
            *entries,
            f"void: {{ids: {void}}}\n",
        ]
    )


def _write(index: int, jobs: Sequence[Job], output: Path, copy: bool) -> str | SampleError:
    """Write one image and its mask; return how, or why not."""
    job = jobs[index]
    if any(part.startswith(".") for part in Path(job.name).parts):
        return SampleError(
            f"{job.where} has a name that starts with a dot, which data=folder ignores; rename it"
        )
    try:
        opened = job.open()
        return _write_pair(job, opened, output, copy)
    except SampleError as error:
        return error
    except Exception as error:  # so that the other images are still written
        return SampleError(f"{job.where} cannot be imported ({to_sentence(error)}); replace it")


def _write_pair(job: Job, opened: Opened, output: Path, copy: bool) -> str:
    image, suffix, orientation = _read(opened.picture, job.where)
    turned, size = _turned(image.shape, opened, orientation, job.where)
    mask = opened.draw(size[1], size[0])
    target = output / "images" / job.split / f"{job.name}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    if orientation != 1:
        # Without the tag, so that no reader can turn the image again.
        image = _turn(image, orientation) if turned else image
        _write_png(target.with_name(f"{Path(job.name).name}.png"), image[..., ::-1])
        way = "with a tag of orientation written as png without it"
    elif isinstance(opened.picture, bytes):
        target.write_bytes(opened.picture)
        way = "written from the json"
    elif copy or not _link(opened.picture, target):
        shutil.copyfile(opened.picture, target)
        way = "copied"
    else:
        way = "linked"
    _write_png(output / "masks" / job.split / f"{job.name}.png", mask)
    return way


def _read(picture: Path | bytes, where: str) -> tuple[np.ndarray, str, int]:
    """Return the pixels in stored order, the file ending and the orientation of an image."""
    data = picture if isinstance(picture, bytes) else read_bytes(picture)
    suffix = next((s for magic, s in _SUFFIX_OF.items() if data.startswith(magic)), None)
    if suffix is None or (
        isinstance(picture, Path) and picture.suffix.lower() not in IMAGE_SUFFIXES
    ):
        raise SampleError(f"{where} is not a png or jpg; save it as png and correct the json")
    if isinstance(picture, Path):
        image, suffix = read_image(picture), picture.suffix
    else:
        refuse_large(read_size(data), f"the imageData of {where}")
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
        if image is None:
            raise SampleError(f"the imageData of {where} cannot be decoded; save the json again")
    header = Image.open(io.BytesIO(data), formats=["JPEG", "PNG"])
    return image, suffix, header.getexif().get(_ORIENTATION) or 1  # cameras also write 0


def _turned(
    shape: tuple[int, ...], opened: Opened, orientation: int, where: str
) -> tuple[bool, tuple[int, int]]:
    """Return whether the annotations are of the turned image, and their width and height.

    Raises:
        SampleError: the sizes differ, or they do not tell.
    """
    stored = shape[1], shape[0]
    upright = stored[::-1] if orientation in _SWAPPED else stored
    if orientation not in range(1, 9):
        raise SampleError(f"{where} has the unknown orientation {orientation}; save it without")
    fits = [turned for turned, size in ((False, stored), (True, upright)) if size == opened.size]
    if opened.size is None:
        fits = [False, True]
    if not fits:
        widths = f"{stored[0]}x{stored[1]}"
        if upright != stored:
            widths += f" (upright {upright[0]}x{upright[1]})"
        width, height = opened.size or stored
        raise SampleError(
            f"{where} is {width}x{height} in the json, but the image is {widths}; annotate the "
            "image of this size, or restore the other image"
        )
    if orientation == 1:
        return False, stored
    if len(fits) == 1:
        return fits[0], upright if fits[0] else stored
    if opened.upright is None:
        raise SampleError(
            f"{where} has a tag of orientation ({orientation}), and its annotations do not say "
            "whether they are of the turned image; save the image upright without the tag"
        )
    return opened.upright, upright if opened.upright else stored


def _turn(image: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image upright; `orientation` is the tag of EXIF, from 1 to 8."""
    if orientation in _SWAPPED:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    assert done
    path.write_bytes(data.tobytes())


def _link(source: Path, target: Path) -> bool:
    """Link a file, which needs no space; return whether the disk can."""
    try:
        os.link(source.resolve(), target)
    except OSError:
        return False
    return True
