"""What two evaluations left behind, and whether they may be compared at all."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gald.metrics.images import ImageCounts

SPLITS = ("val", "test")
# What both receipts must agree on for a number of one to mean the same as that of the other.
SAME = ("data", "label_map", "void", "split_images", "inference")


class JudgedRun(NamedTuple):
    """What one evaluation left.

    Attributes:
        folder: where it lies.
        results: flat keys of results.json.
        images: what every image counted.
        class_counts: hits, true and predicted pixels per image and class (N, 3, K).
        class_names: K names.
    """

    folder: Path
    results: dict[str, Any]
    images: ImageCounts
    class_counts: np.ndarray
    class_names: tuple[str, ...]


def read_pair(folder_a: Path, folder_b: Path, split: str | None) -> tuple[str, list[JudgedRun]]:
    """Read two evaluations of one split, the first that both have unless it is named.

    Raises:
        FileNotFoundError: a folder lacks results or per-image counts.
        ValueError: both are one folder, a file is damaged, or the two were not judged on the same
            images, classes and labels in the same way.
    """
    if folder_a.expanduser().resolve() == folder_b.expanduser().resolve():
        raise ValueError(f"{folder_a} is given twice; give two different evaluations")
    folders = [folder.expanduser() for folder in (folder_a, folder_b)]
    common = [s for s in SPLITS if all(_counts_file(folder, s).is_file() for folder in folders)]
    split = split or (common[0] if common else SPLITS[0])
    a, b = (_read(folder, split) for folder in folders)
    _check_pair(a, b, split)
    return split, [a, b]


def _counts_file(folder: Path, split: str) -> Path:
    return folder / f"images_{split}.npz"


def _read(folder: Path, split: str) -> JudgedRun:
    path = folder / "results.json"
    for file in (path, _counts_file(folder, split)):
        if not file.is_file():
            raise FileNotFoundError(
                f"there is no {file}; give the folder that gald eval ckpt_path=RUN split={split} "
                "has written"
            )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); repeat the evaluation") from error
    images = ImageCounts.load(_counts_file(folder, split))
    prefix = f"{split}/iou/"
    names = tuple(key.removeprefix(prefix) for key in results if key.startswith(prefix))
    counts = images.class_counts()
    if len(names) != counts.shape[-1]:
        raise ValueError(
            f"{path} names {len(names)} classes, {_counts_file(folder, split).name} counts "
            f"{counts.shape[-1]}; repeat the evaluation"
        )
    return JudgedRun(folder, results, images, counts, names)


def _check_pair(a: JudgedRun, b: JudgedRun, split: str) -> None:
    if a.class_names != b.class_names:
        odd = sorted(set(a.class_names) ^ set(b.class_names)) or ["another order"]
        raise ValueError(
            f"{a.folder} has {len(a.class_names)} classes and {b.folder} {len(b.class_names)} "
            f"({', '.join(odd[:3])} differ); compare networks of the same classes"
        )
    if a.images.names != b.images.names:
        shared = len(set(a.images.names) & set(b.images.names))
        raise ValueError(
            f"{a.folder} was judged on {len(a.images.names)} images of {split} and {b.folder} on "
            f"{len(b.images.names)}, {shared} of them shared; judge both on the same images"
        )
    one, other = a.results.get("receipt") or {}, b.results.get("receipt") or {}
    for key in SAME:
        if key in one and key in other and one[key] != other[key]:
            raise ValueError(
                f"{a.folder} was judged with {key} {_short(one[key])} and {b.folder} with "
                f"{_short(other[key])}; evaluate both in the same way"
            )
    changed = np.flatnonzero((a.class_counts[:, 1] != b.class_counts[:, 1]).any(1))
    if len(changed):
        image, of = a.images.names[changed[0]], len(a.images.names)
        raise ValueError(
            f"the true classes of {len(changed)} of {of} images differ between {a.folder} and "
            f"{b.folder}, {image} is the first; judge both on the same masks"
        )


def _short(value: object, most: int = 60) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= most else text[: most - 3] + "..."
