"""Saving of a network view: figures, and maps with their provenance."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from gald.painting import to_png
from gald.prediction.predictor import Predictor
from gald.run.checksum import seal
from gald.run.provenance import commit, sha256, versions
from gald.viz import figures
from gald.viz.network_view import NetworkView

MAPS = "maps.npz"


def provenance(network: Predictor, checkpoint: Path, image: Path) -> dict[str, Any]:
    """Return names and sha256 of checkpoint and image, the model's config, and versions."""
    return {
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": sha256(checkpoint),
        "image": image.name,
        "image_sha256": sha256(image),
        "model": network.config["model"],
        "class_names": network.class_names,
        "commit": commit(),
        **versions(),
    }


def save_view(folder: Path, view: NetworkView, about: dict[str, Any]) -> None:
    """Write `maps.npz` and the figures of a view into a folder.

    The npz contains every recorded map under its name, (C, h, w) float32; `labels` and, with an LD,
    `labels_without_ld` and `ld_map`, (H, W); `queries` (Q, 2) as X, Y; `attention` (Q, h, w); and
    `about`, a JSON text with the given `about` and the meaning of each map.
    """
    folder.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {name: part.values[0].numpy() for name, part in view.maps.items()}
    arrays |= {
        "labels": view.labels,
        "queries": np.array(view.queries),
        "attention": np.stack([part.values[0, 0].numpy() for part in view.attention]),
    }
    meanings: dict[str, Any] = {
        name: {"shape": part.shape[1:], "stride": part.stride, "meaning": part.meaning}
        for name, part in view.maps.items()
    }
    meanings["attention"] = {
        "queries": view.queries,
        "stride": view.attention[0].stride,
        "meaning": [part.meaning for part in view.attention],
    }
    optional = {"labels_without_ld": view.labels_without_ld, "ld_map": view.ld}
    arrays |= {name: part for name, part in optional.items() if part is not None}
    text = json.dumps(about | {"maps": meanings}, ensure_ascii=False)
    content = io.BytesIO()
    np.savez_compressed(content, about=np.array(text), allow_pickle=False, **arrays)
    seal(content)
    (folder / MAPS).write_bytes(content.getbuffer())
    drawings = {
        "prediction": figures.prediction_figure,
        "attention": figures.attention_figure,
        "features": figures.features_figure,
    }
    if view.ld is not None:
        drawings |= {
            "ld_map": figures.ld_figure,
            "ld_groups": figures.groups_figure,
            "ld_classes": figures.classes_figure,
        }
    for name, draw in drawings.items():
        (folder / f"{name}.png").write_bytes(to_png(draw(view)))
