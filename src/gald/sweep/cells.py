"""Cells of a sweep: `cells.jsonl` in its folder, written before the first cell starts.

The file says what belongs to the sweep, in the order of declaration, and never changes except that
cells are added at its end. What became of a cell is in the cell's own folder, see
`gald.sweep.state`. So no process has to know of the others, and nothing is rewritten.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser

from gald.options.ranges import Range, Text
from gald.run.limits import refuse_above
from gald.run.shape import check_shape
from gald.run.text_file import read_json, refuse_deep

NAME = "cells.jsonl"
_RESOLVER = re.compile(r"\$\{[^}]*[:$]")  # ${oc.env:HOME}, also inside of another; not ${seed}
VERSION = 2
_AGAIN = "delete it and repeat the sweep's command, which keeps finished cells"
OLD = "manifest.json"  # of sweeps of gald 0.1, which can be read but not continued


@dataclass(frozen=True)
class Cell:
    """One training run of a sweep.

    Args:
        number: place in the order of declaration, from 0.
        folder: its run folder, relative to the sweep's folder.
        overrides: its Hydra overrides, the seed included.
    """

    number: int
    folder: str
    overrides: tuple[str, ...]

    @property
    def label(self) -> str:
        """Readable text that distinguishes it from other cells."""
        return self.folder.rpartition("_")[0] or self.folder


@dataclass
class Sweep:
    """Cells of a sweep in the order of declaration.

    Args:
        path: folder of the sweep.
        name: name of the sweep.
        command: the command line that declared it.
        cells: its cells; the number of a cell is its index.
        primary: the primary contrast in words, see `gald.sweep.table.primary`, or None.
    """

    path: Path
    name: str
    command: list[str]
    cells: list[Cell] = field(default_factory=list)
    primary: str | None = None

    @classmethod
    def load(cls, folder: str | Path) -> "Sweep":
        """Read the cells of a sweep's folder.

        Raises:
            FileNotFoundError: the folder holds no sweep.
            ValueError: the file is damaged, or from another version of gald.
        """
        folder = Path(folder)
        path = folder / NAME
        if not path.is_file() and (folder / OLD).is_file():
            return _load_old(folder)
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no sweep (no {NAME}); name the folder that gald train -m printed"
            )
        return _parse(folder, path.read_bytes())

    @property
    def factors(self) -> dict[str, list[str]]:
        """Keys with more than one value in the cells, values in order of declaration."""
        values: dict[str, dict[str, None]] = {}
        for cell in self.cells:
            for key, value in split_overrides(cell.overrides).items():
                values.setdefault(key, {})[value] = None
        return {key: list(seen) for key, seen in values.items() if len(seen) > 1}

    @property
    def of_probe(self) -> bool:
        """Whether `gald probe` declared it, so that only the same command runs its cells."""
        return self.command[:2] == ["gald", "probe"]

    @property
    def go_on(self) -> str:
        """The command that runs the cells that are not done."""
        words = self.command if self.of_probe else ["gald", "sweep", "run", str(self.path)]
        return shlex.join(words)

    def place(self, cell: Cell) -> Path:
        """Return the run folder of a cell."""
        return self.path / cell.folder


def declare(
    folder: Path,
    name: str,
    command: Sequence[str],
    cells: Iterable[Sequence[str]],
    primary: str | None = None,
) -> list[Cell]:
    """Add cells to a sweep, which is created if necessary; cells that it has already are kept.

    Args:
        folder: folder of the sweep.
        name: name of the sweep.
        command: the command line that declares the cells, stored with a new sweep.
        cells: Hydra overrides of each cell.
        primary: the primary contrast in words, stored with a new sweep.

    Returns:
        the cell of each; the same one for equal overrides.

    Raises:
        ValueError: the folder holds a sweep over other keys, with another primary contrast, or of
            an earlier version.
    """
    wanted = [tuple(overrides) for overrides in cells]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{NAME}.lock", timeout=60):
        if (folder / OLD).is_file() and not (folder / NAME).is_file():
            raise ValueError(
                f"{folder} holds a sweep of an earlier version, which can be read but not "
                "continued; choose a new folder with name=NAME"
            )
        header = {"version": VERSION, "name": name, "command": list(command)}
        header |= {"primary": primary} if primary else {}
        content = (folder / NAME).read_bytes() if (folder / NAME).is_file() else b""
        sweep = _parse(folder, content or _line(header))
        _refuse_other_keys(folder, sweep.cells, wanted)
        _refuse_other_primary(sweep, primary)
        numbered = _number(wanted, sweep.command, sweep.cells)
        added = {c.number: c for c in numbered if c.number >= len(sweep.cells)}
        _append(folder / NAME, content, header, list(added.values()))
    return numbered


def number_cells(cells: Iterable[Sequence[str]], command: Sequence[str]) -> list[Cell]:
    """Return the cells that `declare` would write for a new sweep, without duplicates."""
    numbered = _number([tuple(overrides) for overrides in cells], command, ())
    return list({cell.number: cell for cell in numbered}.values())


def refuse_code(sweep: Sweep, trust: Sequence[str] = ()) -> None:
    """Refuse a plan that chooses which code runs, because it may come from somebody else.

    A plan may choose among the options of gald and give them values.

    Args:
        sweep: the plan.
        trust: packages with classes that it may name too.

    Raises:
        ValueError: an override names a class of another package, calls a resolver, or changes
            Hydra's own settings.
    """
    for cell in sweep.cells:
        for word in cell.overrides:
            key, _, value = word.lstrip("+~").partition("=")
            named = value.strip("'\"") if key.endswith("._target_") else None
            own = named is not None and named.startswith(tuple(f"{name}." for name in trust))
            plain = "_target_" not in word.replace(key, "", 1) and not _RESOLVER.search(word)
            if (named is not None and not own) or not plain or key.startswith("hydra"):
                raise ValueError(
                    f"{sweep.path / NAME} has {word} in cell {cell.number}, and a plan may only "
                    "choose options of gald and give them values; run the command that declared "
                    "it, if it is yours"
                )


def split_overrides(overrides: Iterable[str]) -> dict[str, str]:
    """Return the value of each overridden key, without Hydra's own keys."""
    pairs = (override.lstrip("+~").partition("=") for override in overrides)
    return {key: value for key, _, value in pairs if key.partition(".")[0] != "hydra"}


