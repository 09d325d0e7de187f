"""The authors' networks: identification of a state dict, and mapping of its keys to ours.

The authors' keys are from GALD-DGCNet@be7ebfe libs/models/{GALDNet,DualGCNNet}.py.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

State = dict[str, Tensor]


class Network(NamedTuple):
    """One of the authors' networks.

    Attributes:
        mark: prefix of keys that only this network has.
        input: input in the authors' training scripts, as in TimmBackbone.
        experiment: config of its R50 version.
        names: prefix of our keys -> prefix of theirs.
    """

    mark: str
    input: str
    experiment: str
    names: dict[str, str]


def _unit(ours: str, theirs: str, first: int = 0) -> dict[str, str]:
    """Map a convolution and its norm, where the authors' keys are numbered."""
    return {f"{ours}.conv.": f"{theirs}.{first}.", f"{ours}.norm.": f"{theirs}.{first + 1}."}


def _pair(ours: str, conv: str, norm: str) -> dict[str, str]:
    """Map a convolution and its norm, where the authors' keys are named."""
    return {f"{ours}.conv.": f"{conv}.", f"{ours}.norm.": f"{norm}."}


_CLASSIFIER = "head.bottleneck.3."
_SHARED = (
    {"backbone.net.": "", "head.classify.": _CLASSIFIER}
    | _unit("reduce", "head.conva")
    | _unit("head.refine", "head.convb")
    | _unit("head.fuse", "head.bottleneck")
    | _unit("aux_head.hidden", "dsn")
)
_MASK = "head.a2block.local_attention.dconv"
_DUAL = "head.dualgcn."
_SPATIAL = f"{_DUAL}gcn_local_attention."
_NETWORKS = {
    "GALD": Network(
        mark="head.a2block.",
        input="bgr",
        experiment="gald_official",
        names=_SHARED
        | {"ga.module.": "head.a2block.long_relation.", "aux_head.classify.": "dsn.4."}
        | _unit("ga.down", "head.a2block.down")
        | _unit("ld.phi.0", f"{_MASK}1")
        | _unit("ld.phi.1", f"{_MASK}2")
        | _unit("ld.phi.2", f"{_MASK}3"),
    ),
    "DualSeg": Network(
        mark=_DUAL,
        input="rgb",
        experiment="dualseg_official",
        names=_SHARED
        | {"aux_head.classify.": "dsn.3."}
        | {
            f"ga.positions.{part}.": f"{_SPATIAL}node_{part[0]}."
            for part in ("query", "key", "value")
        }
        | _pair("ga.positions.update", f"{_SPATIAL}conv_wg", f"{_SPATIAL}bn_wg")
        | _unit("ga.positions.project", f"{_SPATIAL}out")
        | _unit("ga.down.0", f"{_DUAL}local", 0)
        | _unit("ga.down.1", f"{_DUAL}local", 2)
        | _unit("ga.down.2", f"{_DUAL}local", 4)
        | _pair("ga.state", f"{_DUAL}phi", f"{_DUAL}bn_phi")
        | _pair("ga.assign", f"{_DUAL}theta", f"{_DUAL}bn_theta")
        | _pair("ga.adjacency", f"{_DUAL}conv_adj", f"{_DUAL}bn_adj")
        | _pair("ga.update", f"{_DUAL}conv_wg", f"{_DUAL}bn_wg")
        | _pair("ga.project", f"{_DUAL}conv3", f"{_DUAL}bn3")
        | _unit("ga.fuse", f"{_DUAL}final"),
    ),
}
# 1-D convolutions in the authors' code, 1x1 convolutions in ours.
_ONE_DIMENSIONAL = (f"{_DUAL}conv_adj.", f"{_DUAL}conv_wg.", f"{_SPATIAL}conv_wg.")
# Stem keys before GALD-DGCNet@b6c8784; since then they are conv1.0 ... conv1.6 and bn1.
_OLD_STEM = ("conv1.weight", "conv2.", "bn2.", "conv3.", "bn3.")
_AUX_HEAD = "dsn."
_COUNTER = "num_batches_tracked"  # not used by the network, and left out of many files
_REMEDY = "give a state dict of the authors' unmodified code (nothing was written)"


