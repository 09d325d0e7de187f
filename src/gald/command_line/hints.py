"""Other words for what a command line names wrongly: "did you mean `model/ga=psp`?"."""

import difflib
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.errors import MissingConfigException
from omegaconf import DictConfig, OmegaConf

from gald.install.extras import extra_of_option, what_lacks

# Words of other tools for our keys.
WORDS = {
    "accumulate_grad_batches": "data.micro_batch_size",
    "amp": "trainer.precision",
    "arch": "model/backbone",
    "batchsize": "data.global_batch_size",
    "batch_size": "data.global_batch_size",
    "bs": "data.global_batch_size",
    "checkpoint": "ckpt_path",
    "ckpt": "ckpt_path",
    "context": "model/ga",
    "criterion": "loss",
    "datamodule": "data",
    "dataset": "data",
    "decoder": "model/head",
    "encoder": "model/backbone",
    "epochs": "trainer.max_epochs",
    "exp": "experiment",
    "fp16": "trainer.precision",
    "gpus": "trainer.devices",
    "image_size": "data.train_transform.crop_size",
    "learning_rate": "optimizer.lr",
    "load": "init_from",
    "loggers": "logger",
    "lr_scheduler": "scheduler",
    "nodes": "trainer.num_nodes",
    "opt": "optimizer",
    "optim": "optimizer",
    "out": "output_dir",
    "output": "output_dir",
    "resume": "ckpt_path",
    "resume_from": "ckpt_path",
    "sched": "scheduler",
    "size": "data.train_transform.crop_size",
    "steps": "trainer.max_steps",
    "wd": "optimizer.weight_decay",
    "work_dir": "output_dir",
    "workers": "data.num_workers",
}
LISTS = ("augment", "callbacks", "logger")  # groups with several options at once
GLOBAL = (("hydra",), ("experiment",), ("hparams_search",), ("debug",))  # set keys anywhere
# Arguments of Lightning's Trainer that conf/trainer/default.yaml does not list.
TRAINER = (
    *("barebones", "detect_anomaly", "enable_autolog_hparams", "enable_checkpointing"),
    *("enable_progress_bar", "gradient_clip_algorithm", "inference_mode", "max_time"),
    *("min_epochs", "min_steps", "model_registry", "plugins", "reload_dataloaders_every_n_epochs"),
)


def explained(error: Exception, words: Sequence[str], root: Path) -> str | None:
    """Explain an error of Hydra about a word, mostly an unknown key; None if it is another error.

    Args:
        error: as Hydra raised it.
        words: the words of the command line.
        root: the root config, such as `conf/train.yaml`.
    """
    if isinstance(error, MissingConfigException):
        return unknown_option(error)
    if ambiguous := re.search(r"Ambiguous value for argument '([^']+)'", str(error)):
        key, _, value = ambiguous[1].partition("=")
        several = shlex.quote(f"{key}=[{value}]")
        text = f"\"{key}='{value}'\""
        return (
            f"{ambiguous[1]} has several values; add -m to train with each of them, or write "
            f"{several} for a list or {text} for one text"
        )
    if present := re.search(r"An item is already at '([^']+)'", str(error)):
        return f"{present[1]} is in the config already; write {present[1]}=VALUE, without +"
    cause = error.__cause__ or error
    found = re.search(r"Could not (?:override|append) '([^']+)'", str(error))
    key = getattr(cause, "full_key", None) or (found and found[1].partition("@")[0])
    is_unknown = "is not in struct" in str(cause) or "No match in the defaults list" in str(error)
    if not is_unknown or not key:
        return None
    if other := _of_other_model(str(key), words):
        return other
    word = next((word for word in words if word.lstrip("+~").partition("=")[0] == key), str(key))
    names = [word.lstrip("+~").partition("=")[0] for word in words]
    whole = next((name for name in names if f"{name}.".startswith(f"{key}.")), key)
    key = whole if options_with(whole, root) else key
    if owners := options_with(str(key), root):
        chosen = shlex.quote(_choice(owners[0], words))
        verb = "is" if len(owners) == 1 else "are"
        names = ", ".join(owners)
        return f"{key} is a key of {names}, which {verb} not chosen; add {chosen}, or remove {key}"
    hint = did_you_mean(word, root)
    return hint and f"there is no config key {key}; did you mean {hint}?"


def _of_other_model(key: str, words: Sequence[str]) -> str | None:
    """Explain a key that belongs to the other option of the group `model`."""
    part = re.match(r"model[./](host|at|backbone|neck|head|aux_head)\b", key)
    plugged = "model=plugged" in words
    if part is None or plugged == (part[1] in ("host", "at")):
        return None
    if plugged:
        return (
            f"{key} is set, by a word or an experiment, but model=plugged has a host instead of "
            "backbone, neck and heads; leave it out, or leave out model=plugged"
        )
    return f"{key} is a key of model=plugged, which is not chosen; add model=plugged, or remove it"


def options_with(key: str, root: Path) -> list[str]:
    """Return the options of groups that have a key, as `data=camvid`."""
    sections, found = _sections(root), []
    for path in sorted(root.parent.rglob("*.yaml")):
        parts = path.parent.relative_to(root.parent).parts
        if not parts or parts[0] not in sections or parts[:1] in GLOBAL:
            continue
        if key in _paths(OmegaConf.to_container(OmegaConf.load(path)), _package_of(path, parts)):
            found.append(f"{'/'.join(parts)}={path.stem}")
    return found


