"""A trained network ready to use: `gald.load("runs/mine").predict("street.jpg").overlay()`."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from omegaconf import MISSING, OmegaConf
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from gald.errors import disk_remedy
from gald.inference.ld_map import ld_map as ld_map_of
from gald.model.network import Network
from gald.painting import Palette
from gald.prediction.image import ImageLike, to_tensor
from gald.prediction.prediction import Prediction
from gald.run.atomic import new_folder
from gald.run.building import build, build_own, check, check_network, own_paths
from gald.run.checkpoint import (
    CHECKSUM,
    CONFIG,
    SELF,
    WEIGHTS,
    config_checksum,
    load_weights,
    read_checkpoint,
)
from gald.run.markdown import as_markdown
from gald.run.plain import plain_data
from gald.run.provenance import digest_tensors, sha256
from gald.run.slots import check_trust
from gald.run.trunk import trunk_key

CARD = """---
{{ card_data }}
---
# {{ title }}

Semantic segmentation into {{ names | length }} classes, with a gald network (global aggregation,
then local distribution).

```python
import gald

prediction = gald.load("OWNER/NAME").predict("street.jpg")
prediction.overlay().save("overlay.png")
```

| id | class | colour |
|---|---|---|
{% for name, colour in names %}| {{ loop.index0 }} | {{ name }} | {{ colour }} |
{% endfor %}
Modules (full configuration in `config.json`):

{% for module in modules %}- {{ module }}
{% endfor %}
## Licence

