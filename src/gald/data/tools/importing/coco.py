"""Reader of COCO json files: polygons and run lengths of each image.

Annotations are drawn in the order of the file, so a later one covers an earlier one, whether it is
a crowd or not. Polygons follow the rule of pycocotools: the outline is traced at five times the
resolution, and the parts of one annotation are united. Run lengths, compressed or as numbers, are
exact and may have holes.
"""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from gald.data.folder_layout import NAMES
from gald.data.reading.files import read_bytes
from gald.data.reading.sample_error import SampleError
from gald.data.tools.importing.jobs import (
    Import,
    Job,
    Opened,
    assign_labels,
    check_class_name,
    check_points,
    check_size,
    common_folder,
    inside,
    json_files,
    split_all,
)
from gald.install.extras import require

_PARTS = ("images", "annotations", "categories")
_OTHER_KEYS = ("id", "image_id", "category_id", "file_name", "width", "height", "name")
_USED_KEYS = frozenset((*_PARTS, *_OTHER_KEYS, "segmentation", "size", "counts"))
_FOLDERS = ("images", "data", "JPEGImages")  # where tools put the images


def read_coco(folder: Path, unlabelled: str, images: Path | None) -> Import:
    """Find the json files and images in a folder; the masks are drawn later.

    Args:
        folder: folder with one json file or several, at any depth.
        unlabelled: `background` or `void`.
        images: folder of the images; None looks at the usual places.

    Raises:
        ValueError: there is no json file, no class, or files are in unclear splits.
    """
    files = json_files(folder)
    # beside the captions and key points of the same images
    files = [path for path in files if path.name.startswith("instances_")] or files
    if not files:
        raise ValueError(f"{folder} has no json file of COCO; choose the folder that has it")
    splits = split_all(files, folder, words_of_name=True)
    problems: list[str] = []
    contents: dict[Path, _Content] = {}
    for path in files:
        try:
            contents[path] = _Content(path)
        except SampleError as error:
            problems.append(str(error))
    names = dict.fromkeys(name for content in contents.values() for name in content.names.values())
    if problems and not contents:
        raise ValueError(problems[0])
    labels = assign_labels(list(names), unlabelled, folder)
    jobs: dict[tuple[str, str], Job] = {}
    seen: dict[Path, Path] = {}
    for path, content in contents.items():
        problems += content.problems
        found = _find_images(content, folder, splits[path], images, problems)
        top = common_folder([file for _, file in found])
        for image, file in found:
            name = file.relative_to(top).with_suffix("").as_posix()
            key = splits[path], name
            where = f"image {file} of {path}"
            if file in seen:
                problems.append(f"{where} is also in {seen[file]}; keep it in one of them")
                continue
            seen[file] = path
            if key in jobs:
                problems.append(f"{where} has the name of {jobs[key].where}; rename one of them")
                continue
            jobs[key] = Job(*key, where, partial(_open, content, image, file, labels))
    used = {name for content in contents.values() for name in content.used_names()}
    notes = []
    if unused := [name for name in names if name not in used]:
        notes.append(f"no annotation has the category {', '.join(unused)}")
    return Import([jobs[key] for key in sorted(jobs)], labels, problems, notes)


