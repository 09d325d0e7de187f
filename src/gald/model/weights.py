"""Weights for a timm backbone from a file or a pip-installed package, without a hub.

Loading is all or nothing: a missing tensor is an error, so no layer silently keeps random weights,
and so is a tensor that the backbone has no place for, which is a sign of another network.
"""

import importlib.util
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
from torch import Tensor, nn

from gald.install.environment import is_installed
from gald.install.extras import command_for
from gald.model.architecture import describe
from gald.model.weight_layouts import EFFICIENTNET_STEM, State, layouts
from gald.progress import say
from gald.run.weight_file import (
    collect_tensors,
    find_defect,
    preference,
    read_weight_file,
    split_prefix,
)

_PACKAGE = "package:"
_COUNTER = "num_batches_tracked"  # unused in timm's networks, and left out of many files
# Buffers that some programs store and others compute.
_COMPUTED = (_COUNTER, "relative_position_index", "attn_mask", "relative_coords_table")
_COMPUTED += ("total_ops", "total_params")
_SHOWN = 3  # tensors named in a message


class Fit(NamedTuple):
    """How the tensors of a file fit a backbone.

    Attributes:
        prefix: of the keys in the file.
        state: tensors under timm's names.
        found: tensors under the backbone's names; of the right shape unless in `wrong`.
        missing: keys of the backbone that the file lacks.
        wrong: keys of another shape or kind of number.
        surplus: keys of `state` inside the backbone's own modules that the backbone lacks.
    """

    prefix: str
    state: State
    found: State
    missing: list[str]
    wrong: list[str]
    surplus: list[str]

    @property
    def complete(self) -> bool:
        """Whether exactly the backbone's tensors are there."""
        return not (self.missing or self.wrong or self.surplus)

    @property
    def score(self) -> tuple[int, int]:
        """Larger for a better fit."""
        return len(self.found) - len(self.wrong), -len(self.surplus)


def load_weights(backbone: nn.Module, source: str) -> None:
    """Load the weights that `source` names into a timm feature extractor; print what was taken.

    Wrappers and prefixes are found by comparing names, so the file may be of any program that
    keeps timm's or torchvision's names; `gald.model.weight_layouts` renames others. If a file
    contains the network more than once, an average is preferred.

    Args:
        backbone: the result of `timm.create_model(..., features_only=True)`.
        source: a file of torch.save or safetensors, or `package:NAME` for the one weight file
            inside the installed Python package NAME.

    Raises:
        FileNotFoundError: the file or package does not exist.
        ValueError: the file cannot be read or contains no weights; a tensor that the backbone
            needs is missing, has another shape, or is nan; or the file is of another network.
    """
    path = _package_file(source) if source.startswith(_PACKAGE) else Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"backbone weights not found at {path}; "
            "set model.backbone.weights to a file, package:NAME, timm or null"
        )
    if (path / "checkpoints").is_dir():
        raise ValueError(_trained_by_gald(path))
    content = read_weight_file(path)
    tensors = collect_tensors(content)
    _refuse_other_files(path, content, tensors)
    architecture = str(getattr(backbone, "pretrained_cfg")["architecture"])  # noqa: B009
    with torch.device("meta"):  # only names and shapes are needed
        whole = timm.create_model(architecture)
    fits = [
        fit
        for prefix in _prefixes(tensors, backbone)
        for fit in [_fit(prefix, tensors, backbone, whole, architecture)]
    ]
    fit = _choose(path, fits)
    if not fit.complete:
        raise ValueError(_explain(path, fit, backbone, whole, architecture))
    now = backbone.state_dict()
    # Converted first, since a large number may become infinite.
    state = {k: v.to(now[k].dtype).reshape(now[k].shape) for k, v in fit.found.items()}
    defect = find_defect(state)
    if defect is not None:
        raise ValueError(
            f"the weights in {path} are useless: {defect}; set model.backbone.weights to another "
            "file, or null"
        )
    backbone.load_state_dict(state, strict=False)  # nothing but counters of batches is missing
    say(_summary(path, content, fit, fits, tensors))


def _package_file(source: str) -> Path:
    name = source.removeprefix(_PACKAGE)
    spec = importlib.util.find_spec(name) if is_installed(name) else None
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            f"package {name} is not installed; run `{command_for(name)}` or set "
            "model.backbone.weights=null"
        )
    files = sorted(Path(spec.origin).parent.rglob("*.pth"))
    if len(files) != 1:
        raise FileNotFoundError(
            f"package {name} contains {len(files)} .pth files instead of 1; "
            "set model.backbone.weights to the path of one file"
        )
    return files[0]


def _refuse_other_files(path: Path, content: Any, tensors: State) -> None:
    saved = any("backbone.net." in key for key in tensors) and any(
        key.endswith("reduce.conv.weight") for key in tensors
    )
    if saved or (isinstance(content, dict) and "gald" in content):
        raise ValueError(_trained_by_gald(path))
    if not tensors:
        what = "an empty dict" if content == {} else f"a {type(content).__name__} without tensors"
        raise ValueError(
            f"{path} contains {what}, not a state dict; set model.backbone.weights to a file "
            "written by torch.save(model.state_dict(), FILE)"
        )


