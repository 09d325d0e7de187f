"""Reader of `classes.yaml`, the list of classes of `gald.data.folder`."""

import colorsys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from gald.data.labels import UNKNOWN, VOID
from gald.data.reading.files import is_file, read_bytes

Colour = tuple[int, int, int]
_EXAMPLE = "classes: [{name: road, ids: [1]}, {name: car, ids: [2, 3]}]"


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


def read_classes(path: Path) -> Classes:
    """Read a list of classes; `gald.data.folder` has an example.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is not valid, or lists a label twice.
    """
    content = _load(path)
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
    if not is_file(path):
        raise FileNotFoundError(
            f"{path} does not exist; write it, for example {_EXAMPLE}, or set data.root or "
            "data.classes"
        )
    try:
        content = OmegaConf.to_container(OmegaConf.create(read_bytes(path).decode()))
    except Exception as error:  # from the YAML reader, OmegaConf or the decoder
        raise ValueError(f"{path} is not valid YAML ({' '.join(str(error).split())})") from None
    _check_keys(content, ("classes", "void"), str(path))
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


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
