"""Words of a command line that another word makes useless."""

import re
import sys

from omegaconf import DictConfig


def refuse_without_effect(cfg: DictConfig) -> None:
    """Refuse words of this command line that change nothing.

    Raises:
        ValueError: an augmentation is chosen but training has no transform, or an option is set of
            a loss that has no weight.
    """
    for word in sys.argv[1:]:
        key = word.lstrip("+").partition("=")[0]
        if key == "augment" and cfg.data.get("train_transform") is None:
            raise ValueError(
                f"{word} has no effect, because data.train_transform is null; leave one of them out"
            )
        part = re.match(r"loss\.main\.losses\.(\w+)\.", key)
        weights = cfg.loss.get("main", {}).get("weights") if part else None
        if part and weights is not None and not weights.get(part[1]):
            raise ValueError(
                f"{word} has no effect, because loss.main.weights.{part[1]} is 0; add "
                f"loss.main.weights.{part[1]}=1"
            )
