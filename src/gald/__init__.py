"""GALD: global aggregation, then local distribution, with all context modules for ablations."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from torch import nn

    from gald.model.segmentor import Segmentor
    from gald.prediction.predictor import Predictor
    from gald.viz.record import Recording

__version__ = "0.1.0"

# Otherwise albumentations looks for a newer version when imported, and hangs without a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


def load(path: "str | Path", trust: "str | Sequence[str]" = ()) -> "Predictor":
    """Load a trained network; see `gald.prediction.predictor.Predictor`.

    Args:
        path: a run folder, a checkpoint, a folder written by `save_pretrained` or `gald convert`,
            or OWNER/NAME on the hub.
        trust: packages of your own with classes that the file may name. Without it the file decides
            nothing about what code runs.
    """
    from gald.prediction import predictor  # imports torch, which takes seconds

    return predictor.load(path, trust)


def record(model: "nn.Module", *slots: str) -> "AbstractContextManager[Recording]":
    """Record inputs and outputs of GA and LD: `with gald.record(model) as maps: model(image)`.

    Args:
        model: a network from `load`, or a `Segmentor`.
        slots: `ga`, `ld` or both; none means both. See `gald.viz.record`.
    """
    from gald.viz.record import record

    return record(model, *slots)


def train(*words: str) -> "dict[str, Any]":
    """Train a network as `gald train` does: `gald.train("experiment=demo", "model/ga=psp")`.

    Args:
        words: KEY=VALUE as on the command line, one training; `gald train -m` runs several.

    Returns:
        the content of results.json, such as `results["test/miou"]` in [0, 1]. The run folder is
        `results["run_folder"]`.

    Raises:
        ValueError: a word is wrong, the folder holds a run already, or parts do not fit each other.
    """
    from gald.training.train import train_words  # imports torch, which takes seconds

    return train_words(words)


def segmentor(
    num_classes: int = 19,
    *options: str,
    backbone: str = "default",
    neck: str = "none",
    ga: str = "cgnl",
    ld: str = "mask",
    head: str = "gald",
) -> "Segmentor":
    """Build a network without training it: `gald.segmentor(11, backbone="resnet18", ga="psp")`.

    Args:
        num_classes: number of classes K.
        options: further words of `gald train`, such as "model.channels=256".
        backbone: option of model/backbone, or the name of a timm model.
        neck: option of model/neck.
        ga: option of model/ga.
        ld: option of model/ld.
        head: option of model/head.

    Returns:
        a module; images (B, 3, H, W), uint8 or float in [0, 1], give logits (B, K, h, w) in
        `.logits` and those of the auxiliary head in `.aux`; `model.logits(image)` evaluates.
    """
    from gald.model import build

    slots = {"backbone": backbone, "neck": neck, "ga": ga, "ld": ld, "head": head}
    return build.segmentor(num_classes, options, **slots)


def plug(
    network: "nn.Module",
    at: str,
    ga: str = "cgnl",
    ld: str = "mask",
    channels: "int | None" = None,
) -> "nn.Module":
    """Put GA and LD into a network of yours: `gald.plug(network, "encoder", ga="psp")`.

    The network's code and the names of its weights stay as they are. It is run on small black
    images, in evaluation mode, to find out what its submodules return.

    Args:
        network: any module that takes images (B, 3, H, W) and returns logits (B, K, h, w), or a
            sequence or mapping with them; it is kept inside the result, as `network`.
        at: name of one of its submodules, as in `network.named_modules()`.
        ga: option of model/ga.
        ld: option of model/ld.
        channels: width of GA and LD; None is that of the place. Another one adds a convolution
            before and one after them, which starts with zeros.

    Returns:
        a module that takes and returns what the network does. With `ga="none", ld="none"` and the
        place's width its results are equal, bit by bit.

    Raises:
        ValueError: there is no such option or place, or the logits do not depend on that place.
    """
    from gald.model import build

    return build.plug(network, at, ga, ld, channels)


def ga(option: str, channels: int, **arguments: "Any") -> "nn.Module":
    """Build one global aggregation: `gald.ga("psp", channels=512)`.

    Args:
        option: option of model/ga; `docs/modules.md` lists them.
        channels: width C of the feature map.
        arguments: those of its class instead of the values in conf/model/ga.

    Returns:
        a module; x (B, C, h, w) gives the context, of the same shape and dtype.

    Raises:
        ValueError: there is no such option, argument or combination.
    """
    from gald.model import build

    return build.context_module("ga", option, channels, arguments)


def ld(option: str, channels: int, **arguments: "Any") -> "nn.Module":
    """Build one local distribution: `gald.ld("affinity", channels=512)`.

    Args:
        option: option of model/ld.
        channels: width C of the feature maps.
        arguments: those of its class instead of the values in conf/model/ld.

    Returns:
        a module; `ld(context, x)`, both (B, C, h, w), gives the same shape and dtype.
        `ld.distribution_map(context, x)`, where an LD has one, is in [0, 1].

    Raises:
        ValueError: there is no such option, argument or combination.
    """
    from gald.model import build

    return build.context_module("ld", option, channels, arguments)
