"""Model card of a network of the zoo, written from its results and its data."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from gald.data.datamodule import SegmentationDataModule
from gald.prediction.predictor import Predictor, module_names, part_name
from gald.run.building import build_metrics
from gald.run.markdown import as_markdown
from gald.run.results import SPLITS, Results
from gald.run.trunk import trunk_name

CARD = """\
---
library_name: gald
pipeline_tag: image-segmentation
license: {licence}
---
# {name}

Segments images into the {classes} classes of {title}, {ga} and
{ld}, on the backbone {backbone}.

```bash
gald predict {name} street.jpg
gald serve {name}
```

```python
import gald

prediction = gald.load("{name}").predict("street.jpg")
prediction.overlay().save("overlay.png")
```

## Data and licence

Trained on the training split of {source}.

- Licence of the data: {data_licence}.
- Licence of these weights: {licence}.
{start}
## Scores

In percent, over all images of a split, without void pixels; ↓ marks scores where lower is
better. They are the scores of exactly the file `model.safetensors`.

{scores}

{class_scores}

This is one training, with seed {seed}. Another seed or another machine gives other scores.

## Receipt

`results.json` has every score, and the SHA-256 hashes of weights, images, masks and predictions.
The command evaluates the file again and compares every number:

```bash
gald eval --check zoo/{name}/results.json{root}
```

With another processor or version of torch, rounding can change a few pixels; then the command
names the largest difference.

{receipt}

## Half precision

Matrices and kernels are stored in 16 bits, biases and normalisations in 32; the network computes
in 32. The weights of the training, in 32 bits, were evaluated in the same way:

{precision}

## Cost

{params:,} parameters, {megabytes:.1f} MB; {gmacs:.2f} GMACs for one image of {size} pixels.

## Training

```bash
{command}
```

Seed {seed}, {epochs} epochs, {steps} steps, {minutes:.0f} minutes on {device}, with torch {torch},
at commit {commit}.{note}

Modules; `config.json` has all options:

{modules}
"""


class Facts(NamedTuple):
    """What the files of an entry do not say.

    Attributes:
        name: of the entry.
        licence: SPDX identifier of the licence of the weights.
        start: where the weights of the backbone were from; empty for random ones.
        note: a further sentence about the training, or nothing.
    """

    name: str
    licence: str
    start: str
    note: str


def model_card(
    facts: Facts, predictor: Predictor, data: SegmentationDataModule, results: Results
) -> str:
    """Return the card as Markdown.

    Args:
        facts: what the maintainer decides.
        predictor: the network.
        data: the data of its training.
        results: of the entry: scores and receipts of its splits, and facts of the training.
    """
    splits = [split for split in SPLITS if f"{split}/miou" in results]
    dataset, model = data.dataset_class, predictor.config["model"]
    height, width = predictor.config["data"]["train_transform"]["crop_size"]
    has_root = getattr(data, "root", None) is not None
    start = f"\nThe backbone started from the ImageNet weights of {facts.start}.\n"
    return CARD.format(
        name=facts.name,
        licence=facts.licence,
        classes=len(predictor.class_names),
        title=dataset.title,
        ga=_with("global aggregation", model["ga"]),
        ld=_with("local distribution", model["ld"]),
        backbone=as_markdown(trunk_name(model)),
        source=f"{dataset.title}, {dataset.url}" if dataset.url else dataset.title,
        data_licence=dataset.licence or "not stated",
        start=start if facts.start else "",
        scores=_scores(results, splits, predictor.class_names),
        class_scores=_class_scores(results, splits, predictor),
        seed=results["seed"],
        root=f" data.root=/path/to/{dataset.title}" if has_root else "",
        receipt=_receipt(results, splits),
        precision=_precision(results, splits),
        params=results["params"],
        megabytes=results["bytes"] / 1e6,
        gmacs=results["cost/total/gmacs"],
        size=f"{width}x{height}",
        command=results["command"],
        epochs=results["epochs"],
        steps=results["steps"],
        minutes=results["seconds"] / 60,
        device=results["device"],
        torch=results["version/torch"],
        commit=results["commit"],
        note=f" {facts.note}" if facts.note else "",
        modules="\n".join(f"- {as_markdown(one)}" for one in module_names(predictor.config)),
    )


def _with(title: str, part: dict[str, Any]) -> str:
    name = part_name(part)
    return f"without {title}" if name == "none" else f"with {title} by {as_markdown(name)}"


def _scores(results: Results, splits: Sequence[str], names: Sequence[str]) -> str:
    """Table of mIoU, pixel accuracy, and the headline of every other metric."""
    rows = [("**mIoU**", "miou", 100.0), ("pixel accuracy", "accuracy", 100.0)]
    config = results[f"{splits[0]}/receipt"]["metrics"]
    keys = {key.removeprefix(f"{splits[0]}/") for key in results}
    for metric in build_metrics(config, len(names), "results.json"):
        headline = metric.headline(keys, names)
        if headline is not None and headline[0] != "miou":
            unit = "" if metric.unit == "%" else f", {metric.unit}"
            arrow = "" if metric.higher_is_better else " ↓"
            rows.append((f"{headline[1]}{unit}{arrow}", headline[0], metric.factor))
    table = [
        [label, *(_shown(results[f"{split}/{key}"], factor) for split in splits)]
        for label, key, factor in rows
    ]
    return _table(["score", *splits], table)


def _class_scores(results: Results, splits: Sequence[str], predictor: Predictor) -> str:
    rows = [
        [
            str(index),
            as_markdown(name),
            "#{:02x}{:02x}{:02x}".format(*colour),
            *(_shown(results[f"{split}/iou/{name}"]) for split in splits),
        ]
        for index, (name, colour) in enumerate(
            zip(predictor.class_names, predictor.palette, strict=True)
        )
    ]
    return _table(["id", "class", "colour", *(f"IoU, {split}" for split in splits)], rows, 3)


def _receipt(results: Results, splits: Sequence[str]) -> str:
    receipts = {split: results[f"{split}/receipt"] for split in splits}
    one = receipts[splits[0]]
    rows = [["`model.safetensors`", one["checkpoint_sha256"]]]
    rows += [[f"predictions of {s}", receipts[s]["predictions_sha256"]] for s in splits]
    return _table(["", "SHA-256"], rows, 2) + (
        f"\n\nEvaluated on {one['device']} with gald {one['version/gald']}, torch "
        f"{one['version/torch']}, at commit {one['commit']}."
    )


def _precision(results: Results, splits: Sequence[str]) -> str:
    stored = [100 * results[f"{split}/miou"] for split in splits]
    full = [100 * results[f"full_precision/{split}/miou"] for split in splits]
    rows = [
        ["stored weights", *(f"{value:.3f}" for value in stored)],
        ["weights in 32 bits", *(f"{value:.3f}" for value in full)],
        ["difference", *(f"{a - b:+.3f}" for a, b in zip(stored, full, strict=True))],
    ]
    return _table(["mIoU", *splits], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Return a Markdown table; all columns but the first `texts` hold numbers."""
    line = ["---" if place < texts else "---:" for place in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, line, *rows))


def _shown(score: float | None, factor: float = 100) -> str:
    return "absent" if score is None or score != score else f"{factor * score:.1f}"
