"""Reader of labelme's json files: one for each image.

Shapes are drawn in the order of the file, so a later one covers an earlier one, also in a group.
They follow the rule of labelme itself, which draws with Pillow: outlines belong to a shape, lines
are 10 pixels wide, and a point is a disc of radius 5. Pixels of `__ignore__` become void.
"""

import base64
import binascii
import io
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from gald.data.labels import VOID
from gald.data.reading.files import read_bytes
from gald.data.reading.listing import IMAGE_SUFFIXES
from gald.data.reading.sample_error import SampleError
from gald.data.tools.importing.jobs import (
    UNLABELLED,
    Import,
    Job,
    Opened,
    assign_labels,
    check_class_name,
    check_points,
    check_size,
    common_folder,
    counted,
    inside,
    json_files,
    split_all,
)
from gald.progress import in_order

_IGNORE = "__ignore__"
_LINE_WIDTH = 10  # pixels
_RADIUS = 5
Points = list[tuple[float, float]]


def read_labelme(folder: Path, unlabelled: str, images: Path | None) -> Import:
    """Find the json files in a folder and read their labels; the masks are drawn later.

    Args:
        folder: folder with the json files, at any depth.
        unlabelled: `background` or `void`.
        images: folder of the images; None is the folder of each json file.

    Raises:
        ValueError: there is no json file, no class, or files are in unclear splits.
    """
    files = json_files(folder)
    if not files:
        raise ValueError(f"{folder} has no json file of labelme; choose the folder that has them")
    splits = split_all(files, folder, words_of_name=False)
    problems: list[str] = []
    names: set[str] = set()
    jobs: list[Job] = []
    kinds: set[str] = set()
    seen: dict[Path, Path] = {}
    readable: list[Path] = []
    results = in_order(
        lambda i: _summary(files[i], folder, images), range(len(files)), "read labels"
    )
    for path, result in zip(files, results, strict=True):
        if isinstance(result, str):
            problems.append(result)
        elif result.picture in seen:
            problems.append(
                f"{path} is of {result.picture}, and so is {seen[result.picture]}; delete one of "
                "the two json files"
            )
        else:
            readable.append(path)
            names |= result.labels
            kinds |= result.kinds
            if result.picture:
                seen[result.picture] = path
    if not readable:
        raise ValueError(problems[0])
    labels = assign_labels(sorted(names - {_IGNORE}), unlabelled, folder) | {_IGNORE: VOID}
    tops = {
        split: common_folder([path for path in readable if splits[path] == split])
        for split in set(splits.values())
    }
    for path in readable:
        split = splits[path]
        name = path.relative_to(tops[split]).with_suffix("").as_posix()
        opened = partial(_open, path, folder, images, labels)
        jobs.append(Job(split, name, str(path), opened))
    jobs.sort(key=lambda job: (job.split, job.name))
    notes = _alone(files)
    if kinds & {"line", "linestrip", "point", "points"}:
        notes.append(
            f"lines are drawn {_LINE_WIDTH} pixels wide, points as discs of radius {_RADIUS}"
        )
    return Import(jobs, labels, problems, notes)


def _alone(files: Sequence[Path]) -> list[str]:
    """Count the images beside json files that have none of their own."""
    annotated = {path.with_suffix("") for path in files}
    beside = [image for folder in {path.parent for path in files} for image in folder.iterdir()]
    alone = [
        image
        for image in beside
        if image.suffix.lower() in IMAGE_SUFFIXES and image.with_suffix("") not in annotated
    ]
    if not alone:
        return []
    verb = "is" if len(alone) == 1 else "are"
    return [
        f"{counted(len(alone), 'image')} without a json of its name {verb} left out, e.g. "
        f"{min(alone)}"
    ]


class _Summary(NamedTuple):
    """What must be known of all files before the first mask is drawn.

    Attributes:
        labels: labels of the shapes.
        kinds: types of the shapes.
        picture: file of the image; None if it is embedded.
    """

    labels: set[str]
    kinds: set[str]
    picture: Path | None


def _summary(path: Path, folder: Path, images: Path | None) -> _Summary | str:
    """Return the summary of a json file, or its problem as a sentence."""
    try:
        content = _read(path)
        picture = _picture(content, path, folder, images)
    except SampleError as error:
        return str(error)
    shapes = content["shapes"]
    labels, kinds = {s["label"] for s in shapes}, {str(s.get("shape_type")) for s in shapes}
    return _Summary(labels, kinds, picture if isinstance(picture, Path) else None)


def _read(path: Path) -> dict[str, Any]:
    """Read a json file and check its labels."""
    try:
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{path} is not valid json ({error}); save it again") from None
    shapes = content.get("shapes") if isinstance(content, dict) else None
    if not isinstance(shapes, list) or not all(isinstance(shape, dict) for shape in shapes):
        raise SampleError(
            f"{path} is not a json file of labelme, because it has no list of shapes; move it out "
            "of the folder or save it again"
        )
    for number, shape in enumerate(shapes, 1):
        shape["label"] = check_class_name(shape.get("label"), f"shape {number} of {path}")
    return content


