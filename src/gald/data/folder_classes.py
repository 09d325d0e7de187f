"""Readers of the list of classes of `gald.data.folder`: `classes.yaml`, or a tool's own list."""

import colorsys
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gald.data.labels import UNKNOWN, VOID
from gald.data.reading.files import is_file, read_bytes
from gald.run.class_names import unusable
from gald.run.text_file import parse_yaml, refuse_long

Colour = tuple[int, int, int]
_EXAMPLE = "classes: [{name: road, ids: [1]}, {name: car, ids: [2, 3]}]"
_YAML, _LABELMAP, _CSV = "classes.yaml", "labelmap.txt", "_classes.csv"


@dataclass(frozen=True)
class Classes:
    """Classes of a folder; masks store them as ids or as colours.

    Attributes:
        path: of the file.
        names: by train id.
        palette: RGB colours in figures, by train id.
        ids: stored label -> train id, or 255 for void; empty if masks store colours.
        colours: RGB colour in the mask -> train id, or 255 for void; empty if masks store ids.
        rest_is_void: whether unlisted labels are void instead of an error.
    """

    path: Path
    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ids: dict[int, int]
    colours: dict[Colour, int]
    rest_is_void: bool


def find_classes(root: Path, classes: str | None, folders: Sequence[Path] = ()) -> Path:
    """Return the path of the list of classes, which may not exist.

    Args:
        root: folder of the data.
        classes: path relative to `root`, or absolute; None is `classes.yaml` in `root`, or, without
            it, `labelmap.txt` or `_classes.csv` in `root` or in the other folders.
        folders: other folders to look into.

    Raises:
        ValueError: several lists fit.
    """
    if classes is not None:
        return root / Path(classes).expanduser()
    if is_file(root / _YAML):
        return root / _YAML
    places = [folder / name for name in (_LABELMAP, _CSV) for folder in (root, *folders)]
    found = [path for path in dict.fromkeys(places) if is_file(path)]
    for other in found[1:]:
        if (found[0].name, read_bytes(found[0])) != (other.name, read_bytes(other)):
            one, two = (path.relative_to(root).as_posix() for path in (found[0], other))
            raise ValueError(
                f"{root} has two different lists of classes, {one} and {two}; add "
                f"data.classes={one} or data.classes={two}, or write {root / _YAML}"
            )
    return found[0] if found else root / _YAML


def read_classes(path: Path) -> Classes:
    """Read a list of classes; `gald.data.folder` has an example.

    A file that ends in `.txt` is read as CVAT's `labelmap.txt`, with one `name:red,green,blue::`
    per line, and one that ends in `.csv` as Roboflow's `_classes.csv`, with a header and one
    `id, name` per line. Every label that such a file lists is a class.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not valid, or lists a label twice.
    """
    if not is_file(path):
        raise FileNotFoundError(
            f"{path} does not exist; write it, for example {_EXAMPLE}, or set data.root or "
            "data.classes"
        )
    load = {".txt": _load_labelmap, ".csv": _load_csv}.get(path.suffix.lower(), _load)
    content = load(path)
    entries, void = content.get("classes"), content.get("void")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} lists no classes; write, for example, {_EXAMPLE}")
    if len(entries) > UNKNOWN:
        raise ValueError(f"{path} lists {len(entries)} classes; a mask can store at most {UNKNOWN}")
    kind = "colours" if isinstance(entries[0], dict) and "colours" in entries[0] else "ids"
    names, palette = [], []
    id_of: dict[Any, int] = {}  # label or colour -> train id
    entry_of: dict[Any, str] = {}  # label or colour -> entry of the file, for messages
    for train_id, entry in enumerate(entries):
        where = f"class {train_id + 1} of {path}"
        _check_keys(entry, ("name", "ids", "colours", "colour"), where)
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(
                f"{where} has no text as its name ({name}); write name: road, and quote words that "
                "YAML does not read as text, e.g. 'no'"
            )
        if fault := unusable(name):
            raise ValueError(f"{where} has the name {name!r} with {fault}; write it without")
        where = f"class {train_id + 1} ({name}) of {path}"
        if name in names:
            raise ValueError(
                f"{where} has the name of class {names.index(name) + 1}; to merge labels, list "
                f"all their {kind} in one class"
            )
        names.append(name)
        labels = _labels(entry, kind, where)
        _assign(labels, train_id, id_of, entry_of, where)
        if "colour" in entry:
            palette.append(_colour(entry["colour"], "colour", where))
        else:
            palette.append(labels[0] if kind == "colours" else distinct_colour(train_id))
    if void is not None and void != "rest":
        where = f"void of {path}"
        _check_keys(void, ("ids", "colours"), where)
        _assign(_labels(void, kind, where), VOID, id_of, entry_of, where)
    ids, colours = (id_of, {}) if kind == "ids" else ({}, id_of)
    return Classes(path, tuple(names), tuple(palette), ids, colours, void == "rest")