def _trained_by_gald(path: Path) -> str:
    return (
        f"{path} is a whole network that gald trained, not the weights of a backbone; start from "
        f"it with init_from={path} model.backbone.weights=null"
    )


def _prefixes(tensors: State, backbone: nn.Module) -> list[str]:
    """Return the prefixes under which the backbone may be, in the order of `preference`."""
    needed = {_flat(key) for key in backbone.state_dict()}
    matches: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")
        for end in range(len(parts)):
            prefix = "".join(f"{part}." for part in parts[:end])
            sizes[prefix] += 1
            matches[prefix] += "_".join(parts[end:]) in needed
        if key.endswith(EFFICIENTNET_STEM):
            matches[key.removesuffix(EFFICIENTNET_STEM)] = len(needed)
    best = max(matches.values())
    if best < len(needed) / 2:  # the names may be another program's: every large group is tried
        prefixes = [prefix for prefix, size in sizes.items() if size >= len(needed) / 2] or [""]
    else:
        prefixes = [prefix for prefix, count in matches.items() if count >= best / 2]
    return sorted(prefixes, key=lambda prefix: (preference(prefix), -matches[prefix]))


def _fit(
    prefix: str, tensors: State, backbone: nn.Module, whole: nn.Module, architecture: str
) -> Fit:
    """Fit the tensors under a prefix in the layout in which most of them fit."""
    state = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
    best = None
    for layout in layouts(state, whole, architecture):
        fit = _compare(prefix, layout, backbone, whole)
        if best is None or fit.score > best.score:
            best = fit
        if fit.complete:
            break
    assert best is not None, "the first layout is the file's own"
    return best


def _compare(prefix: str, state: State, backbone: nn.Module, whole: nn.Module) -> Fit:
    # A features_only wrapper may prefix keys with `model.` or join `stages.0` to `stages_0`, so
    # keys are compared with dots replaced by underscores.
    flat = {_flat(key): value for key, value in state.items()}
    expected = backbone.state_dict()
    found = {key: flat[_flat(key)] for key in expected if _flat(key) in flat}
    found = {k: v for k, v in found.items() if not k.endswith(_COUNTER) or v.numel() == 1}
    missing = [key for key in expected if key not in found and not key.endswith(_COUNTER)]
    wrong = [key for key, value in found.items() if _differs(key, value, expected[key])]
    # Tensors of a classifier are left, but not tensors inside the backbone's own modules: those
    # of a ResNet-50 are all in a ResNet-101 too.
    known = {_flat(key) for key in whole.state_dict()}
    classifier = getattr(whole, "pretrained_cfg")["classifier"]  # noqa: B009
    classifiers = [classifier] if isinstance(classifier, str) else list(classifier or ())
    heads = {name.split(".")[0] for name in classifiers}
    modules = {key.split(".")[0] for key in whole.state_dict()} - heads
    surplus = [
        key
        for key in state
        if key.split(".")[0] in modules and _flat(key) not in known and not key.endswith(_COMPUTED)
    ]
    return Fit(prefix, state, found, missing, wrong, surplus)


def _choose(path: Path, fits: list[Fit]) -> Fit:
    """Return the first complete fit, which is the preferred one, or else the best."""
    complete = [fit for fit in fits if fit.complete]
    if not complete:
        return max(fits, key=lambda fit: fit.score)
    first = complete[0]
    for other in complete[1:]:
        equal = preference(other.prefix) == preference(first.prefix)
        if equal and not all(torch.equal(other.found[key], v) for key, v in first.found.items()):
            raise ValueError(
                f"{path} contains this backbone twice, under {_show(first.prefix)} and under "
                f"{_show(other.prefix)}, with other values; save one of them alone with "
                "torch.save(model.state_dict(), FILE), and set model.backbone.weights to that file"
            )
    return first


def _explain(path: Path, fit: Fit, backbone: nn.Module, whole: nn.Module, architecture: str) -> str:
    """Return the message for weights that do not fit: what differs, why, and the remedy."""
    expected, found = backbone.state_dict(), fit.found
    differences = []
    if fit.missing:
        differences.append(
            f"{path.name} has {len(found)} of the {len(expected)} tensors that the backbone "
            f"{architecture} needs, missing {_first(fit.missing)}"
        )
    if fit.wrong:
        shown = [_difference(key, found[key], expected[key]) for key in fit.wrong]
        differences.append(f"{path.name} has {_count(fit.wrong)} that do not fit: {_first(shown)}")
    if fit.surplus:
        differences.append(
            f"{path.name} has {_count(fit.surplus)} for which {architecture} has no place: "
            f"{_first(fit.surplus)}"
        )
    cause, remedy = _cause(fit, expected, whole, architecture)
    return f"{'; '.join(differences)} ({cause}); {remedy}"


