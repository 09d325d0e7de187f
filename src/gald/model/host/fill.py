"""What a config of `model=plugged` leaves to the host: the place, the width, a folder's config."""

import functools
import json
from typing import Any, cast

import torch
from omegaconf import DictConfig, OmegaConf

from gald.model.host.transformers import TransformersHost, read_config
from gald.model.plug.places import Place, Probe, place_of, probe
from gald.model.plugged import logits_of, name_of, network_of
from gald.options.check import check_part
from gald.run.building import build_own

PLUGGED = "gald.model.plugged.Plugged"
_TRANSFORMERS = f"{TransformersHost.__module__}.{TransformersHost.__qualname__}"


def fill_host(model: DictConfig) -> None:
    """Write what the host decides into a composed config, so that the run's files state it.

    `model.at` becomes the host's own place if it is null, `model.channels` the width of the place,
    and `model.host.config` the config in the folder `model.host.weights`. A config of another model
    stays as it is.

    Args:
        model: the composed config of the user's command, at `model`.

    Raises:
        ValueError: the host cannot be built or probed, or there is no such place.
        FileNotFoundError: there is no config in the folder.
    """
    if model.get("_target_") != PLUGGED:
        return
    host = model.get("host")
    if host is None or OmegaConf.is_missing(host, "_target_"):
        raise ValueError(
            "model.host._target_ must be set; give the dotted path of your network's class, as "
            "model.host._target_=my_package.MyNet, or choose model/host=unet"
        )
    if host._target_ == _TRANSFORMERS and host.get("weights") is not None:
        folder = {k: v for k, v in read_config(host.weights).items() if k[:1] != "_"}
        with_own = folder | cast(dict[str, Any], OmegaConf.to_container(host.config, resolve=True))
        OmegaConf.update(model, "host.config", with_own, merge=False, force_add=True)
    if model.channels is not None and model.at is not None:
        return
    places, at, name = places_of(host)
    place = place_of(places, model.at or at, name)
    model.at = model.at or at
    if model.channels is None:
        model.channels = place.channels


def places_of(host: DictConfig) -> tuple[dict[str, Place], str | None, str]:
    """Return the places of a host by name, its own choice, and its name."""
    plain = cast(dict[str, Any], OmegaConf.to_container(host, resolve=True))
    check_part(plain, "model.host")
    found, at, name = _probed(json.dumps(plain, sort_keys=True))
    return found.places, at, name


@functools.lru_cache(maxsize=64)
def _probed(text: str) -> tuple[Probe, str | None, str]:
    """Probe the host of a config, by shapes alone if the host allows it."""
    config = json.loads(text)
    if "weights" in config:
        config["weights"] = None  # they change no shape, and may be large
    make = build_own(config | {"_partial_": True})
    try:
        with torch.device("meta"):
            return _probe(make)
    except (ValueError, NotImplementedError, RuntimeError):  # some networks read values
        return _probe(make)


def _probe(make: Any) -> tuple[Probe, str | None, str]:
    host = make(num_classes=2)
    name = name_of(host)
    found = probe(network_of(host), lambda image: logits_of(host(image)).logits, name)
    return found, getattr(host, "at", None), name