def _open(path: Path, folder: Path, images: Path | None, labels: dict[str, int]) -> Opened:
    content = _read(path)
    size = check_size(content.get("imageWidth"), content.get("imageHeight"), str(path))
    shapes = []
    for number, shape in enumerate(content["shapes"], 1):
        where = f"shape {number} ({shape['label']}) of {path}"
        shapes.append((labels[shape["label"]], shape, where))
    picture = _picture(content, path, folder, images)
    return Opened(picture, size, True, partial(_draw, shapes))


def _picture(
    content: dict[str, Any], path: Path, folder: Path, images: Path | None
) -> Path | bytes:
    """Return the embedded image, or the path of the file, which must be in the folder."""
    embedded, given = content.get("imageData"), content.get("imagePath")
    if embedded:
        try:
            return base64.b64decode(embedded, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise SampleError(
                f"{path} has an imageData that is not base64; save it again, or set it to null to "
                "use imagePath"
            ) from None
    if not isinstance(given, str) or not given:
        raise SampleError(f"{path} has neither imageData nor imagePath; save it again")
    top = images or folder
    file = inside(images or path.parent, given, top)
    if file is None:
        raise SampleError(
            f"{path} has the imagePath {given!r}, which leads out of {top}; write the path from "
            f"{images or path.parent}, or import the folder that has both"
        )
    if not file.is_file():
        raise SampleError(
            f"{path} has the imagePath {given!r}, but {file} does not exist; put it there or add "
            "--images FOLDER"
        )
    return file


def _draw(shapes: Sequence[tuple[int, dict[str, Any], str]], height: int, width: int) -> np.ndarray:
    """Draw shapes in their order."""
    canvas = Image.new("L", (width, height), UNLABELLED)
    for label, shape, where in shapes:
        kind = shape.get("shape_type") or "polygon"
        points = shape.get("points")
        if kind not in _KINDS:
            raise SampleError(
                f"{where} is a {kind!r}; draw it as one of {', '.join(_KINDS)}, or delete it"
            )
        if not isinstance(points, list):
            raise SampleError(f"{where} has no list of points; draw it again or delete it")
        array = check_points(points, (width, height), where)
        draw, counts = _KINDS[kind]
        if len(array) not in counts:
            raise SampleError(
                f"{where} is a {kind} of {len(array)} points; draw it again or delete it"
            )
        if kind == "mask":
            _paste(canvas, label, array, shape.get("mask"), where)
        else:
            draw(ImageDraw.Draw(canvas), [(float(x), float(y)) for x, y in array], label)
    return np.array(canvas)


def _polygon(draw: ImageDraw.ImageDraw, points: Points, label: int) -> None:
    draw.polygon(points, fill=label, outline=label)


def _rectangle(draw: ImageDraw.ImageDraw, points: Points, label: int) -> None:
    """Draw from two opposite corners in any order, or from four."""
    if len(points) == 4:  # perhaps a rotated one
        return _polygon(draw, points, label)
    columns, rows = zip(*points, strict=True)
    draw.rectangle((min(columns), min(rows), max(columns), max(rows)), fill=label, outline=label)


def _circle(draw: ImageDraw.ImageDraw, points: Points, label: int) -> None:
    """Draw from the centre and a point of the circle."""
    _disc(draw, points[0], math.dist(*points), label)


def _line(draw: ImageDraw.ImageDraw, points: Points, label: int) -> None:
    draw.line(points, fill=label, width=_LINE_WIDTH)


def _points(draw: ImageDraw.ImageDraw, points: Points, label: int) -> None:
    for point in points:
        _disc(draw, point, _RADIUS, label)


def _disc(
    draw: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, label: int
) -> None:
    (x, y), r = centre, radius
    draw.ellipse((x - r, y - r, x + r, y + r), fill=label, outline=label)


def _paste(canvas: Image.Image, label: int, corners: np.ndarray, data: Any, where: str) -> None:
    """Draw the set pixels of an embedded png between two corners, both included."""
    left, top, right, bottom = (int(value) for value in corners.ravel())
    size = right - left + 1, bottom - top + 1
    try:
        mask = Image.open(io.BytesIO(base64.b64decode(data, validate=True)), formats=["PNG"])
        if mask.size != size:
            raise SampleError(
                f"{where} has a mask of {mask.size[0]}x{mask.size[1]} pixels between corners for "
                f"{size[0]}x{size[1]}; draw it again or delete it"
            )
        stencil = Image.fromarray(np.array(mask.convert("L")) > 0)
    except (TypeError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, SampleError):
            raise
        raise SampleError(
            f"{where} has a mask that is not a png in base64; draw it again or delete it"
        ) from None
    canvas.paste(label, (left, top), stencil)


_Draw = Callable[[ImageDraw.ImageDraw, Points, int], None]
_MANY = range(1, 10**6)
# How to draw each type of shape, and how many points it has.
_KINDS: dict[str, tuple[_Draw, Sequence[int]]] = {
    "polygon": (_polygon, _MANY[2:]),
    "rectangle": (_rectangle, (2, 4)),
    "circle": (_circle, (2,)),
    "line": (_line, (2,)),
    "linestrip": (_line, _MANY[1:]),
    "point": (_points, (1,)),
    "points": (_points, _MANY),
    "mask": (_points, (2,)),
}
