"""Parts of the page of `gald serve`: facts, legend, and pictures that answer to the pointer.

`serve_view.js` and `serve_view.css` beside this file are the rest: the opacity of the colours, the
label under the pointer, and the buttons work in the browser, so the server keeps no picture.
"""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gald.painting import Palette, viridis
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, part_name
from gald.run.checkpoint import WEIGHTS
from gald.run.provenance import sha256
from gald.run.results import SPLITS, read_results
from gald.run.slots import options
from gald.run.trunk import trunk_key, trunk_name

LONGEST_SIDE = 1600  # of a picture on the page; a larger one is shown smaller
_HERE = Path(__file__).parent
_COLOURS = viridis(np.arange(256, dtype=np.float32)[None])[0]  # (256, 3) uint8


def script() -> str:
    """Return the page's script, for the head of the page."""
    code = (_HERE / "serve_view.js").read_text(encoding="utf-8")
    return f"<script>{code.replace('SCALE_COLOURS', json.dumps(_COLOURS.tolist()))}</script>"


def style() -> str:
    """Return the page's style sheet."""
    code = (_HERE / "serve_view.css").read_text(encoding="utf-8")
    stops = ", ".join(_rgb(_COLOURS[index]) for index in range(0, 256, 15))
    return code.replace("SCALE_STOPS", stops)


def about(predictor: Predictor, weights: Path | None) -> str:
    """Return what network this is: data, scores, modules, size.

    Args:
        predictor: the network.
        weights: its file; scores are shown if the results beside it are of exactly this file.
    """
    model = predictor.config["model"]
    data = data_title(predictor)
    count = sum(parameter.numel() for parameter in predictor.parameters())
    rows = {
        "Data": f"{data + ', ' if data else ''}{len(predictor.class_names)} classes",
        "mIoU": ", ".join(f"{100 * score:.1f}% on {split}" for split, score in _miou(weights)),
        "Global aggregation": part_name(model["ga"]),
        "Local distribution": part_name(model["ld"]),
        "Host" if trunk_key(model) == "host" else "Backbone": trunk_name(model),
        "Parameters": f"{count / 1e6:.1f} million",
        "Crops in training": _crops(predictor.config.get("data")),
    }
    rows["mIoU"] = rows["mIoU"] or "not evaluated"
    parts = (f"<div><dt>{k}</dt><dd>{escape(v)}</dd></div>" for k, v in rows.items() if v)
    return f'<dl class="gald-about">{"".join(parts)}</dl>'


def _crops(data: object) -> str:
    """Return the size of the crops in training, in pixels; empty if it is not known."""
    transform = data.get("train_transform") if isinstance(data, dict) else None
    size = transform.get("crop_size") if isinstance(transform, dict) else None
    known = isinstance(size, list) and len(size) == 2
    return f"{size[1]}x{size[0]} pixels" if known else ""


def data_title(predictor: Predictor) -> str:
    """Return the title of the data that a network was trained on; empty if it is not known."""
    config = predictor.config.get("data")
    target = config.get("_target_") if isinstance(config, dict) else None
    for cls in options("data"):
        if f"{cls.__module__}.{cls.__name__}" == target:
            return str(getattr(getattr(cls, "dataset_class", None), "title", ""))
    return ""


def _miou(weights: Path | None) -> list[tuple[str, float]]:
    """Return the mIoU of each split, test first, from the results of exactly these weights."""
    if weights is None:
        return []
    folder = weights.parent if weights.name == WEIGHTS else weights.parent.parent
    try:
        results, digest = read_results(folder / "results.json"), sha256(weights)
    except (OSError, ValueError):
        return []
    found = []
    for split in reversed(SPLITS):
        score, receipt = results.get(f"{split}/miou"), results.get(f"{split}/receipt", {})
        if score is not None and receipt.get("checkpoint_sha256") == digest:
            found.append((split, score))
    return found