No licence is stated. The publisher of this network chooses one that the terms of the training data
allow, and writes it here and as `license:` in the first lines of this file.
"""


class Predictor(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="gald",
    pipeline_tag="image-segmentation",
    model_card_template=CARD,
):
    """Network with everything needed to use it: inference, class names and colours.

    The constructor builds it from plain data with random weights; `gald.load` loads trained ones.

    Args:
        config: resolved configuration of the run, plain data; its `model` and `inference` are
            built, see `gald.run.building`.
        class_names: names of the K classes.
        palette: K colours.
        trust: packages with classes that the config may name too.
        file: where the config is from, for messages.

    Shape:
        image (B, 3, H, W), uint8 or float in [0, 1] -> scores (B, K, H, W)

    Raises:
        ValueError: the config misses a part, is not plain data or names code outside gald, or the
            numbers of colours and classes differ.
    """

    def __init__(
        self,
        config: dict[str, Any],
        class_names: Sequence[str],
        palette: Sequence[Sequence[int]],
        trust: Sequence[str] = (),
        file: str = "the network's config",
    ) -> None:
        super().__init__()
        _check_parts(config, file)
        if len(class_names) != len(palette):
            raise ValueError(
                f"the network has {len(class_names)} class names but {len(palette)} colours; "
                "copy the config again from its source"
            )
        self.class_names = tuple(class_names)
        self.palette: Palette = tuple((red, green, blue) for red, green, blue in palette)
        trust = check_trust(trust)
        self.config: dict[str, Any] = plain_data(config, file)
        self.config["model"] = own_paths("model", self.config["model"], file)
        check("inference", self.config["inference"], file, trust)  # before the network is built
        self.model: Network = build(
            "model", self.config["model"], file, trust, num_classes=len(self.class_names)
        )
        self.inference = build("inference", self.config["inference"], file, trust)
        self.eval()

    @classmethod
    def from_pretrained(  # ty: ignore
        cls, path: str | Path, trust: str | Sequence[str] = ()
    ) -> "Predictor":
        """Load a network from a run, a checkpoint, a saved folder, the zoo or the hub.

        Args:
            path: as in `gald.run.checkpoint.find_checkpoint`.
            trust: packages of your own with classes that the checkpoint may name; none by default.

        Raises:
            FileNotFoundError: there is no checkpoint.
            ValueError: the checkpoint is damaged, its weights and config do not match, or it would
                call code that is neither of gald nor of a trusted package.
        """
        checkpoint = read_checkpoint(path)
        config, names, file = checkpoint.config, checkpoint.class_names, str(checkpoint.config_file)
        trust = check_trust(trust)
        _check_parts(config, file)
        check("inference", config["inference"], file, trust)
        check_network(checkpoint, trust)
        predictor = cls(config, names, checkpoint.palette, trust, file)
        load_weights(predictor.model, checkpoint)
        return predictor

    def forward(self, image: Tensor) -> Tensor:
        """Return class scores at the image's size, with the inference used in validation."""
        return self.inference(self.model, image)

    def set_inference(self, inference: Any) -> None:
        """Replace the inference by one of the user.

        Args:
            inference: config of an inference, which may refer to `model.align_corners`. It is not
                checked: never pass one that a file holds, see `read_inference`.
        """
        whole = OmegaConf.create({"model": self.config["model"], "inference": inference})
        self.config["inference"] = OmegaConf.to_container(whole.inference, resolve=True)
        self.inference = build_own(whole.inference)

    def read_inference(
        self, inference: Any, file: str | Path, trust: str | Sequence[str] = ()
    ) -> None:
        """Replace the inference by one that a file holds, such as a receipt.

        Raises:
            ValueError: as in `gald.run.building.build`.
        """
        trust = check_trust(trust)
        self.inference = build("inference", inference, file, trust)
        self.config["inference"] = check("inference", inference, file, trust)

    def fingerprint(self) -> str:
        """Return a SHA-256 of everything predictions depend on: weights, config and palette."""
        digest = hashlib.sha256()
        digest_tensors(digest, self.state_dict())
        parts = [self.config["model"], self.config["inference"], self.palette]
        digest.update(json.dumps(parts, sort_keys=True).encode())
        return digest.hexdigest()

    def predict(self, image: ImageLike, confidence: bool = True, ld_map: bool = True) -> Prediction:
        """Predict one image.

        Args:
            image: a file, PIL image, array or tensor; see `gald.prediction.image.to_tensor`.
            confidence: also return the probability of the predicted class.
            ld_map: also return the map of local distribution. This costs one more pass over the
                whole image, at the scale of the inference nearest to 1.
        """
        pixels = to_tensor(image)
        on_device = pixels.to(next(self.parameters()).device)
        with torch.inference_mode():
            labels, probability = self.inference.predict(self.model, on_device[None], confidence)
            ld_values = ld_map_of(self.model, on_device, self.inference) if ld_map else None
        return Prediction(
            image=pixels.permute(1, 2, 0).cpu().numpy(),
            labels=labels[0].cpu().numpy(),
            confidence=None if probability is None else probability[0].cpu().numpy(),
            ld_map=None if ld_values is None else ld_values.cpu().numpy(),
            class_names=self.class_names,
            palette=self.palette,
        )

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write weights (safetensors), config and model card to a folder.

        The folder appears complete or not at all. `push_to_hub("OWNER/NAME")` publishes the same
        files.

        Args:
            save_directory: must be empty or must not exist.
            options: as in `huggingface_hub.ModelHubMixin.save_pretrained`.

        Raises:
            ValueError: the folder is not empty.
            OSError: the disk is full or cannot be written; no partial folder remains.
        """
        folder = Path(save_directory).expanduser().absolute()
        try:
            with new_folder(folder) as partial:
                return super().save_pretrained(partial, **options)
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OSError(
                f"cannot write {folder} ({reason}); {disk_remedy(error)} and try again, nothing "
                "was left there"
            ) from error

    def _save_pretrained(self, save_directory: Path) -> None:
        self.write_files(save_directory, self.state_dict())

    def write_files(self, save_directory: Path, state: Mapping[str, Tensor]) -> None:
        """Write weights and config into an existing folder, without a model card.

        Args:
            save_directory: the folder.
            state: the weights to write, for example rounded ones, by the keys of `state_dict`.
        """
        config = without_local_paths(self.config)
        layout = torch.contiguous_format  # safetensors stores no other layout
        weights = {k: v.cpu().clone(memory_format=layout) for k, v in state.items()}
        save_file(weights, save_directory / WEIGHTS, metadata={"format": "pt"})
        about = {"config": config, "class_names": self.class_names, "palette": self.palette}
        about[CHECKSUM] = sha256(save_directory / WEIGHTS)
        about[SELF] = config_checksum(about)
        text = json.dumps(about, indent=2, ensure_ascii=False)
        (save_directory / CONFIG).write_text(text + "\n", encoding="utf-8")

    def generate_model_card(self, **options: Any) -> ModelCard:
        """Return the README.md of a published network: its classes and modules."""
        return super().generate_model_card(
            title=as_markdown(str(self.config.get("name", "gald"))),
            names=list(zip(map(as_markdown, self.class_names), self.palette, strict=True)),
            modules=[as_markdown(name) for name in module_names(self.config)],
            **options,
        )


def load(path: str | Path, trust: str | Sequence[str] = ()) -> Predictor:
    """Load a trained network by path, name or hub id; see `Predictor.from_pretrained`."""
    return Predictor.from_pretrained(path, trust)


def _check_parts(config: dict[str, Any], file: str) -> None:
    missing = [key for key in ("model", "inference") if key not in config]
    if not missing and trunk_key(config["model"] or {}) is None:
        missing = ["model.backbone"]
    if missing:
        raise ValueError(
            f"{file}: its config has no {missing[0]}; copy the file again from its source"
        )


def without_local_paths(config: Any) -> Any:
    """Replace absolute paths of this machine by OmegaConf's marker of a missing value."""
    if isinstance(config, dict):
        return {key: without_local_paths(value) for key, value in config.items()}
    if isinstance(config, list):
        return [without_local_paths(value) for value in config]
    return MISSING if isinstance(config, str) and Path(config).is_absolute() else config


def module_names(config: dict[str, Any]) -> list[str]:
    """List the parts with their class names, as `ga: CGNL`."""
    parts = {**config["model"], "inference": config["inference"], "data": config.get("data")}
    return [
        f"{slot}: {part_name(part)}"
        for slot, part in parts.items()
        if isinstance(part, dict) and "_target_" in part
    ]


def part_name(part: dict[str, Any]) -> str:
    """Return the class of a part, with the class inside a wrapper; `none` for an empty slot."""
    name = str(part["_target_"]).rpartition(".")[2]
    if name in ("Identity", "NoDistribution"):
        return "none"
    inner = part.get("module")
    return f"{name}({part_name(inner)})" if isinstance(inner, dict) else name
