"""Weight files of any program, read as tensors and plain data; no code in them is run."""

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gald.run.checksum import find_damage


class _Ignored:
    """Stands in for an object beside the weights; it keeps nothing of it and runs none of it."""

    def __init__(self, *_: Any) -> None:
        pass

    def __new__(cls, *_: Any) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, _: Any) -> None:
        """Accept a state and forget it."""


def _empty_table(*_: Any) -> dict[Any, Any]:
    """Stand in for defaultdict, without its factory; the unpickler fills the dict."""
    return {}


# What training programs save beside the weights: module -> classes. They are known by name and
# never imported, so that a file decides nothing about what code runs.
_ARRAYS = ("scalar", "_reconstruct")
_PATHS = ("PosixPath", "WindowsPath")
_OBJECTS = {
    "argparse": ("Namespace",),
    "builtins": ("bool", "dict", "float", "int", "list", "range", "slice", "str", "tuple"),
    "datetime": ("date", "datetime", "timedelta", "timezone"),
    "mmengine.logging.history_buffer": ("HistoryBuffer",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.nodes": ("AnyNode", "BooleanNode", "FloatNode", "IntegerNode", "StringNode"),
    "pathlib": ("Path", *_PATHS, "PurePath", "PurePosixPath", "PureWindowsPath"),
    "pathlib._local": _PATHS,
    "torch.torch_version": ("TorchVersion",),
    "types": ("SimpleNamespace",),
    "typing": ("Any",),
}
_TABLES = {
    "addict.addict": ("Dict",),
    "easydict": ("EasyDict",),
    "lightning.fabric.utilities.data": ("AttributeDict",),
    "lightning_fabric.utilities.data": ("AttributeDict",),
    "mmcv.utils.config": ("ConfigDict",),
    "mmengine.config.config": ("ConfigDict",),
    "yacs.config": ("CfgNode",),
}
_STAND_INS: list[Any] = [
    *((_Ignored, f"{module}.{name}") for module, names in _OBJECTS.items() for name in names),
    *((OrderedDict, f"{module}.{name}") for module, names in _TABLES.items() for name in names),
    (_empty_table, "collections.defaultdict"),
]
_REFUSED = re.compile(r"(?:Unsupported global: GLOBAL|unsupported GLOBAL) (\S+)")
_AGAIN = "copy or download it again, or choose another"
_SAVE = "save the weights alone, with torch.save(model.state_dict(), FILE), and give that file"
_SMALL = 64 * 10**6  # bytes that parts of a file may state without having them
_DEPTH = 6  # of dicts inside dicts
# Words of a prefix or wrapper, from what is loaded first to what is loaded last.
_AVERAGES, _TEACHERS = {"ema", "averaged", "average", "swa"}, {"teacher", "target"}
_SECOND = {"student", "momentum", "k"}


def read_weight_file(path: Path) -> Any:
    """Read a file of `torch.save` or safetensors; the content decides which, not the name.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not of these formats, is cut off or damaged, or contains a class
            that is neither a tensor nor plain data; the message names it.
    """
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder; give one weight file in it")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; correct the path")
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise ValueError(
            _unreadable(path, str(error.strerror), "change its permissions")
        ) from error
    _refuse_other_kinds(path, head)
    _refuse_packed(path, head)
    if head.startswith(b"PK") and (damage := find_damage(path)):
        raise ValueError(_unreadable(path, damage, _AGAIN))
    try:
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**32:
            return load_file(path)
        with torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, about formats that it reads all the same
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason, remedy = _explain(path, head, str(error))
        raise ValueError(_unreadable(path, reason, remedy)) from error
    _refuse_repeated(content, path)
    return content


