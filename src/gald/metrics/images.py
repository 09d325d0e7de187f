"""Counts of every single image, so that two networks can be compared image by image."""

import io
import zipfile
from collections.abc import Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gald.run.atomic import write_bytes
from gald.run.checksum import find_damage, seal
from gald.run.class_names import unusable
from gald.run.limits import refuse_above, refuse_unpacked

if TYPE_CHECKING:
    from torch import Tensor

Counts = NDArray[np.int64]
Sparse = tuple[int, Counts, Counts]  # width, indices of the nonzero counts, their values


def _as_counts(name: str, width: int, *arrays: np.ndarray) -> list[Counts]:
    """Return places, values and ends as int64; refuse what is no list of counts below a width."""
    largest = np.iinfo(np.int64).max
    for part in arrays:
        integer = part.ndim == 1 and np.issubdtype(part.dtype, np.integer)
        if not integer or (part < 0).any() or (part > largest).any():
            raise ValueError(f"{name} has other values than counts")
    places, values, ends = (part.astype(np.int64, copy=False) for part in arrays)
    if width < 1 or (len(places) and places.max() >= width):
        raise ValueError(f"{name} counts more than {width} places")
    if name == "confusion" and isqrt(width) ** 2 != width:
        raise ValueError(
            f"{name} has {width} counts for an image, which is the square of no number of classes"
        )
    if (np.diff(ends) < 0).any():
        raise ValueError(f"{name} is not in order")
    return [places, values, ends]


def _read_groups(array: np.ndarray, count: int) -> list[str]:
    """Return the names of the groups of a file's images; refuse other content."""
    if array.dtype.kind != "U" or array.shape != (count,):
        raise ValueError(f"groups is no list of {count} names, one for each image")
    groups = [str(group) for group in array]
    for group in groups:
        if not group or unusable(group):
            raise ValueError(f"groups has {group[:40]!a}, which is no name")
    return groups


