"""Report at the end of a training, which it never stops."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from gald.data.datamodule import SegmentationDataModule
from gald.errors import to_sentence
from gald.metrics.base import CountMetric
from gald.report.pictures import Source, predict_with
from gald.report.stored import read_stored
from gald.report.write import write_report
from gald.task import SegmentationTask

FOLDER = "report"


def report_training(
    folder: Path, task: SegmentationTask, data: SegmentationDataModule, metrics: list[CountMetric]
) -> str:
    """Write the report of a finished training into its run folder; return a line about it.

    Args:
        folder: the run folder, with its results.
        task: with the network that was evaluated.
        data: the data of the evaluation, set up.
        metrics: the metrics of the evaluation.
    """
    again = shlex.join(["gald", "report", str(folder)])
    try:
        run = read_stored(folder, metrics=metrics)
        page = write_report(run, lambda: _source(task, data, run.split), folder / FOLDER, again)
    except Exception as error:  # of any kind: the results of the training are on the disk
        return f"the report is not written ({to_sentence(error)}); write it with: {again}"
    return line_about(folder / FOLDER, page.missing)


def line_about(folder: Path, missing: Sequence[str]) -> str:
    """Return a line that names a report, and what it leaves out."""
    left_out = f" ({' '.join(missing)})" if missing else ""
    return f"report: {folder / 'report.html'}{left_out}"


def _source(task: SegmentationTask, data: SegmentationDataModule, split: str) -> Source:
    dataset = data.test_dataset if split == "test" else data.val_dataset
    assert dataset is not None, "the evaluation has set up the data"
    task.eval()
    device = next(task.parameters()).device
    return Source(dataset, predict_with(task.model, task.inference, device), data.palette)
