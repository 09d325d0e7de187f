"""Features of many channels as colours that can be compared."""

from collections.abc import Sequence

import numpy as np
import torch

from gald.viz.network_view import NetworkView


def distinct_features(view: NetworkView) -> tuple[list[str], list[torch.Tensor]]:
    """The maps at the slots' ends, in the order of the pass; equal ones once, with all names."""
    slots = ["ga/input", "ga/output", "ld/context", "ld/x", "ld/output"]
    names: list[str] = []
    found: list[torch.Tensor] = []
    for slot in slots:
        values = view.maps[slot].values
        same = next((i for i, f in enumerate(found) if torch.equal(f, values)), None)
        if same is None:
            names.append(slot)
            found.append(values)
        else:
            names[same] += f" = {slot}"
    return names, found


def common_colours(
    features: Sequence[np.ndarray],
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features (C, h, w) as RGB in [0, 1] by the principal components of all cells of all.

    Returns:
        (h, w, 3) each, from the 1st to the 99th percentile; and the first component (h, w) of each.
    """
    cells = np.concatenate([f.reshape(len(f), -1).T for f in features]).astype(np.float64)
    centre = cells.mean(0)
    _, _, axes = np.linalg.svd(np.cov(cells - centre, rowvar=False))
    axes = axes[:3]
    axes *= np.sign(axes[np.arange(3), np.abs(axes).argmax(1)])[:, None]  # or the sign is chance
    projected = [np.tensordot(axes, f - centre[:, None, None], 1) for f in features]
    low, high = np.quantile((cells - centre) @ axes.T, [0.01, 0.99], axis=0)
    scale = np.maximum(high - low, 1e-12)
    rgb = [np.clip((p.transpose(1, 2, 0) - low) / scale, 0, 1) for p in projected]
    return rgb, [p[0] for p in projected]
