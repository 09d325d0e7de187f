"""Colours for features of many channels, comparable between maps."""

from collections.abc import Sequence

import numpy as np
import torch

from gald.viz.network_view import NetworkView


def distinct_features(view: NetworkView) -> tuple[list[str], list[torch.Tensor]]:
    """Return names and values of the slots' inputs and outputs, equal maps once with all names."""
    names: list[str] = []
    features: list[torch.Tensor] = []
    for name in ["ga/input", "ga/output", "ld/context", "ld/x", "ld/output"]:
        values = view.maps[name].values
        same = next((i for i, f in enumerate(features) if torch.equal(f, values)), None)
        if same is None:
            names.append(name)
            features.append(values)
        else:
            names[same] += f" = {name}"
    return names, features


def common_colours(
    features: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Colour features (C, h, w) by the principal components of the cells of all maps together.

    Returns:
        RGB (h, w, 3) in [0, 1] for each map, scaled from the 1st to the 99th percentile; and the
        first component (h, w) of each map.
    """
    cells = np.concatenate([f.reshape(len(f), -1).T for f in features]).astype(np.float64)
    centre = cells.mean(0)
    _, _, axes = np.linalg.svd(np.cov(cells - centre, rowvar=False))
    axes = axes[:3]
    # The sign of a component is arbitrary; this makes its largest coefficient positive.
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]
    projected = [np.tensordot(axes, f - centre[:, None, None], 1) for f in features]
    low, high = np.quantile((cells - centre) @ axes.T, [0.01, 0.99], axis=0)
    scale = np.maximum(high - low, 1e-12)
    rgb = [np.clip((p.transpose(1, 2, 0) - low) / scale, 0, 1) for p in projected]
    return rgb, [p[0] for p in projected]