class _Content:
    """Images, annotations and categories of one json file.

    Args:
        path: of the file.

    Raises:
        SampleError: it is not a json file of COCO.

    Attributes:
        names: class of each category.
        images: images by id.
        annotations: annotations by the id of their image, in the order of the file.
        problems: annotations and images that are left out.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            content = json.loads(read_bytes(path), object_hook=_drop_unused)
        except (ValueError, RecursionError) as error:
            raise SampleError(f"{path} is not valid json ({error}); export it again") from None
        parts: list[Any] = [content.get(k) if isinstance(content, dict) else None for k in _PARTS]
        for key, part in zip(_PARTS, parts, strict=True):
            if not isinstance(part, list) or not all(isinstance(entry, dict) for entry in part):
                raise SampleError(
                    f"{path} is not a json file of COCO, because it has no list of {key}; move it "
                    "out of the folder or export it again"
                )
        images, annotations, categories = parts
        self.problems: list[str] = []
        self.names: dict[int | str, str] = {}
        ids = [entry.get("id") for entry in categories]
        if not all(map(_is_id, ids)) or len(set(ids)) < len(ids):
            raise SampleError(
                f"{path} has categories without an id, or with the same id; number them"
            )
        order = sorted(categories, key=lambda entry: (str(type(entry["id"])), entry["id"]))
        for entry in order:
            where = f"category {entry['id']} of {path}"
            self.names[entry["id"]] = check_class_name(entry.get("name"), where)
        self.images: dict[int | str, dict[str, Any]] = {}
        self._add_images(images)
        self.annotations: dict[int | str, list[dict[str, Any]]] = {key: [] for key in self.images}
        for annotation in annotations:
            image = annotation.get("image_id")
            if _is_id(image) and image in self.annotations:
                self.annotations[image].append(annotation)
            elif not (_is_id(image) and image in self._refused):
                self.problems.append(
                    f"annotation {annotation.get('id')} of {path} is of image {image!r}, which it "
                    "does not list; delete the annotation or list the image"
                )

    def _add_images(self, images: Sequence[dict[str, Any]]) -> None:
        self._refused: set[int | str] = set()
        for entry in images:
            key, name = entry.get("id"), entry.get("file_name")
            where = f"image {name!r} of {self.path}"
            if not _is_id(key) or not isinstance(name, str) or not name:
                self.problems.append(f"{where} has no id or no file_name; export it again")
            elif key in self.images or key in self._refused:
                self.problems.append(
                    f"{where} has the id {key} of another image, so both are left out; number them"
                )
                self._refused.add(key)
                self.images.pop(key, None)
            else:
                self.images[key] = entry

    def used_names(self) -> set[str]:
        """Return the classes that have annotations."""
        categories = (a.get("category_id") for of in self.annotations.values() for a in of)
        return {self.names[key] for key in categories if _is_id(key) and key in self.names}


def _is_id(value: Any) -> TypeGuard[int | str]:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _drop_unused(content: dict[str, Any]) -> dict[str, Any]:
    """Drop unused keys while the json is read, e.g. addresses and dates."""
    return {key: value for key, value in content.items() if key in _USED_KEYS}


def _find_images(
    content: _Content, folder: Path, split: str, images: Path | None, problems: list[str]
) -> list[tuple[int | str, Path]]:
    """Return the images of one json file that exist, by their ids."""
    places = [images] if images else _places(content.path, folder, split)
    found: dict[Path, int | str] = {}
    for key, entry in content.images.items():
        given = entry["file_name"]
        where = f"image {given!r} of {content.path}"
        top = images or folder
        roots = [images] if images else [content.path.parent, folder]
        if not any(inside(root, given, top) for root in roots):
            problems.append(f"{where} leads out of {top}; write a path relative to the images")
            continue
        paths = [inside(place, given, top) for place in places]
        candidates = list(dict.fromkeys(path for path in paths if path is not None))
        existing = list({p.resolve(): p for p in reversed(candidates) if p.is_file()}.values())
        if not existing:
            looked = " or ".join(dict.fromkeys(str(path.parent) for path in candidates))
            problems.append(
                f"{where} does not exist (looked in {looked}); put it there or add --images FOLDER"
            )
        elif len(existing) > 1:
            problems.append(
                f"{where} could be {existing[0]} or {existing[1]}; add --images "
                f"{existing[0].parent} or --images {existing[1].parent}"
            )
        elif existing[0] in found:
            problems.append(f"{where} is listed twice; merge the two entries")
        else:
            found[existing[0]] = key
    return [(key, path) for path, key in found.items()]


def _places(json_file: Path, folder: Path, split: str) -> list[Path]:
    """Return the folders in which tools put the images of a json file."""
    subset = json_file.stem.removeprefix("instances_")
    names = ("", subset, *NAMES[split])
    tops = ("", *_FOLDERS)
    places = [json_file.parent, *(json_file.parent / name for name in _FOLDERS)]
    places += [folder / top / name for top in tops for name in names]
    return [place for place in dict.fromkeys(places) if place.is_dir()]


def _open(content: _Content, key: int | str, file: Path, labels: dict[str, int]) -> Opened:
    entry = content.images[key]
    where = f"image {file} of {content.path}"
    size = check_size(entry.get("width"), entry.get("height"), where)
    shapes = []
    for annotation in content.annotations[key]:
        name = f"annotation {annotation.get('id')} of {where}"
        category = annotation.get("category_id")
        if not _is_id(category) or category not in content.names:
            raise SampleError(
                f"{name} has the category {category!r}, which is not listed; correct it"
            )
        segmentation = annotation.get("segmentation")
        shapes.append((labels[content.names[category]], segmentation, name))
    return Opened(file, size, None, partial(_draw, shapes))


def _draw(shapes: Sequence[tuple[int, Any, str]], height: int, width: int) -> np.ndarray:
    """Draw annotations in their order."""
    labels = np.zeros((height, width), np.uint8)
    for label, segmentation, where in shapes:
        if isinstance(segmentation, dict):
            mask = _decode_runs(segmentation, height, width, where)
        else:
            mask = _draw_polygons(segmentation, height, width, where)
        labels[mask] = label
    return labels


def _draw_polygons(parts: Any, height: int, width: int, where: str) -> np.ndarray:
    if not isinstance(parts, list) or not parts:
        raise SampleError(f"{where} has no polygon and no run lengths; draw it or delete it")
    for part in parts:
        if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
            raise SampleError(
                f"{where} has a polygon that is not a list x, y, x, y, ... of at least three points"
            )
    try:
        from pycocotools import mask as coco
    except ImportError:
        require(f"{where}, a polygon,", "data", "pycocotools")
        raise
    polygons = [check_points(part, (width, height), where).ravel().tolist() for part in parts]
    return coco.decode(coco.merge(coco.frPyObjects(polygons, height, width))).astype(bool)


def _decode_runs(runs: dict[str, Any], height: int, width: int, where: str) -> np.ndarray:
    """Decode run lengths, which pycocotools would read beyond their end if they are damaged."""
    size: Any = runs.get("size")
    counts: Any = runs.get("counts")
    if size != [height, width]:
        raise SampleError(
            f"{where} has run lengths of size {size}, but the image has {[height, width]} (height, "
            "width); export it again"
        )
    try:
        numbers = _decompress(counts) if isinstance(counts, str) else list(counts)
        whole = all(isinstance(number, int) for number in numbers)
        lengths = np.array(numbers if whole else [-1], np.int64)
    except (TypeError, ValueError, OverflowError):
        lengths = np.array([-1])
    if (lengths < 0).any() or lengths.sum() != height * width:
        raise SampleError(
            f"{where} has run lengths that do not add up to {height * width} pixels; export it "
            "again"
        )
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    """Return the run lengths in the text of pycocotools.

    Each number is written as base-32 digits, the lowest first; the sixth bit marks that another
    digit follows. From the fourth number on, the text has the difference to the number two before.

    Raises:
        ValueError: the text is not valid.
    """
    lengths: list[int] = []
    position = 0
    while position < len(text):
        number, shift, more = 0, 0, True
        while more:
            if position == len(text) or shift > 60:
                raise ValueError("unfinished number")
            digit = ord(text[position]) - 48
            if not 0 <= digit < 64:
                raise ValueError("unknown digit")
            number |= (digit & 31) << shift
            more = bool(digit & 32)
            shift += 5
            position += 1
            if not more and digit & 16:
                number -= 1 << shift
        lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
    return lengths
