"""Networks of transformers: SegFormer, UPerNet, MobileViT and others."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from torch import Tensor, nn
from typing_extensions import override

from gald.install.extras import require

# Keys of a config that would fetch something, or call code that is not of the library.
_REFUSED = ("auto_map", "trust_remote_code", "use_pretrained_backbone", "backbone")
_COUNTS = ("depth", "layers", "blocks")  # words of keys that count layers
_MOST_LAYERS, _MOST_WIDTH = 512, 65536
_HEADS = ("classifier", "decode_head", "segmentation_head", "auxiliary_head", "head", "neck")


class TransformersHost(nn.Module):
    """Network of transformers with the head `ForSemanticSegmentation`.

    Library: https://github.com/huggingface/transformers, Apache licence 2.0.

    Args:
        config: content of the network's `config.json`; `model_type` is its kind, as `segformer`,
            and what is left out has the library's default.
        num_classes: number of classes.
        weights: null for random weights, or a local folder with `config.json` and
            `model.safetensors`; the config of the folder is the one to use, and `config` may change
            nothing of it that tensors depend on. Layers of the head may be of other classes; all
            others must fit. Nothing is downloaded.

    Raises:
        ValueError: there is no such kind of network, its config names code or files to fetch, or
            the weights do not fit.
        FileNotFoundError: there are no weights in the folder.
        MissingExtra: the package is not installed.
    """

    def __init__(
        self, config: Mapping[str, Any], num_classes: int, weights: str | None = None
    ) -> None:
        super().__init__()
        require("a host of transformers", "transformers")
        from transformers import AutoConfig, AutoModelForSemanticSegmentation
        from transformers.models.auto.modeling_auto import (
            MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
        )

        if OmegaConf.is_config(config):
            config = cast(dict[str, Any], OmegaConf.to_container(cast(Any, config), resolve=True))
        known = tuple(MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES)
        kind = config.get("model_type")
        if kind not in known:
            raise ValueError(
                f"model.host.config.model_type is {kind!r}; choose one of {', '.join(known)}"
            )
        refuse_fetching(config)
        self.name = f"{kind} of transformers"
        self.random = weights is None
        plain = dict(config)
        for key in ("num_labels", "id2label", "label2id", "architectures"):
            plain.pop(key, None)
        plain.pop("model_type")
        settings = AutoConfig.for_model(kind, **plain, num_labels=num_classes)
        try:
            if weights is None:
                self.network: Any = AutoModelForSemanticSegmentation.from_config(settings)
            else:
                self.network = _trained(AutoModelForSemanticSegmentation, settings, weights)
        except (TypeError, AttributeError, KeyError, ImportError) as error:
            raise ValueError(
                f"transformers does not build {kind} from model.host.config ({error}); correct it"
            ) from error
        self.at = "backbone" if hasattr(self.network, "backbone") else str(kind)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.network(image).logits}


def read_config(folder: str) -> dict[str, Any]:
    """Read the config of a local folder as plain data.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    path = Path(folder).expanduser() / "config.json"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is not there; set model.host.weights to a local folder with config.json and "
            "model.safetensors, or null"
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); copy it again from its source") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no mapping; copy it again from its source")
    return content


def refuse_fetching(config: Mapping[str, Any], place: str = "model.host.config") -> None:
    """Refuse a config that names code to run, weights to fetch, or a huge network, at any depth."""
    for key, value in config.items():
        most = _MOST_LAYERS if any(word in key for word in _COUNTS) else _MOST_WIDTH
        for number in value if isinstance(value, list | tuple) else (value,):
            if isinstance(number, int) and number > most:
                raise ValueError(
                    f"{place}.{key} is {number}, and at most {most} is taken; choose a smaller one"
                )
        if key in _REFUSED and value:
            raise ValueError(
                f"{place}.{key} is {value!r}, by which transformers would fetch or run something; "
                "remove it, and describe the backbone in backbone_config"
            )
        if isinstance(value, Mapping):
            refuse_fetching(value, f"{place}.{key}")


def _trained(auto: Any, settings: Any, folder: str) -> nn.Module:
    path = Path(folder).expanduser()
    if not (path / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{path / 'model.safetensors'} is not there; set model.host.weights to a local folder "
            "with config.json and model.safetensors, or null"
        )
    network, facts = auto.from_pretrained(
        path,
        config=settings,
        local_files_only=True,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )
    left = [*facts["missing_keys"], *(key for key, *_ in facts["mismatched_keys"])]
    wrong = [key for key in left if key.split(".")[0] not in _HEADS]
    if wrong:
        raise ValueError(
            f"{path} has no weights that fit {wrong[0]}"
            + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")
            + "; set model.host.weights to a folder of the same network, or null"
        )
    return network
