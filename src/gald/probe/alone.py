"""One cell that belongs to no sweep."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from gald.device import pick_device
from gald.evaluation.evaluate import build_metrics
from gald.evaluation.score_table import score_table
from gald.probe.bench import Bench, check
from gald.probe.cell import run_cell
from gald.progress import Lines
from gald.run.lock import own_folder
from gald.training.start import refuse_to_overwrite


def run_alone(config: DictConfig) -> float:
    """Run a cell, print its scores, and return val/miou.

    Raises:
        ValueError: the folder already holds a run, or two options do not fit each other.
    """
    folder = Path(config.output_dir)
    with own_folder(folder) as began:
        check(config)
        refuse_to_overwrite(folder, began)
        lines = Lines("step", config.probe.steps)
        bench = Bench(pick_device(config.device))
        results = run_cell(config, bench, folder, lines.show)
        data = bench[config].data
    say = Console(markup=False, emoji=False).print
    say(f"run folder: {folder}", soft_wrap=True)
    say(score_table(results, data.class_names, build_metrics(config.metrics, data.num_classes)))
    return results["val/miou"]
