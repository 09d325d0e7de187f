"""What a file may name in each slot of a network or an evaluation, and with which arguments.

The options of a slot are the classes of its folder in the package, so a new file there is an option
without a list to edit. A config that a file holds is checked whole before anything is built.
"""

import importlib
import inspect
import pkgutil
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gald.options.values import bad_place, describe
from gald.run.plain import RefusedError, join, shown

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
MOST_ITEMS = 1000  # of a list argument: rates, scales, widths, names of a category
_AGAIN = "copy the file again from its source"


class Slot(NamedTuple):
    """Place in a config that takes an object.

    Attributes:
        options: module, or package of modules, of the classes that it takes.
        base: class that they derive from; if it is one of gald, the other classes of its own module
            are bases too, and no options.
        also: further classes.
        parts: arguments that take an object, with their slots.
        given: arguments that gald passes, never a file. A class that takes one of them is built in
            two steps, and its config says `_partial_: true`; but not in the slot `model`, which is
            built last.
    """

    options: str
    base: str
    also: tuple[str, ...] = ()
    parts: Mapping[str, str] = types.MappingProxyType({})
    given: tuple[str, ...] = ()


_LAYER = "torch.nn.Module"
_PARTS = ("backbone", "neck", "ga", "ld", "head", "aux_head", "host")
_CLASSES, _MAPS = ("num_classes",), ("in_channels", "in_strides")
SLOTS: dict[str, Slot] = {
    "model": Slot(
        "gald.model.segmentor",
        _LAYER,
        also=("gald.model.plugged.Plugged",),
        parts={name: name for name in _PARTS},
        given=_CLASSES,
    ),
    "host": Slot("gald.model.host", _LAYER, given=_CLASSES),
    "backbone": Slot("gald.model.backbone", _LAYER),
    "neck": Slot("gald.model.neck", _LAYER, given=_MAPS),
    "ga": Slot(
        "gald.model.ga",
        _LAYER,
        also=("gald.model.layers.AtStride", "torch.nn.Identity"),
        parts={"module": "ga"},
    ),
    "ld": Slot("gald.model.ld", _LAYER, given=_MAPS),
    "head": Slot("gald.model.head", _LAYER, given=_MAPS + _CLASSES),
    "aux_head": Slot("gald.model.aux_head", _LAYER, given=_MAPS + _CLASSES),
    "inference": Slot(
        "gald.inference", "gald.inference.base.Inference", parts={"over": "inference"}
    ),
    "metric": Slot("gald.metrics", "gald.metrics.base.CountMetric", given=_CLASSES),
    "data": Slot("gald.data", "gald.data.datamodule.SegmentationDataModule"),
}


class Part(NamedTuple):
    """Checked config of one object.

    Attributes:
        key: its place in the file, as `model.ga`.
        cls: its class.
        arguments: of the constructor: plain data and parts.
        partial: whether gald passes further arguments later.
    """

    key: str
    cls: type
    arguments: dict[str, Any]
    partial: bool


class Parameter(NamedTuple):
    """Argument of a constructor.

    Attributes:
        hint: its type.
        required: whether it has no default.
    """

    hint: Any
    required: bool


