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
    _check_class(host)
    if host._target_ == _TRANSFORMERS and host.get("weights") is not None:
        folder = {k: v for k, v in read_config(host.weights).items() if k[:1] != "_"}
        own = cast(dict[str, Any], OmegaConf.to_container(host.config, resolve=True))
        kinds = folder.get("model_type"), own.get("model_type")
        if kinds[0] != kinds[1]:
            raise ValueError(
                f"{host.weights}/config.json has model_type {kinds[0]!r}, but "
                f"model.host.config.model_type is {kinds[1]!r}; set "
                f"model.host.config.model_type={kinds[0]}, or choose other model.host.weights"
            )
        OmegaConf.update(model, "host.config", folder | own, merge=False, force_add=True)
    if model.channels is not None and model.at is not None:
        return
    found, at, name = _probed(_plain(host), model.at, False)
    place = place_of(found.places, model.at or at, name)
    model.at = model.at or at
    if model.channels is None:
        model.channels = place.channels


def places_of(host: DictConfig) -> tuple[dict[str, Place], str | None, str]:
    """Return the places of a host by name, its own choice, and its name.

    Raises:
        ValueError: the host cannot be built or probed.
    """
    _check_class(host)
    found, at, name = _probed(_plain(host), None, True)
    return found.places, at, name


def _check_class(host: Any) -> None:
    if host is None or OmegaConf.is_missing(host, "_target_"):
        raise ValueError(
            "model.host._target_ must be set; give the dotted path of your network's class, as "
            "model.host._target_=my_package.MyNet, or choose model/host=unet"
        )


def _plain(host: DictConfig) -> str:
    """Return the config of a host as a key for the cache, checked."""
    plain = cast(dict[str, Any], OmegaConf.to_container(host, resolve=True))
    check_part(plain, "model.host")
    if "weights" in plain:
        plain["weights"] = None  # they change no shape, and may be large
    return json.dumps(plain, sort_keys=True)


@functools.lru_cache(maxsize=64)
def _probed(text: str, at: str | None, all_places: bool) -> tuple[Probe, str | None, str]:
    """Probe the host of a config, by shapes alone if the host allows it."""
    make = build_own(json.loads(text) | {"_partial_": True})
    try:
        with torch.device("meta"):
            return _probe(make, at, all_places)
    except (ValueError, NotImplementedError, RuntimeError):  # some networks read values
        return _probe(make, at, all_places)


def _probe(make: Any, at: str | None, all_places: bool) -> tuple[Probe, str | None, str]:
    try:
        host = make(num_classes=2)
    except TypeError as error:
        raise ValueError(
            f"model.host cannot be built with num_classes ({error}); its class must take "
            "num_classes, and other arguments as +model.host.NAME=VALUE"
        ) from error
    name, own = name_of(host), getattr(host, "at", None)
    wanted = None if all_places else at or own
    found = probe(network_of(host), lambda image: logits_of(host(image)).logits, name, wanted)
    return found, own, name