def _parse(folder: Path, content: bytes) -> Sweep:
    """Parse the lines of the file; an incomplete last line was never declared."""
    path = folder / NAME
    words = "has {0} bytes, and a JSON file may have {1} MB"
    refuse_above(len(content), str(path), words, "GALD_MAX_JSON_MB", 10**6, _AGAIN)
    refuse_deep(content, path, _AGAIN)
    lines = content[: content.rfind(b"\n") + 1].splitlines() or [b""]
    header = _read_line(path, lines[0], 1)
    check_shape(path, header, {"version": int | str}, _AGAIN, "line 1")
    if header["version"] != VERSION:
        raise ValueError(
            f"{path} has version {header['version']}, but this gald reads version {VERSION}; "
            "use the gald version that wrote it"
        )
    check_shape(path, header, {"name": str, "command": list[str]}, _AGAIN, "line 1")
    primary = header.get("primary")
    check_shape(path, {"primary": primary}, {"primary": Text | None}, _AGAIN, "line 1")
    sweep = Sweep(folder, header["name"], header["command"], primary=primary)
    for number, line in enumerate(lines[1:]):
        cell = _read_line(path, line, number + 2)
        its = Annotated[int, Range(least=number, most=number)]
        shape = {"number": its, "folder": Text, "overrides": list[str]}
        check_shape(path, cell, shape, _AGAIN, f"line {number + 2}")
        sweep.cells.append(Cell(number, cell["folder"], tuple(cell["overrides"])))
        _check_folder(path, sweep.cells[-1])
    return sweep


def _read_line(path: Path, line: bytes, number: int) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(f"{path} has no JSON in line {number} ({error}); {_AGAIN}") from error