def prefix_of(key: str) -> str | None:
    """Return what precedes the authors' name in a key that only one of their networks has."""
    for network in _NETWORKS.values():
        before, mark, _ = f".{key}".partition(f".{network.mark}")
        if mark:
            return f"{before[1:]}." if before else ""
    return None


def has_aux_head(state: State) -> bool:
    """Whether a state dict contains the auxiliary head, which only training needs."""
    return any(key.startswith(_AUX_HEAD) for key in state)


def identify(state: State, source: Path) -> tuple[str, Network, int]:
    """Return the authors' name of a network (`GALD_res50`), its entry, and its number of classes.

    Raises:
        ValueError: the state dict matches no network, or is from before the stem was renamed.
    """
    matches = [
        (name, network)
        for name, network in _NETWORKS.items()
        if any(key.startswith(network.mark) for key in state)
    ]
    if len(matches) != 1:
        marks = " or ".join(f"{network.mark}* ({name})" for name, network in _NETWORKS.items())
        raise ValueError(
            f"{source} has keys of {len(matches)} convertible networks, expected one of {marks}; "
            "give the state dict of one network"
        )
    old = next((key for key in state if key.startswith(_OLD_STEM)), None)
    if old is not None:
        raise ValueError(
            f"{source} has {old}, a stem key from before August 2020 (GALD-DGCNet@b6c8784), which "
            "the authors' code no longer loads either; give a state dict saved later"
        )
    family, network = matches[0]
    name = f"{family}_{'res101' if any(k.startswith('layer3.6.') for k in state) else 'res50'}"
    key = f"{_CLASSIFIER}weight"
    if key not in state:
        raise ValueError(_missing(source, key, name))
    if state[key].ndim != 4 or not len(state[key]):
        raise ValueError(_wrong_shape(source, key, state[key].shape, name, "(classes, 512, 1, 1)"))
    return name, network, len(state[key])


def rename(state: State, ours: State, network: Network, source: Path, what: str) -> State:
    """Return the authors' tensors under our keys; every tensor is used exactly once.

    Counters of batches (`num_batches_tracked`) that the file lacks are 0.

    Raises:
        ValueError: a key is unknown, missing, of another shape or not of floating point.
    """
    theirs = {key: _their_key(key, network.names) for key in ours}
    known = set(theirs.values())
    unknown = next((key for key in state if key not in known), None)
    if unknown is not None:
        raise ValueError(f"{source} has {unknown}, which {what} does not have; {_REMEDY}")
    renamed = {}
    for key, name in theirs.items():
        if name not in state and name.endswith(_COUNTER):
            renamed[key] = torch.zeros(ours[key].shape, dtype=ours[key].dtype)
            continue
        if name not in state:
            raise ValueError(_missing(source, name, what))
        flat = name.startswith(_ONE_DIMENSIONAL)
        needs = ours[key].shape[:-1] if flat else ours[key].shape
        if state[name].shape != needs:
            raise ValueError(_wrong_shape(source, name, state[name].shape, what, str(tuple(needs))))
        if ours[key].is_floating_point() and not state[name].is_floating_point():
            raise ValueError(
                f"{source} has {name} as {state[name].dtype}, but {what} needs {ours[key].dtype}; "
                f"{_REMEDY}"
            )
        renamed[key] = state[name].unsqueeze(-1) if flat else state[name]
    return renamed


def _their_key(key: str, names: dict[str, str]) -> str:
    prefix = next(prefix for prefix in names if key.startswith(prefix))
    return names[prefix] + key.removeprefix(prefix)


def _missing(source: Path, key: str, what: str) -> str:
    return f"{source} has no {key}, which {what} needs; {_REMEDY}"


def _wrong_shape(source: Path, key: str, shape: Sequence[int], what: str, needs: str) -> str:
    return f"{source} has {key} with shape {tuple(shape)}, but {what} needs {needs}; {_REMEDY}"