def check_part(
    slot: str, config: Any, file: str | Path, trust: Sequence[str] = (), key: str | None = None
) -> Part:
    """Check the config of an object that a file describes; nothing is built.

    Args:
        slot: one of `SLOTS`.
        config: plain data, see `gald.run.plain`.
        file: the file, for the message.
        trust: packages with classes that are options too, if they derive from the slot's base.
        key: place of the config in the file, for the message; None is the name of the slot.

    Raises:
        ValueError: the config names a class that is no option of its slot, or an argument is
            unknown, missing or of another type.
    """
    key = key or slot
    if not isinstance(config, dict) or not isinstance(config.get("_target_"), str):
        raise ValueError(
            f"{file} has {shown(config)} as {key}, which names no class as its _target_; {_AGAIN}"
        )
    target = config["_target_"]
    cls, ours = _find_class(slot, target, file, trust, key)
    known, open_ended = parameters(cls)
    given = SLOTS[slot].given
    partial = slot != "model" and any(name in known for name in given)
    _check_partial(config, partial, cls, file, key)
    names = [name for name in known if name not in given]
    arguments: dict[str, Any] = {}
    for name, value in config.items():
        place = join(key, name)
        if name in ("_target_", "_partial_"):
            continue
        if isinstance(name, str) and name.startswith("_"):
            raise RefusedError(
                f"{file} has the key {place}, which gald does not read from a file; remove it"
            )
        if name not in names and (ours or not open_ended or name in given):
            raise ValueError(
                f"{file} cannot be built from: {key}: {cls.__name__} takes no {name} from a file "
                f"(it takes {', '.join(names) or 'nothing'}); use the version of gald that wrote it"
            )
        hint = known[name].hint if name in known else Any
        inner = SLOTS[slot].parts.get(name) or (None if ours else slot)
        arguments[name] = _check_argument(value, hint, inner, cls, ours, file, trust, place)
    for name in names:
        if known[name].required and name not in arguments:
            raise ValueError(
                f"{file} has no {join(key, name)}, which {cls.__name__} needs; use the version of "
                "gald that wrote it"
            )
    return Part(key, cls, arguments, partial)


def check_trust(trust: object) -> tuple[str, ...]:
    """Return the packages that a user trusts: a name, several with commas, a list, or none.

    Raises:
        ValueError: one of them is no name of a package.
    """
    names = [trust] if isinstance(trust, str) else trust or ()
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"trust is {shown(trust)}; give the name of a package, or a list of names")
    single = tuple(part.strip() for name in names for part in name.split(","))
    for name in single:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"trust has {name!r}, which is no package; give a name such as mine")
    return single


def options(slot: str) -> Iterator[type]:
    """Return the classes of gald and torch that a file may name in a slot."""
    for module in _modules(SLOTS[slot].options):
        for name in sorted(vars(importlib.import_module(module))):
            cls = _option(slot, module, name)
            if cls is not None and cls.__module__ == module:
                yield cls
    for target in SLOTS[slot].also:
        yield _get(target)


@cache
def parameters(cls: type) -> tuple[dict[str, Parameter], bool]:
    """Return the arguments of a constructor, and whether it takes any other name too."""
    try:
        hints = typing.get_type_hints(cls.__init__, include_extras=True)
    except (NameError, TypeError):  # of a class of the user's own, with types that are not imported
        hints = {}
    found: dict[str, Parameter] = {}
    open_ended = False
    for name, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        hint = hints.get(name, Any)
        if parameter.kind == parameter.VAR_KEYWORD:
            inside = typing.get_args(hint)  # Unpack[Loading]
            others = typing.get_type_hints(inside[0], include_extras=True) if inside else {}
            found |= {other: Parameter(its_hint, False) for other, its_hint in others.items()}
            open_ended = not inside
        elif parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            found[name] = Parameter(hint, parameter.default is parameter.empty)
    return found, open_ended


def _find_class(
    slot: str, target: str, file: str | Path, trust: Sequence[str], key: str
) -> tuple[type, bool]:
    """Return the class that a file names, and whether it is an option without trust."""
    module, _, name = target.rpartition(".")
    if _DOTTED.fullmatch(target):
        if target in SLOTS[slot].also:
            return _get(target), True
        package = SLOTS[slot].options
        if module == package or module in _modules(package):
            cls = _option(slot, module, name)
            if cls is not None:
                return cls, True
        elif any(_inside(target, package) for package in trust):
            return _own_class(slot, target, file, trust, key), False
    raise RefusedError(
        f"{file} would call {_name(target)} as {key}, and gald does not build that from a "
        "file; use a file that names only parts of gald there"
    )


def _option(slot: str, module: str, name: str) -> type | None:
    """Return a class of gald if it is an option of the slot."""
    cls = vars(importlib.import_module(module)).get(name)
    base = _get(SLOTS[slot].base)
    if not isinstance(cls, type) or not issubclass(cls, base) or cls.__name__.startswith("_"):
        return None
    if cls.__module__ not in _modules(SLOTS[slot].options) or inspect.isabstract(cls):
        return None
    is_base = cls.__module__ == base.__module__ and SLOTS[slot].options != base.__module__
    return None if is_base else cls


