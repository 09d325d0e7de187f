"""What a run folder holds for its report; a part that cannot be read becomes a sentence."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gald.comparison.runs import EvaluatedRun, read_run
from gald.errors import to_sentence
from gald.metrics.base import CountMetric
from gald.metrics.confusion import ConfusionMatrix
from gald.run.plain import RefusedError
from gald.run.results import SPLITS, Results, read_results


class Stored(NamedTuple):
    """The results of a run or of an evaluation.

    Attributes:
        folder: the folder, absolute.
        results: flat keys of results.json.
        split: the split that the report shows in detail.
        splits: all splits with scores.
        class_names: K names.
        metrics: the metrics of the split, ConfusionMatrix first.
        evaluated: the counts of every image; None if they cannot be read.
        missing: why not, as a sentence without its full stop.
    """

    folder: Path
    results: Results
    split: str
    splits: tuple[str, ...]
    class_names: tuple[str, ...]
    metrics: list[CountMetric]
    evaluated: EvaluatedRun | None
    missing: str = ""

    @property
    def receipt(self) -> dict[str, Any]:
        """What was measured, on which data and with which settings; any key may be missing."""
        return self.results.get(f"{self.split}/receipt") or {}

    def score(self, key: str, split: str | None = None) -> float | None:
        """Return a score of a split, such as `miou`; None if it is not stored or undefined."""
        return self.results.get(f"{split or self.split}/{key}")


def read_stored(
    folder: Path,
    split: str | None = None,
    trust: Sequence[str] = (),
    metrics: Sequence[CountMetric] | None = None,
) -> Stored:
    """Read the results of a folder that `gald train` or `gald eval` has written.

    Args:
        folder: the folder.
        split: `val` or `test`; None is the first that the folder has.
        trust: packages with metrics that the receipt may name too.
        metrics: the metrics, if they exist already; None builds those of the receipt.

    Raises:
        FileNotFoundError: there is no such folder, or no results in it.
        ValueError: it is a file, the results are damaged, or the split was not evaluated.
        RefusedError: the receipt would call other code.
    """
    folder = folder.expanduser().absolute()
    path = folder / "results.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder of the run")
    if not path.is_file():
        raise FileNotFoundError(_no_results(folder, path))
    results = read_results(path)
    splits = tuple(name for name in SPLITS if f"{name}/miou" in results)
    again = f"evaluate it with: gald eval ckpt_path={folder} split={split or SPLITS[0]}"
    if not splits:
        raise ValueError(f"{path} has no scores; {again}")
    split = split or splits[0]
    if split not in splits:
        raise ValueError(f"{path} has scores of {', '.join(splits)}, not of {split}; {again}")
    prefix = f"{split}/iou/"
    names = tuple(key.removeprefix(prefix) for key in results if key.startswith(prefix))
    try:
        evaluated = read_run(folder, split, trust, metrics)
    except RefusedError:
        raise
    except (OSError, ValueError) as error:
        reason = to_sentence(error)
        plain: list[CountMetric] = [ConfusionMatrix(max(1, len(names)))]
        return Stored(folder, results, split, splits, names, plain, None, reason)
    return Stored(folder, results, split, splits, names, evaluated.metrics, evaluated)


def _no_results(folder: Path, path: Path) -> str:
    if not folder.is_dir():
        return f"there is no folder {folder}; give the folder of a finished run"
    if (folder / "checkpoints").is_dir():
        return (
            f"there is no {path}, because the run has not ended; resume it with ckpt_path=last "
            f"output_dir={folder}, or evaluate it with: gald eval ckpt_path={folder}"
        )
    return f"there is no {path}; give the folder of a finished run"
