"""Check of a composed config against the signatures of what it builds, before anything is built."""

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pkgutil import resolve_name
from typing import Any, Unpack, cast, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf

from gald.config import CONF_DIR
from gald.options.libraries import declared, needs, signature_source, takes_nothing
from gald.options.values import Hint, bad_place, describe, entry_hint, is_part, show, suggestion

# Arguments that the code passes, because they depend on the data or on other parts.
PASSED = {"num_classes", "model", "loss", "inference", "optimizer", "scheduler", "class_names"}


def check_config(config: DictConfig, roots: Any) -> None:
    """Refuse a composed config if a value does not fit its option.

    Args:
        config: the whole config of a command, without Hydra's own section.
        roots: TypedDict of its root keys, see `gald.options.roots`.

    Raises:
        ValueError: one sentence with the key as it is written on the command line, its value, what
            the option accepts, and a value to choose.
    """
    if "model" not in config:
        config = _with_any_model(config)
        content = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
        del content["model"]
    else:
        content = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))
    hints = get_type_hints(roots, include_extras=True)
    for key in sorted(roots.__required_keys__):
        if key not in content:
            raise ValueError(f"the config has no key {key}; remove ~{key} from the command")
    written = OmegaConf.to_yaml(config)
    for key, value in content.items():
        if key in hints:
            _check_value(key, value, hints[key])
        elif f"${{{key}" not in written:
            raise ValueError(f"{key}={show(value)}: nothing reads {key}; {_near(key, hints)}")
    for part, place in _parts(content):
        check_part(part, place)


def _with_any_model(config: DictConfig) -> DictConfig:
    """Add a model for references to its options, where a checkpoint will contain the model."""
    trained = OmegaConf.load(CONF_DIR / "model" / "gald.yaml")
    whole = OmegaConf.create({**cast(dict[str, Any], OmegaConf.to_container(config)), "model": {}})
    whole.model = {key: value for key, value in trained.items() if key != "defaults"}
    return whole


def check_part(part: Mapping[str, Any], place: str) -> None:
    """Refuse the config of one part, such as `model.ga`; parts inside it are not looked at.

    Args:
        part: plain data with a `_target_`.
        place: key of the part in the whole config.

    Raises:
        ValueError: see `check_config`.
    """
    target = part["_target_"]
    if not isinstance(target, str):
        raise ValueError(f"{place}._target_={show(target)}: it must be the dotted path of a class")
    check_arguments(_locate(target, place), part, place)


def check_arguments(build: Any, arguments: Mapping[str, Any], place: str) -> None:
    """Refuse arguments that do not fit the signature of a class or function.

    Args:
        build: the class or function.
        arguments: by name; names that begin with `_` are Hydra's.
        place: key of the arguments in the whole config, for the message.

    Raises:
        ValueError: see `check_config`.
    """
    hints, defaults, is_open = _signature(build)
    for name, value in arguments.items():
        if name.startswith("_"):
            continue
        key = f"{place}.{name}"
        if name in hints:
            _check_value(key, value, hints[name], defaults.get(name, inspect.Parameter.empty))
        elif not is_open:
            known = [one for one in hints if one in defaults or one in arguments]
            hint = _near(name, known, f"~{key}")
            raise ValueError(f"{key}={show(value)}: {_name(build)} has no option {name}; {hint}")
    for name in hints:
        needed = name not in defaults and name not in PASSED and not arguments.get("_partial_")
        if (needed or name in needs(build)) and name not in arguments:
            raise ValueError(
                f"{_name(build)} needs {place}.{name}, which is not set; remove "
                f"~{place}.{name} from the command, or add +{place}.{name}=VALUE"
            )


def _check_value(key: str, value: Any, hint: Hint, default: Any = inspect.Parameter.empty) -> None:
    if isinstance(value, str) and value == "???":
        raise ValueError(f"{key} must be set; add {key}=VALUE to the command")
    place = bad_place(value, hint)
    if place is None:
        return
    inner = entry_hint(hint)
    if inner is not None and isinstance(value, Mapping):
        for name, one in value.items():
            _check_value(f"{key}.{name}", one, inner)
    name = key.rpartition(".")[2]
    written = f"{key}={show(value)}"
    if is_part(hint):
        raise ValueError(f"{written}: {name} must be {_option_of(key, value, hint)}")
    best = suggestion(value, hint, default)
    remedy = f"; choose {key}={show(best)}" if best is not inspect.Parameter.empty else ""
    where = f" (see entry {place})" if place else ""
    raise ValueError(f"{written}: {name} must be {describe(hint)}{where}{remedy}")


def _option_of(key: str, value: Any, hint: Hint) -> str:
    """Describe what a part must be, and the remedy."""
    group = key.replace(".", "/")
    options = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
    if not options:
        other = f"choose {key}=null" if bad_place(None, hint) is None else f"leave {key} out"
        return f"a part, with a _target_; {other}"
    if value in options:
        return f"an option of conf/{group}; write {group}={value}"
    return f"an option of conf/{group}; write {group}=OPTION, one of {', '.join(options)}"


def _near(name: str, known: Iterable[str], remove: str | None = None) -> str:
    if name == "probe":
        return "it belongs to gald probe, so run that with the same words"
    near = difflib.get_close_matches(name, list(known), n=1)
    if near:
        return f"did you mean {near[0]}?"
    return "remove it from the command" + (f", or add {remove}" if remove else "")


def _parts(value: Any, place: str = "") -> Iterator[tuple[Mapping[str, Any], str]]:
    """Find every mapping with a `_target_`, outermost first, and its key."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            yield value, place
        for key, inner in value.items():
            yield from _parts(inner, f"{place}.{key}" if place else str(key))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for number, inner in enumerate(value):
            yield from _parts(inner, f"{place}[{number}]")


def _locate(target: str, place: str) -> Any:
    try:
        return resolve_name(target)
    except OSError:  # of the system, as too many open files; the class may well be there
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{place}._target_={target}: there is no such class or function ({reason}); correct "
            "the path, or choose an option of the group"
        ) from error


@cache
def _signature(build: Any) -> tuple[dict[str, Hint], dict[str, Any], bool]:
    """Return hints and defaults by argument, and whether other arguments are accepted too."""
    source = signature_source(build)
    function = source.__init__ if inspect.isclass(source) else source
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:  # hints of other people's code may name what is not imported
        hints = {}
    found: dict[str, Hint] = {}
    defaults: dict[str, Any] = {}
    is_open = False  # whether there is **more
    for name, parameter in inspect.signature(source).parameters.items():
        hint = hints.get(name, Any)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            if get_origin(hint) is Unpack:
                keys = get_type_hints(get_args(hint)[0], include_extras=True)
                found |= keys
                defaults |= {key: _inherited_default(source, key) for key in keys}
            else:
                is_open = True
        elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
            found[name] = hint
            if parameter.default is not inspect.Parameter.empty:
                defaults[name] = parameter.default
    is_open = is_open and not takes_nothing(build)
    return found | declared(build), defaults, is_open


def _inherited_default(source: Any, name: str) -> Any:
    """Return the default of an argument that a class passes on to one of its bases."""
    for base in source.__mro__[1:]:
        parameter = inspect.signature(base).parameters.get(name)
        if parameter is not None:
            return parameter.default
    return inspect.Parameter.empty


def _name(build: Any) -> str:
    return getattr(signature_source(build), "__name__", str(build))