def distinct_colour(index: int) -> Colour:
    """Return a colour for the class with this index; consecutive classes differ clearly."""
    hue = index * 0.618034 % 1  # steps of the golden ratio stay far from earlier hues
    value = (1.0, 0.7, 0.85)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6)[index % 2], value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _load(path: Path) -> dict[str, Any]:
    content = parse_yaml(read_bytes(path), path, "list each label once") or {}
    _check_keys(content, ("classes", "void"), str(path))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _load_labelmap(path: Path) -> dict[str, Any]:
    """Read lines `name:red,green,blue:parts:actions`, as CVAT writes them."""
    entries = []
    for number, line in enumerate(_lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, *rest = line.strip().rsplit(":", 3)
        values = rest[0].split(",") if len(rest) == 3 else []
        if len(values) != 3 or not all(value.strip().isdecimal() for value in values):
            raise ValueError(
                f"line {number} of {path} is {line.strip()!r}; write name:red,green,blue:: with "
                "the colour of the class in the masks, e.g. road:128,64,128::"
            )
        entries.append({"name": name.strip(), "colours": [[int(value) for value in values]]})
    return {"classes": entries}


def _load_csv(path: Path) -> dict[str, Any]:
    """Read lines `id, name` after a header, as Roboflow writes them."""
    entries = []
    for number, row in enumerate(csv.reader(_lines(path)), 1):
        if not any(map(str.strip, row)) or (number == 1 and not row[0].strip().isdecimal()):
            continue
        if len(row) != 2 or not row[0].strip().isdecimal():
            raise ValueError(
                f"line {number} of {path} is {','.join(row)!r}; write the id in the masks and the "
                "name, e.g. 1, road"
            )
        entries.append({"name": row[1].strip(), "ids": [int(row[0])]})
    return {"classes": entries}


def _lines(path: Path) -> list[str]:
    data = read_bytes(path)
    refuse_long(data, path, "list each label once")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None


def _check_keys(entry: object, keys: tuple[str, ...], where: str) -> None:
    listed = ", ".join(keys)
    if not isinstance(entry, dict):
        raise ValueError(f"{where} is {entry!r}, not a list of keys; known keys are {listed}")
    for key in entry:
        if key not in keys:
            raise ValueError(f"{where} has the key {key!r}; known keys are {listed}")


def _labels(entry: dict[str, Any], kind: str, where: str) -> list[Any]:
    """Return the ids or colours of one entry."""
    given = [key for key in ("ids", "colours") if key in entry]
    if given != [kind]:
        keys = " and ".join(given) or f"no {kind}"
        raise ValueError(f"{where} has {keys}; give each class and void {kind}, like class 1")
    labels = entry[kind]
    if not isinstance(labels, list) or not labels:
        example = "[1]" if kind == "ids" else "[[128, 64, 128]]"
        raise ValueError(f"{where} has {kind} {labels}; write a list, e.g. {kind}: {example}")
    if kind == "colours":
        return [_colour(label, "colours", where) for label in labels]
    for label in labels:
        if not _is_byte(label):
            raise ValueError(f"{where} has the id {label!r}; ids are integers from 0 to 255")
    return labels


def _colour(value: object, key: str, where: str) -> Colour:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_byte, value)):
        example = "[128, 64, 128]" if key == "colour" else "[[128, 64, 128]]"
        raise ValueError(
            f"{where} has the colour {value!r}; write red, green and blue from 0 to 255, e.g. "
            f"{key}: {example}"
        )
    return value[0], value[1], value[2]


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _assign(
    labels: list[Any], train_id: int, id_of: dict[Any, int], entry_of: dict[Any, str], where: str
) -> None:
    """Assign labels to one class, unless another has them."""
    for label in labels:
        if label in id_of:
            raise ValueError(
                f"{where} has {label}, and so has {entry_of[label]}; list it in only one of them"
            )
        id_of[label], entry_of[label] = train_id, where