class ImageCounts:
    """Count vectors by image and metric; only nonzero counts are stored.

    With 171 classes, an image has a few hundred nonzero counts among its 171 x 171 confusion
    counts. Images that are not independent may have groups, such as videos or places.
    """

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Sparse]] = {}  # metric -> image -> counts
        self._groups: dict[str, str] | None = None  # image -> group

    @property
    def names(self) -> list[str]:
        """Sorted names of the images; tables have their rows in this order."""
        return sorted({name for rows in self._rows.values() for name in rows})

    @property
    def metrics(self) -> list[str]:
        """Sorted names of the metrics that were counted."""
        return sorted(self._rows)

    @property
    def groups(self) -> tuple[str, ...] | None:
        """Group of each image, in the order of `names`; None without groups, as in old files."""
        return None if self._groups is None else tuple(self._groups[name] for name in self.names)

    def set_groups(self, groups: Mapping[str, str]) -> None:
        """Set the group of each image that was counted.

        Args:
            groups: name of the group by the name of the image; further images are left out.

        Raises:
            ValueError: an image has no group.
        """
        names = self.names
        if missing := [name for name in names if not groups.get(name)]:
            raise ValueError(
                f"{len(missing)} of {len(names)} images have no group, first {missing[0]}; give "
                "every image a group, or none"
            )
        self._groups = {name: groups[name] for name in names}

    def add(self, name: str, metric_name: str, vector: "Tensor") -> None:
        """Store the counts of one image.

        Args:
            name: name of the image, unique in the set.
            metric_name: the `name` of the metric.
            vector: (width,) int64, from the metric's `count`.

        Raises:
            ValueError: the image was counted before.
        """
        dense = vector.cpu().numpy()
        places = np.flatnonzero(dense)
        self._put(name, metric_name, (dense.size, places, dense[places]))

    def _put(self, name: str, metric_name: str, row: Sparse) -> None:
        rows = self._rows.setdefault(metric_name, {})
        if name in rows:
            raise ValueError(
                f"image {name} was counted twice for {metric_name}; give every image a unique name "
                "and evaluate it once"
            )
        rows[name] = row

    def dense(self, metric_name: str) -> Counts:
        """Return the counts of one metric as a table (N, width), with rows in order of `names`.

        Raises:
            ValueError: the metric was not counted, or not for every image.
        """
        rows, names = self._complete(metric_name), self.names
        table = np.zeros((len(names), rows[names[0]][0]), np.int64)
        for line, name in zip(table, names, strict=True):
            line[rows[name][1]] = rows[name][2]
        return table

    def _complete(self, metric_name: str) -> dict[str, Sparse]:
        rows, names = self._rows.get(metric_name, {}), self.names
        if len(rows) != len(names) or not rows:
            raise ValueError(
                f"{metric_name} was counted for {len(rows)} of {len(names)} images; choose a "
                f"counted metric ({', '.join(self.metrics) or 'none'}), or evaluate again"
            )
        return rows

    def width(self, metric_name: str) -> int:
        """Return the number of counts of one metric for an image."""
        return next(iter(self._complete(metric_name).values()))[0]

    def total(self, metric_name: str) -> Counts:
        """Return the sum of one metric's counts over all images, (width,)."""
        rows = list(self._complete(metric_name).values())
        summed = np.zeros(rows[0][0], np.int64)
        for _, places, values in rows:
            summed[places] += values
        return summed

    def class_counts(self) -> Counts:
        """Return pixels per image and class (N, 3, K): hits, true pixels, predicted pixels."""
        rows = self._complete("confusion")
        names = self.names
        classes = isqrt(rows[names[0]][0])
        table = np.zeros((len(names), 3, classes), np.int64)
        for image, name in zip(table, names, strict=True):
            _, places, values = rows[name]
            true, predicted = np.divmod(places, classes)
            hit = true == predicted
            np.add.at(image[0], true[hit], values[hit])
            np.add.at(image[1], true, values)
            np.add.at(image[2], predicted, values)
        return table

    def gather(self) -> "ImageCounts":
        """Merge the images of all processes; return itself if there is only one process.

        Groups are kept if every process has set them.

        Raises:
            ValueError: two processes counted the same image.
        """
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return self
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, (self._rows, self._groups))
        whole = ImageCounts()
        for part, _ in parts:
            for metric_name, rows in part.items():
                for name, row in rows.items():
                    whole._put(name, metric_name, row)
        groups = [part for _, part in parts]
        if None not in groups:
            whole.set_groups({name: group for part in groups for name, group in part.items()})
        return whole

    def save(self, path: str | Path) -> None:
        """Write one compressed file with a checksum, atomically."""
        path, names = Path(path), self.names
        arrays: dict[str, Any] = {"names": np.array(names, dtype=np.str_)}
        if self.groups is not None:
            arrays["groups"] = np.array(self.groups, dtype=np.str_)
        for metric_name in self.metrics:
            self.dense(metric_name)  # raises if the metric was not counted for every image
            rows = [self._rows[metric_name][name] for name in names]
            arrays[f"{metric_name}.width"] = np.array(rows[0][0])
            arrays[f"{metric_name}.ends"] = np.cumsum([len(places) for _, places, _ in rows])
            arrays[f"{metric_name}.places"] = np.concatenate([places for _, places, _ in rows])
            arrays[f"{metric_name}.values"] = np.concatenate([values for _, _, values in rows])
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        seal(content)
        write_bytes(path, content.getbuffer())

    @classmethod
    def load(cls, path: str | Path) -> "ImageCounts":
        """Read a file written by `save`.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged or has other content.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there are no image counts at {path}; gald eval writes them next to results.json"
            )
        counts = cls()
        _refuse_bomb(path)
        try:
            if damage := find_damage(path):
                raise ValueError(damage)
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                names = [str(name) for name in file["names"]]
                for key in file.files:
                    metric_name, _, part = key.rpartition(".")
                    if part != "width":
                        continue
                    width = int(file[key])
                    arrays = (
                        file[f"{metric_name}.{part}"] for part in ("places", "values", "ends")
                    )
                    places, values, ends = _as_counts(metric_name, width, *arrays)
                    if len(ends) != len(names) or not len(places) == len(values) == ends[-1]:
                        raise ValueError(f"{metric_name} is incomplete")
                    words = "has {0} counts for an image, and may have {1}"
                    refuse_above(width, metric_name, words, "GALD_MAX_COUNTS")
                    if len(places) and not 0 <= places.min() <= places.max() < width:
                        raise ValueError(f"{metric_name} has counts outside of its {width}")
                    parts = map(slice, [0, *ends[:-1].tolist()], ends.tolist())
                    for name, part in zip(names, parts, strict=True):
                        counts._put(name, metric_name, (width, places[part], values[part]))
                if "groups" in file.files:
                    groups = _read_groups(file["groups"], len(names))
                    counts.set_groups(dict(zip(names, groups, strict=True)))
        except Exception as error:
            raise ValueError(
                f"{path} cannot be read as image counts ({str(error).splitlines()[0]}); "
                "evaluate again, or copy the file again"
            ) from error
        return counts


def _refuse_bomb(path: Path) -> None:
    """Raise a ValueError if a npz states that it unpacks to far more than its size."""
    try:
        with zipfile.ZipFile(path) as file:
            unpacked = sum(member.file_size for member in file.infolist())
    except (OSError, zipfile.BadZipFile):
        return  # numpy says what is wrong
    refuse_unpacked(unpacked, path.stat().st_size, str(path), "evaluate again")
