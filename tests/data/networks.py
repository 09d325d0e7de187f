"""Saved networks with random weights, in place of trained ones."""

import torch
from omegaconf import OmegaConf
from torch import nn

from gald.config import compose
from gald.prediction.predictor import Predictor

CLASSES = ("road", "sky", "tree")
PALETTE = ((128, 64, 128), (70, 130, 180), (107, 142, 35))
TINY = ["model.channels=16", "model.backbone.name=test_resnet"]


def make(folder, *overrides):
    """Save a network with random weights, none of them 0 or 1, which could hide a mistake."""
    config = OmegaConf.to_container(compose("model/gald", [*TINY, *overrides]), resolve=True)
    config["inference"] = {"_target_": "gald.inference.whole.FullImage", "align_corners": False}
    torch.manual_seed(0)
    predictor = Predictor(config, CLASSES, PALETTE)
    with torch.no_grad():
        for module in predictor.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
        for parameter in predictor.parameters():
            if parameter.ndim <= 1 and not parameter.any():  # a branch with an initial weight of 0
                parameter.uniform_(0.2, 0.5)
    predictor.save_pretrained(folder)
    return folder