def _refuse_packed(path: Path, head: bytes) -> None:
    """Raise a ValueError if the members of a zip are larger than the zip.

    `torch.save` does not compress, so they are not; torch would make room for what they state.
    """
    if not head.startswith(b"PK") or not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            stated = sum(member.file_size for member in archive.infolist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return  # torch says what is wrong
    size = path.stat().st_size
    if stated > size and stated > _SMALL:
        reason = f"it has {size} bytes, but its parts state {stated}"
        raise ValueError(
            _unreadable(path, reason, f"{_AGAIN}; if it is right, pack it with zip -0")
        )


def _refuse_repeated(content: Any, path: Path) -> None:
    """Raise a ValueError if a tensor is larger than what is stored of it.

    A tensor can state that one stored number is all of its billions of numbers.
    """
    for name, value in collect_tensors(content).items():
        if value.layout != torch.strided or value.is_meta or value.is_quantized:
            continue  # `find_defect` names it
        needed, stored = value.numel() * value.element_size(), value.untyped_storage().nbytes()
        if needed > stored and needed > _SMALL:
            reason = f"{name} states {needed} bytes and {stored} are stored"
            raise ValueError(_unreadable(path, reason, "save it again with tensor.clone()"))


def collect_tensors(content: Any) -> dict[str, Tensor]:
    """Return every tensor in nested dicts under its path, as `state_dict.module.conv1.weight`."""
    if isinstance(content, Mapping) and "message_hub" in content:
        # mmengine has swapped the two: the average is in `state_dict`.
        content = {key: value for key, value in content.items() if key != "ema_state_dict"}
    return dict(_walk(content, "", set(), _DEPTH))


def preference(prefix: str) -> int:
    """Rank where weights were found, lowest first, for a file that contains several networks.

    An average of the weights comes first, then a teacher (which is one too), then other weights,
    then a student or the second encoder of a contrastive method.
    """
    words = {word for part in prefix.split(".") for word in part.lower().split("_")}
    if words & _AVERAGES:
        return 0
    if words & _TEACHERS:
        return 1
    return 3 if words & _SECOND else 2


def split_prefix(content: Any, prefix: str) -> tuple[list[str], str]:
    """Split a prefix into the keys of dicts around the state dict, and the prefix of its keys."""
    wrappers = []
    while True:
        parts = prefix.split(".")
        heads = (".".join(parts[:end]) for end in range(1, len(parts)))
        key = next((head for head in heads if isinstance(content.get(head), dict)), None)
        if key is None:
            return wrappers, prefix
        wrappers.append(key)
        content, prefix = content[key], prefix.removeprefix(f"{key}.")


def find_defect(tensors: Mapping[str, Tensor]) -> str | None:
    """Name the first tensor that cannot be a weight, with what is wrong; None if all can be."""
    for name, value in tensors.items():
        if value.is_meta or value.is_quantized or value.layout != torch.strided:
            return f"{name} is a quantised, sparse or empty (meta) tensor"
        if value.is_floating_point() or value.is_complex():
            bad = value.numel() - int(torch.isfinite(value.to(_checkable(value))).sum())
            if bad:
                return f"{bad} of the {value.numel()} values of {name} are nan or infinite"
    return None


def _walk(content: Any, place: str, seen: set[int], depth: int) -> Iterator[tuple[str, Tensor]]:
    # A file may refer to a dict from inside itself.
    if not isinstance(content, Mapping) or id(content) in seen or not depth:
        return
    seen.add(id(content))
    for key, value in content.items():
        if not isinstance(key, str):  # the states of optimizers are numbered
            continue
        if isinstance(value, Tensor):
            yield place + key, value.detach()
        else:
            yield from _walk(value, f"{place}{key}.", seen, depth - 1)


def _checkable(value: Tensor) -> torch.dtype:
    """Return a type in which torch can compare the values; it cannot in all 8-bit types."""
    return value.dtype if value.element_size() > 1 else torch.float32


def _refuse_other_kinds(path: Path, head: bytes) -> None:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        raise ValueError(_unreadable(path, "the file is empty", _AGAIN))
    if text.startswith(b"version https://git-lfs"):
        raise ValueError(
            _unreadable(
                path,
                "it is the pointer that git-lfs leaves in place of the file",
                "run `git lfs pull` in its repository, or download the file itself",
            )
        )
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ValueError(
            _unreadable(
                path, "it is a web page, not the file", "download it again from a direct link"
            )
        )
    if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in head):
        line = head.decode().strip().splitlines()[0][:60] if head.strip() else ""
        raise ValueError(_unreadable(path, f"it is text that begins with {line!r}", _AGAIN))


def _explain(path: Path, head: bytes, error: str) -> tuple[str, str]:
    """Return why a file cannot be read, and the remedy."""
    refused = _REFUSED.search(error)
    if refused:
        return (
            f"it contains {refused[1]}, which is neither a tensor nor plain data, and gald runs no "
            "code from a file",
            _SAVE,
        )
    if "TorchScript" in error:
        return "it is a TorchScript program", _SAVE
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        return f"the file is truncated after {path.stat().st_size} bytes", _AGAIN
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            ours = any(name.endswith("data.pkl") for name in archive.namelist())
        if not ours:
            return "it is a zip file, but not one of torch.save", _AGAIN
        if "Unsupported operand" in error:
            return "its pickle protocol is not the one of torch.save, which is 2", _SAVE
    elif path.suffix == ".safetensors" or head[8:9] == b"{":
        return f"it is not a complete safetensors file: {_first_line(error)}", _AGAIN
    elif not head.startswith(b"\x80"):
        return f"it begins with {head[:8]!r}, unlike files of torch.save and safetensors", _AGAIN
    elif "Unsupported operand" in error:
        return f"it has pickle protocol {head[1]}, and torch.save writes 2", _SAVE
    return f"it is damaged or truncated: {_first_line(error)}", _AGAIN


def _first_line(error: str) -> str:
    return (error.strip() or "unexpected end").splitlines()[0][:120].rstrip(".:; ")


def _unreadable(path: Path, reason: str, remedy: str) -> str:
    return f"{path} cannot be read as a checkpoint ({reason}); {remedy}"
