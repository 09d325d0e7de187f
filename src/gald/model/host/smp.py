"""Networks of segmentation_models_pytorch: every decoder on every encoder."""

import difflib
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn
from typing_extensions import override

from gald.install.extras import require
from gald.model.host.weights import load_into


class SmpHost(nn.Module):
    """Network of segmentation_models_pytorch, a library of decoders on pre-trained encoders.

    Library: https://github.com/qubvel-org/segmentation_models.pytorch, MIT licence.

    Args:
        decoder: name of the architecture in `segmentation_models_pytorch.create_model`, as `unet`,
            `fpn`, `deeplabv3plus`, `upernet`, `segformer` or `dpt`.
        encoder: name of the encoder, as `resnet18`, or `tu-NAME` for the model NAME of timm. Images
            are normalised as timm does for NAME, and as for ImageNet with the library's own ones.
        num_classes: number of classes.
        weights: weights of the encoder: null for random ones, `imagenet` for those of the library's
            hub, or a file of `encoder.state_dict()`.
        options: further arguments of the architecture, as `decoder_channels`.

    Raises:
        ValueError: there is no such decoder or encoder, or it refuses the options.
        FileNotFoundError: the weights are not there, or the hub cannot be reached.
        MissingExtra: the package is not installed.
    """

    def __init__(
        self,
        decoder: str,
        encoder: str,
        num_classes: int,
        weights: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        require("a host of segmentation_models_pytorch", "smp")
        import segmentation_models_pytorch as smp

        if ":" in encoder or "/" in encoder:
            raise ValueError(
                f"model.host.encoder is {encoder!r}, which would be looked up on a hub or in a "
                "folder each time the network is loaded; set model.host.encoder to a name such as "
                "resnet18 or tu-convnext_tiny, and model.host.weights to a file"
            )
        if decoder not in smp.MODEL_ARCHITECTURES_MAPPING:
            known = sorted(smp.MODEL_ARCHITECTURES_MAPPING)
            near = difflib.get_close_matches(decoder, known, 1)
            raise ValueError(
                f"segmentation_models_pytorch has no decoder {decoder!r}; choose model.host.decoder"
                f"={near[0] if near else 'unet'}, of {', '.join(known)}"
            )
        self.name = f"{decoder} on {encoder}"
        self.random = weights is None
        hub = weights if weights == "imagenet" else None
        try:
            self.network: Any = smp.create_model(
                decoder,
                encoder_name=encoder,
                encoder_weights=hub,
                classes=num_classes,
                **(options or {}),
            )
        except OSError as error:
            raise FileNotFoundError(
                f"cannot download the weights of {encoder}; connect to the network, or set "
                "model.host.weights to a file or null"
            ) from error
        except Exception as error:  # of any type: the library has no common one
            reason = " ".join(str(error).split())[:160] or type(error).__name__
            raise ValueError(
                f"segmentation_models_pytorch does not build {decoder} on {encoder} ({reason}); "
                "choose another model.host.encoder or other model.host.options"
            ) from error
        self.at = _deepest(self.network) if decoder == "dpt" else "encoder"
        if weights not in (None, "imagenet"):
            load_into(self.network.encoder, str(weights), self.name)
        config = timm_config(encoder)
        if config is not None:
            self.mean, self.std = tuple(config.mean), tuple(config.std)

    @override
    def forward(self, image: Tensor) -> Tensor:
        return self.network(image)


def timm_config(encoder: str) -> Any:
    """Return timm's facts about the weights of an encoder `tu-NAME`, or None."""
    name = encoder.removeprefix("tu-")
    if name == encoder or not timm.is_model(name):
        return None
    return timm.get_pretrained_cfg(name, allow_unregistered=False)


def _deepest(network: Any) -> str:
    """Return the last block of a DPT's encoder, because the encoder itself returns no map."""
    blocks = getattr(network.encoder.model, "blocks", ())
    return f"encoder.model.blocks.{len(blocks) - 1}" if len(blocks) else "decoder"
