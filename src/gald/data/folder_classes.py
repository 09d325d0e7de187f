"""Reads `classes.yaml`, which says what the labels in a folder of your own mean."""

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
    """The classes of a folder; masks hold them by ids or by colours.

    Attributes:
        path: of the file.
        names: by train id.
        palette: RGB colours to paint them in, by train id.
        ids: stored label -> train id, or 255 for void; empty where masks hold colours.
        colours: RGB colour in the mask -> train id, or 255; empty where masks hold ids.
        rest_is_void: whether labels that are not named are void, and not an error.
    """

    path: Path
    names: tuple[str, ...]
    palette: tuple[Colour, ...]
    ids: dict[int, int]
    colours: dict[Colour, int]
    rest_is_void: bool


def read_classes(path: Path) -> Classes:
    """Read a list of classes; `gald.data.folder` shows one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it does not say for each label, once, what it means.
    """
    content = _load(path)
    entries, void = content.get("classes"), content.get("void")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} lists no classes; write, for example, {_EXAMPLE}")
    if len(entries) > UNKNOWN:
        raise ValueError(
            f"{path} lists {len(entries)} classes; {UNKNOWN} is the most that a mask can hold"
        )
    kind = "colours" if isinstance(entries[0], dict) and "colours" in entries[0] else "ids"
    names, palette = [], []
    meaning: dict[Any, int] = {}
    owner: dict[Any, str] = {}
    for train_id, entry in enumerate(entries):
        where = f"class {train_id + 1} of {path}"
        _check_keys(entry, ("name", "ids", "colours", "colour"), where)
        name = entry.get("name")
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"{where} has no name in words ({name}); write name: road, or 'no'")
        where = f"class {train_id + 1} ({name}) of {path}"
        if name in names:
            raise ValueError(
                f"{where} has the name of class {names.index(name) + 1}; to merge labels list "
                f"all their {kind} in one class"
            )
        names.append(name)
        labels = _labels(entry, kind, where)
        _claim(labels, train_id, meaning, owner, where)
        if "colour" in entry:
            palette.append(_colour(entry["colour"], "colour", where))
        else:
            palette.append(labels[0] if kind == "colours" else distinct_colour(train_id))
    if void is not None and void != "rest":
        where = f"void of {path}"
        _check_keys(void, ("ids", "colours"), where)
        _claim(_labels(void, kind, where), VOID, meaning, owner, where)
    ids, colours = (meaning, {}) if kind == "ids" else ({}, meaning)
    return Classes(path, tuple(names), tuple(palette), ids, colours, void == "rest")


def distinct_colour(index: int) -> Colour:
    """A colour for the class of this index; neighbours in the list are far apart."""
    hue = index * 0.618034 % 1  # steps of the golden ratio never come close to an earlier one soon
    value = (1.0, 0.7, 0.85)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, (0.9, 0.6)[index % 2], value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _load(path: Path) -> dict[str, Any]:
    if not is_file(path):
        raise FileNotFoundError(
            f"there is no {path}; write one, for example {_EXAMPLE}, or set data.root or "
            "data.classes"
        )
    try:
        content = OmegaConf.to_container(OmegaConf.create(read_bytes(path).decode()))
    except Exception as error:  # of the YAML reader, of OmegaConf, of the decoder
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
    """The ids or colours of one entry."""
    given = [key for key in ("ids", "colours") if key in entry]
    if given != [kind]:
        found = " and ".join(given) or f"no {kind}"
        raise ValueError(f"{where} has {found}; give each class and void {kind}, as class 1 has")
    labels = entry[kind]
    if not isinstance(labels, list) or not labels:
        example = "[1]" if kind == "ids" else "[[128, 64, 128]]"
        raise ValueError(f"{where} has {kind} {labels}; write a list, as {kind}: {example}")
    if kind == "colours":
        return [_colour(label, "colours", where) for label in labels]
    for label in labels:
        if not _is_byte(label):
            raise ValueError(f"{where} has the id {label!r}; ids are whole numbers from 0 to 255")
    return labels


def _colour(value: object, key: str, where: str) -> Colour:
    if not isinstance(value, list) or len(value) != 3 or not all(map(_is_byte, value)):
        example = "[128, 64, 128]" if key == "colour" else "[[128, 64, 128]]"
        raise ValueError(
            f"{where} has {value!r} for a colour; write red, green and blue from 0 to 255, as "
            f"{key}: {example}"
        )
    return value[0], value[1], value[2]


def _is_byte(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 255


def _claim(
    labels: list[Any], train_id: int, meaning: dict[Any, int], owner: dict[Any, str], where: str
) -> None:
    """Give labels to one class, if no other has them."""
    for label in labels:
        if label in meaning:
            raise ValueError(
                f"{where} has {label}, and so has {owner[label]}; leave it in one of them"
            )
        meaning[label], owner[label] = train_id, where