def _difference(key: str, theirs: Tensor, ours: Tensor) -> str:
    name = key.removeprefix("model.")
    if theirs.shape == ours.shape:
        return f"{name} in {theirs.dtype}, the backbone needs {ours.dtype}"
    there, here = tuple(theirs.shape), tuple(ours.shape)
    return f"{name} with shape {there}, the backbone needs {here}"


def _count(names: list[str]) -> str:
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''}"


def _cause(fit: Fit, expected: State, whole: nn.Module, architecture: str) -> tuple[str, str]:
    """Return why weights do not fit, and the remedy."""
    other = "set model.backbone.weights to weights of this backbone"
    theirs, ours = describe(fit.state), describe(whole.state_dict())
    if theirs is not None and theirs != ours:
        name = theirs if theirs.startswith("resnet") else "NAME, timm's name of that network"
        return (
            f"it is of another architecture, {theirs}, while this is {ours or architecture}",
            f"{other}, or set model.backbone.name={name}",
        )
    for key in fit.wrong:
        there, here = fit.found[key].shape, expected[key].shape
        if there == here:
            return f"its numbers are {fit.found[key].dtype}, as of a quantised network", other
        if key.endswith("pos_embed") and there[-1] == here[-1]:
            return _position_cause(there, here)
        first = here[1:2] == (3,) and len(there) == len(here) == 4
        if first and there[1] != 3 and there[0] == here[0] and there[2:] == here[2:]:
            channels = f"{there[1]} channel{'s' if there[1] != 1 else ''}"
            return (
                f"it was trained on images of {channels} instead of 3 (RGB)",
                "set model.backbone.weights to weights for RGB images",
            )
    if not fit.found:
        keys = ", ".join(list(fit.state)[:_SHOWN])
        return f"its names are unlike timm's (such as {keys})", other
    if theirs is not None and fit.missing:
        return "the file is incomplete", other
    return "it is of another architecture, or of another program", other


def _summary(path: Path, content: Any, fit: Fit, fits: list[Fit], tensors: State) -> str:
    """Say in one line what was taken from a file, and from where in it."""
    wrappers, prefix = split_prefix(content, fit.prefix)
    wrapper = ".".join(wrappers)
    taken = f"backbone weights: took {len(fit.found)} tensors of {path}"
    taken += f" from {wrapper}" if wrapper else ""
    taken += f", without the prefix {prefix}" if prefix else ""
    used = {_place(value) for value in fit.found.values()}
    names = {_flat(key) for key in fit.found}
    inside = f"{wrapper}." if wrapper else ""
    left = Counter(
        _module(key.removeprefix(fit.prefix).removeprefix(inside))
        for key, value in tensors.items()
        if key.startswith(inside)
        and not key.endswith(_COMPUTED)
        and _place(value) not in used
        and not (key.startswith(fit.prefix) and _flat(key.removeprefix(fit.prefix)) in names)
    )
    others = {f.prefix for f in fits if f.complete and f is not fit}
    parts = [taken]
    if left:
        shown = [f"{name} ({count})" for name, count in left.items()]
        parts.append(f"left {_first(shown, 6)}")
    if others:
        parts.append(f"did not use {_first([_show(o) for o in sorted(others)])}")
    return "; ".join(parts)


def _place(value: Tensor) -> tuple[int, int]:
    """Return what a tensor keeps when it is renamed or reshaped."""
    return value.untyped_storage().data_ptr(), int(value.storage_offset())


def _module(key: str) -> str:
    """Return the outermost module of a tensor that says more than that it is a module."""
    parts = key.split(".")
    return next((part for part in parts if part not in ("module", "_orig_mod")), key)


def _differs(key: str, theirs: Tensor, ours: Tensor) -> bool:
    if key.endswith(_COUNTER):  # some averages of weights make it a fraction
        return False
    return theirs.shape != ours.shape or theirs.is_floating_point() != ours.is_floating_point()


def _flat(key: str) -> str:
    return key.removeprefix("model.").replace(".", "_")


def _position_cause(there: torch.Size, here: torch.Size) -> tuple[str, str]:
    """Return why a position embedding (1, tokens, width) does not fit, and the remedy."""
    grids = []
    for shape in (there, here):
        side = int(shape[-2] ** 0.5)
        grids.append((side, shape[-2] - side * side))
    texts = [f"{side}x{side}{f' and {more}' if more else ''} tokens" for side, more in grids]
    cause = f"its position embedding has {texts[0]}, that of the backbone {texts[1]}"
    if grids[0][0] == grids[1][0]:
        return (
            f"{cause}, so it has other class tokens, as a distilled network has",
            "set model.backbone.name to timm's name of that network",
        )
    return (
        f"{cause}, so it was trained at another image size",
        "set model.backbone.name to timm's name for that image size",
    )


def _first(names: list[str], shown: int = _SHOWN) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def _show(prefix: str) -> str:
    return prefix.rstrip(".") or "its top level"