def _choice(option: str, words: Sequence[str]) -> str:
    """Return the word that chooses an option, beside others if its group takes several."""
    group, _, name = option.partition("=")
    if group not in LISTS:
        return option
    others = [word.partition("=")[2].strip("[]") for word in words if word.startswith(f"{group}=")]
    return f"{group}=[{others[-1]},{name}]" if others else f"+{option}"


def unknown_option(error: MissingConfigException) -> str | None:
    """Explain an error of Hydra about a group without the option; None if it is another error."""
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    options = [str(one) for one in error.options or ()]
    extra = extra_of_option(f"{group}={option}")
    if extra and (lack := what_lacks(f"{group}={option}", extra)):
        return lack
    if not group or not options:
        return None
    near = difflib.get_close_matches(option, options, n=1)
    meant = f"did you mean {group}={near[0]}? Otherwise " if near else ""
    return f"{group} has no option {option!r}; {meant}choose one of {', '.join(options)}"


def did_you_mean(word: str, root: Path) -> str | None:
    """Return what a word of a command line may have meant; None if nothing is near.

    Args:
        word: `KEY=VALUE` or `KEY`, where KEY is no key of the config, or `VALUE`.
        root: the root config, such as `conf/train.yaml`.

    Returns:
        The word with another key, quoted for the shell.
    """
    name, equals, value = word.lstrip("+~-").partition("=")
    section, _, last = name.rpartition(".")
    if section == "trainer" and last in TRAINER:
        return shlex.quote(f"+{name}{equals}{value}")
    options = groups(root)
    if not equals:
        meant = [group for group in options if name in options[group]]
        if meant:
            return shlex.quote(f"{min(meant, key=_depth)}={name}")
    key = _nearest(name, value, options, keys(root))
    if key is None:
        return None
    return shlex.quote(f"{key}={value or 'VALUE'}")


def groups(root: Path) -> dict[str, list[str]]:
    """Return the options of each group that a root config takes, by the name of the group."""
    sections = _sections(root)
    found: dict[str, list[str]] = {}
    for path in sorted(root.parent.rglob("*.yaml")):
        group = path.parent.relative_to(root.parent).as_posix()
        if group.split("/")[0] in sections and group != "hydra":
            found.setdefault(group, []).append(path.stem)
    return found


def _sections(root: Path) -> dict[str, None]:
    """Return the names at the top of a root config."""
    content = OmegaConf.load(root)
    assert isinstance(content, DictConfig)
    found: dict[str, None] = {}
    for entry in content.pop("defaults"):
        if isinstance(entry, str):  # another root config, or _self_
            found |= {} if entry == "_self_" else _sections(root.with_name(f"{entry}.yaml"))
        else:
            found |= dict.fromkeys(str(name).rpartition(" ")[2] for name in entry)
    return found | dict.fromkeys(map(str, content))


def _nearest(
    name: str, value: str, options: Mapping[str, Sequence[str]], names: Sequence[str]
) -> str | None:
    known = [*options, *names]
    plain = _last(name.lower())
    with_option = [group for group in options if value and value in options[group]]
    words = [word for word, key in WORDS.items() if key in known]
    near = difflib.get_close_matches(plain, [_last(key) for key in known], n=1, cutoff=0.75)
    for candidates in (
        [group for group in with_option if _last(group) == plain],
        [key for key in known if key == WORDS.get(plain)],
        [key for key in known if _last(key) == plain],
        [WORDS[one] for one in difflib.get_close_matches(plain, words, n=1, cutoff=0.85)],
        difflib.get_close_matches(name, known, n=1, cutoff=0.75),
        [key for key in known if _last(key) in near],
        with_option if len(with_option) == 1 else [],
    ):
        if candidates:
            return min(candidates, key=_depth)
    return None


def _depth(key: str) -> tuple[int, int]:
    return len(re.split(r"[./]", key)), len(key)


def _last(key: str) -> str:
    return re.split(r"[./]", key)[-1]


@cache
def keys(root: Path) -> tuple[str, ...]:
    """Return all keys below a root config, as they are written on a command line."""
    sections, conf = _sections(root), root.parent
    found: dict[str, None] = dict.fromkeys(sections)
    for path in sorted(conf.rglob("*.yaml")):
        parts = path.parent.relative_to(conf).parts
        content = OmegaConf.load(path)
        if not isinstance(content, DictConfig) or parts[:1] in GLOBAL:
            continue
        paths = _paths(OmegaConf.to_container(content), _package_of(path, parts))
        found |= dict.fromkeys(key for key in paths if key.split(".")[0] in sections)
    return tuple(found)


def _package_of(path: Path, parts: tuple[str, ...]) -> tuple[str, ...]:
    """Return the place of an option's keys in the config: its `@package`, or its group's path."""
    with path.open(encoding="utf-8") as file:
        found = re.match(r"# @package ([a-z][\w.]*)$", file.readline().strip())
    return tuple(found[1].split(".")) if found else parts


def _paths(value: Any, place: Sequence[str]) -> Iterator[str]:
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        if not str(key).startswith("_") and key != "defaults":
            yield ".".join([*place, str(key)])
            yield from _paths(inner, [*place, str(key)])