def legend(names: Sequence[str], palette: Palette) -> str:
    """Return the colour of every class."""
    items = (
        f'<li><span class="gald-colour" style="background:{_rgb(colour)}"></span>'
        f"{escape(name)}</li>"
        for name, colour in zip(names, palette, strict=True)
    )
    return f'<ul class="gald-legend" aria-label="Colours of the classes">{"".join(items)}</ul>'


def overlay_view(prediction: Prediction) -> str:
    """Return the picture under the colours of its classes, with its controls."""
    height, width = prediction.labels.shape
    size = _shown_size(width, height)
    shares = sorted(prediction.shares().items(), key=lambda item: -item[1])
    largest = ", ".join(f"{name} {share:.0%}" for name, share in shares[:5] if share)
    labels = cv2.resize(prediction.labels, size, interpolation=cv2.INTER_NEAREST)
    ids = {
        "names": json.dumps(prediction.class_names),
        "colours": json.dumps(prediction.palette),
        "labels": _data(Image.fromarray(labels)),
    }
    values = " ".join(f'data-{key}="{escape(value)}"' for key, value in ids.items())
    smaller = "" if size == (width, height) else f", shown at {size[0]}x{size[1]}"
    full = _data(prediction.palette_image())
    return (
        f'<figure class="gald-view" {values}><div class="gald-stack">'
        f'<img src="{_photo(prediction.image, size)}" alt="The picture that was segmented">'
        f'<canvas role="img" aria-label="Classes of the picture: {escape(largest)}"></canvas>'
        '<span class="gald-tip" hidden></span></div><figcaption>'
        '<label class="gald-opacity">Opacity of the colours '
        '<input type="range" min="0" max="100" value="60"></label>'
        '<span class="gald-buttons"><button type="button" data-do="overlay">Save overlay</button>'
        f'<a role="button" download="classes.png" href="{full}">Save class ids</a>'
        '<button type="button" data-do="full">Full screen</button></span>'
        f"<p>{width}x{height} pixels{smaller}. "
        "Point at a pixel to read its class and confidence.</p>"
        "</figcaption></figure>"
    )


def map_view(values: np.ndarray, title: str, low: float, high: float) -> str:
    """Return a map in colours with its scale.

    Args:
        values: (H, W), from `low` to `high`.
        title: what a value means, in words.
        low: value of the darkest colour.
        high: value of the brightest colour.
    """
    size = _shown_size(values.shape[1], values.shape[0])
    known = np.nan_to_num(values.astype(np.float32), nan=low)
    small = cv2.resize(known, size, interpolation=cv2.INTER_AREA)
    grey = ((small - low) / max(high - low, 1e-12) * 255).round().clip(0, 255).astype(np.uint8)
    image = Image.fromarray(grey)
    image.putpalette(_COLOURS.tobytes())
    ends = f"{low:.2f}", f"{high:.2f}"
    if ends[0] == ends[1]:
        ends = f"{low:.3g}", f"{high:.3g}"
    words = f"{title}: from {ends[0]} (dark) to {ends[1]} (bright)"
    return (
        f'<figure class="gald-map" data-low="{low:.6g}" data-high="{high:.6g}">'
        f'<div class="gald-stack"><img src="{_data(image)}" alt="{escape(words)}">'
        f'<span class="gald-tip" hidden></span></div><figcaption>{escape(title)}'
        f'<span class="gald-scale"><b>{ends[0]}</b><i></i><b>{ends[1]}</b></span>'
        "</figcaption></figure>"
    )


def _shown_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of a picture on the page."""
    factor = min(1.0, LONGEST_SIDE / max(width, height))
    return max(1, round(width * factor)), max(1, round(height * factor))


def _photo(pixels: np.ndarray, size: tuple[int, int]) -> str:
    image = Image.fromarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA))
    return _data(image, "jpeg", quality=92)


def _data(image: Image.Image, kind: str = "png", **settings: int) -> str:
    """Return an image as the URL of its content."""
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _rgb(colour: Sequence[int] | np.ndarray) -> str:
    return "rgb({}, {}, {})".format(*colour)