def _check_folder(path: Path, cell: Cell) -> None:
    """Refuse a cell's folder outside the sweep, where a launcher would write and delete."""
    if not re.fullmatch(r"[\w+-][\w.+-]*", cell.folder):
        raise ValueError(
            f"{path} has {cell.folder!r} as the folder of cell {cell.number}, which is not a "
            f"folder inside the sweep; {_AGAIN}"
        )


def _append(path: Path, content: bytes, header: dict[str, Any], cells: Sequence[Cell]) -> None:
    """Add lines to the file; what a crash has left of an incomplete line is removed."""
    complete = content.rfind(b"\n") + 1
    lines = [] if complete else [_line(header)]
    lines += [_line(asdict(cell)) for cell in cells]
    with path.open("r+b" if content else "wb") as file:
        file.truncate(complete)
        file.seek(complete)
        file.write(b"".join(lines))
        file.flush()
        os.fsync(file.fileno())


def _line(content: dict[str, Any]) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _identity(overrides: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(f"{key}={value}" for key, value in split_overrides(overrides).items()))


def _number(
    cells: Sequence[tuple[str, ...]], command: Sequence[str], known: Sequence[Cell]
) -> list[Cell]:
    """Find each of the wanted cells among the known ones, or give it the next number."""
    places = {_identity(cell.overrides): cell for cell in known}
    constant = _constant_keys(command)
    for overrides in cells:
        key = _identity(overrides)
        if key not in places:
            name = _folder_name(overrides, key, constant)
            places[key] = Cell(len(places), name, overrides)
    return [places[_identity(overrides)] for overrides in cells]


def _constant_keys(command: Sequence[str]) -> set[str]:
    """Return the keys to which a command line gives one value."""
    words = [word for word in command if "=" in word and not word.startswith("-")]
    overrides = OverridesParser.create().parse_overrides(words)
    return {one.key_or_group for one in overrides if not one.is_sweep_override()}


def _folder_name(overrides: Iterable[str], identity: tuple[str, ...], constant: set[str]) -> str:
    """Return a readable and unique name."""
    swept = {k: v for k, v in split_overrides(overrides).items() if k not in constant}
    label = "_".join(f"{re.split('[./]', key)[-1]}-{value}" for key, value in swept.items())
    digest = hashlib.sha256("\n".join(identity).encode()).hexdigest()[:6]
    readable = re.sub(r"[^\w.+-]+", "-", label, flags=re.ASCII).strip("-.")[:80]
    return f"{readable or 'cell'}_{digest}"


def _refuse_other_keys(
    folder: Path, cells: Sequence[Cell], wanted: Sequence[tuple[str, ...]]
) -> None:
    known = {key for cell in cells for key in split_overrides(cell.overrides)}
    new = {key for overrides in wanted for key in split_overrides(overrides)}
    if cells and new and known != new:
        raise ValueError(
            f"{folder} holds a sweep over {', '.join(sorted(known))}, but this one is over "
            f"{', '.join(sorted(new))}; choose a new folder with name=NAME"
        )


def _refuse_other_primary(sweep: Sweep, primary: str | None) -> None:
    if sweep.cells and sweep.primary != primary:
        before, now = (f"{text!r}" if text else "none" for text in (sweep.primary, primary))
        again = f"'{sweep.primary}'" if sweep.primary else "null"
        raise ValueError(
            f"{sweep.path} was declared with primary contrast {before}, but this command has "
            f"{now}; it is fixed before the first cell, so choose a new folder with name=NAME, or "
            "go on "
            f'with "hydra.sweeper.primary={again}"'
        )


def _load_old(folder: Path) -> Sweep:
    """Read a sweep of gald 0.1, which kept its cells in one JSON file."""
    path = folder / OLD
    content = read_json(path)
    shape = {"name": str, "command": list[str], "cells": Mapping[str, Mapping[str, Any]]}
    check_shape(path, content, shape, "copy it again")
    sweep = Sweep(folder, content["name"], content["command"])
    for key, cell in content["cells"].items():
        shape = {"folder": Text, "overrides": list[str]}
        check_shape(path, cell, shape, "copy it again", f"cells.{key}")
        sweep.cells.append(Cell(len(sweep.cells), cell["folder"], tuple(cell["overrides"])))
        _check_folder(path, sweep.cells[-1])
    return sweep