def _own_class(slot: str, target: str, file: str | Path, trust: Sequence[str], key: str) -> type:
    """Return a class of a package that the user trusts.

    The dotted path alone proves nothing: `mine.os.system` is found through an import.
    """
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(
            f"{file} names {target} as {key}, which cannot be imported ({error}); start gald where "
            "Python finds that package, or install it"
        ) from error
    base = _get(SLOTS[slot].base)
    defined = getattr(cls, "__module__", "")
    if not isinstance(cls, type) or not any(_inside(defined, package) for package in trust):
        raise ValueError(
            f"{file} names {target} as {key}, which is no class that a trusted package defines; "
            "name the class where it is defined"
        )
    if not issubclass(cls, base):
        raise ValueError(
            f"{file} names {target} as {key}, which is no {base.__name__}; derive it from "
            f"{SLOTS[slot].base}"
        )
    return cls


def _name(target: object) -> str:
    """Return what a file would call, as one short line."""
    return shown(target).strip("'\"")


def _inside(target: str, package: str) -> bool:
    return f"{target}.".startswith(f"{package}.")


@cache
def _modules(options: str) -> tuple[str, ...]:
    """Return a module, or the modules of a package."""
    package = importlib.import_module(options)
    if not hasattr(package, "__path__"):
        return (options,)
    found = pkgutil.iter_modules(package.__path__)
    return tuple(f"{options}.{m.name}" for m in found if not (m.ispkg or m.name.startswith("_")))


def _get(target: str) -> type:
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def _check_partial(
    config: Mapping[str, Any], partial: bool, cls: type, file: str | Path, key: str
) -> None:
    if config.get("_partial_", False) is partial and ("_partial_" in config) is partial:
        return
    place, name = join(key, "_partial_"), cls.__name__
    raise ValueError(
        f"{file} has no {place}: true, which {name} needs; {_AGAIN}"
        if partial and "_partial_" not in config
        else f"{file} has {shown(config['_partial_'])} as {place}, and {name} is built "
        f"{'in two steps' if partial else 'at once'}; {_AGAIN}"
    )


def _check_argument(
    value: Any,
    hint: Any,
    slot: str | None,
    cls: type,
    ours: bool,
    file: str | Path,
    trust: Sequence[str],
    place: str,
) -> Any:
    if isinstance(value, dict) and "_target_" in value:
        if slot is None:
            raise RefusedError(
                f"{file} would call {_name(value['_target_'])} as {place}, where {cls.__name__} "
                "takes no object; use a file that has plain values there"
            )
        return check_part(slot, value, file, trust, place)
    if value == "???":
        name = cls.__module__.rpartition(".")[2] if ours else "NAME"
        raise ValueError(
            f"{file} leaves {place} out, as published networks do with paths; choose the part "
            f"yourself, for example data={name} data.root=FOLDER"
        )
    _refuse_hidden(value, file, place)
    if isinstance(value, list) and len(value) > MOST_ITEMS:
        raise ValueError(
            f"{file} has a list of {len(value)} as {place}, and gald reads at most {MOST_ITEMS} "
            f"there; {_AGAIN}"
        )
    if ours and (bad_place(value, hint) is not None or _is_huge(value)):
        raise ValueError(
            f"{file} has {shown(value)} as {place}, and {cls.__name__} takes {describe(hint)} "
            f"there; {_AGAIN}"
        )
    return value


def _is_huge(value: Any) -> bool:
    """Return whether plain data has a number that no tensor or array can have as its size."""
    if isinstance(value, dict | list):
        return any(map(_is_huge, value.values() if isinstance(value, dict) else value))
    return isinstance(value, int) and abs(value) >= 2**63


def _refuse_hidden(value: Any, file: str | Path, place: str) -> None:
    """Refuse a key for the builder inside an argument that is plain data."""
    if isinstance(value, dict):
        for name, item in value.items():
            if isinstance(name, str) and name.startswith("_"):
                raise RefusedError(
                    f"{file} has the key {join(place, name)} inside plain values; remove it"
                )
            _refuse_hidden(item, file, join(place, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_hidden(item, file, join(place, index))
