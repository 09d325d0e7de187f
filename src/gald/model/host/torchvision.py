"""Networks of torchvision: DeepLabV3, FCN and LR-ASPP."""

import difflib
from typing import Any

from torch import Tensor, nn
from torchvision import models
from typing_extensions import override

from gald.model.host.weights import load_into


class TorchvisionHost(nn.Module):
    """Segmentation network of torchvision.

    Args:
        network: name in `torchvision.models.segmentation`, as `deeplabv3_resnet50`.
        num_classes: number of classes.
        weights: weights of the backbone: null for random ones, `imagenet` for those of
            torchvision's server, or a file of `network.backbone.state_dict()`.
        aux_head: whether there is an auxiliary head; LR-ASPP has none.

    Raises:
        ValueError: there is no such network.
        FileNotFoundError: the weights are not there, or the server cannot be reached.
    """

    def __init__(
        self, network: str, num_classes: int, weights: str | None = None, aux_head: bool = True
    ) -> None:
        super().__init__()
        known = models.list_models(module=models.segmentation)
        if network not in known:
            near = difflib.get_close_matches(network, known, 1)
            raise ValueError(
                f"torchvision has no segmentation network {network!r}; choose model.host.network="
                f"{near[0] if near else known[0]}, of {', '.join(known)}"
            )
        self.name = network
        self.at = "backbone"
        self.random = weights is None
        further: dict[str, Any] = {} if network.startswith("lraspp") else {"aux_loss": aux_head}
        try:
            self.network: Any = models.get_model(
                network,
                weights=None,
                weights_backbone="DEFAULT" if weights == "imagenet" else None,
                num_classes=num_classes,
                **further,
            )
        except OSError as error:
            raise FileNotFoundError(
                f"cannot download the weights of {network}'s backbone; connect to the network, or "
                "set model.host.weights to a file or null"
            ) from error
        if weights not in (None, "imagenet"):
            load_into(self.network.backbone, str(weights), network)

    @override
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return self.network(image)
