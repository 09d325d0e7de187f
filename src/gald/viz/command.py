"""`gald viz RUN... --image FILE`: draw what global aggregation and local distribution do.

gald viz runs/mine --image street.jpg --query 320 180 --query 40 200
gald viz runs/ga_only runs/ga_ld --image street.jpg --to out
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gald.command_line.app import Trust
from gald.command_line.app import path as absolute
from gald.run.atomic import new_folder, refuse_filled
from gald.run.new_folders import refuse_unwritable

if TYPE_CHECKING:
    from torch import Tensor, device

    from gald.viz.network_view import NetworkView, Query

MOST_CHECKPOINTS = 6


def main(
    run: str,
    /,
    *runs: str,
    image: Path,
    query: Sequence[tuple[int, int]] = (),
    to: Path | None = None,
    device: str = "auto",
    trust: Trust = (),
) -> None:
    """Draw LD maps, attention, features, and the prediction with and without LD.

    Args:
        run: run, checkpoint, saved folder, name of the zoo or hub id
        runs: more of them, to compare
        image: input image
        query: pixel X Y for the attention map; repeat for more (default: in the largest regions)
        to: a new folder (default: runs/viz/IMAGE)
        device: auto, cpu, cuda, cuda:1, ...
        trust: package with classes of your own that the file may name; repeat for more

    Raises:
        ValueError: an option is invalid, or the output folder is not empty.
        FileNotFoundError: there is no such image.
    """
    file = absolute(image)
    if not file.is_file():
        raise FileNotFoundError(f"there is no image {file}; correct the path")
    folder = absolute(to or Path("runs/viz") / file.stem)
    refuse_filled(folder, "choose another folder with --to")
    refuse_unwritable(folder, "--to")
    # torch takes seconds to import; a misspelt path should be an error before that.
    from gald.cli import silence_warnings
    from gald.device import pick_device
    from gald.prediction.image import to_tensor
    from gald.viz.network_view import check_queries

    silence_warnings()
    pixels = to_tensor(file)
    check_queries(list(query), pixels)
    show([run, *runs], file, pixels, list(query), folder, pick_device(device), trust)


def show(
    runs: list[str],
    path: Path,
    image: "Tensor",
    queries: list["Query"],
    to: Path,
    on: "device",
    trust: Sequence[str] = (),
) -> None:
    """Write the figures and maps of all runs into a new folder, complete or not at all."""
    from rich.console import Console
    from rich.progress import track

    from gald.painting import to_png
    from gald.prediction.predictor import Predictor
    from gald.run.checkpoint import find_checkpoint
    from gald.viz.figures import side_by_side
    from gald.viz.network_view import inspect_network
    from gald.viz.saved import provenance, save_view

    files = [find_checkpoint(run) for run in runs]  # a wrong path is an error before any work
    console = Console(markup=False, emoji=False, stderr=True)
    views: list[NetworkView] = []
    names = _names(runs)
    rows = list(zip(runs, names, files, strict=True))
    with new_folder(to) as partial:
        for run, name, checkpoint in track(
            rows, "drawing", console=console, disable=not console.is_terminal
        ):
            network = Predictor.from_pretrained(checkpoint, trust).to(on)
            if views and network.class_names != views[0].class_names:
                raise ValueError(
                    f"{run} and {runs[0]} have different classes; give runs with the same data"
                )
            # All views share the same pixels; without --query the first network chooses them.
            pixels = queries or (views[0].queries if views else None)
            views.append(inspect_network(network, image, pixels))
            folder = partial / name if len(runs) > 1 else partial
            save_view(folder, views[-1], provenance(network, checkpoint, path))
            steps, left_out = checkpoints(Path(run).expanduser())
            if len(steps) > 1:
                several = [
                    inspect_network(
                        Predictor.from_pretrained(file, trust).to(on), image, views[-1].queries
                    )
                    for file in steps.values()
                ]
                figure = side_by_side(several, list(steps), True)
                (folder / "checkpoints.png").write_bytes(to_png(figure))
            if left_out:
                console.print(f"{name}: {left_out} checkpoints in between are not drawn")
        if len(runs) > 1:
            (partial / "runs.png").write_bytes(to_png(side_by_side(views, names, False)))
    for name, view in zip(names, views, strict=True):
        line = f"{name}: {view.slots[0]}, {view.slots[1]}"
        if view.labels_without_ld is not None:
            line += f", {100 * view.changed:.1f}% of pixels change without {view.slots[1]}"
        print(line)
    print(f"figures and maps: {to}")


def checkpoints(run: Path) -> tuple[dict[str, Path], int]:
    """Return labelled checkpoints of a run folder, in training order, and the number left out.

    One checkpoint per step is kept, and at most MOST_CHECKPOINTS, evenly spread.
    """
    from gald.run.checkpoint import read_checkpoint

    path_of: dict[int, Path] = {}
    for path in sorted((run / "checkpoints").glob("*.ckpt")):
        step = read_checkpoint(path).content.get("global_step")
        if step is not None:
            path_of.setdefault(int(step), path)
    steps = sorted(path_of)
    count = min(len(steps), MOST_CHECKPOINTS)
    kept = [steps[round(i * (len(steps) - 1) / max(count - 1, 1))] for i in range(count)]
    return {f"{path_of[s].stem}, step {s}": path_of[s] for s in kept}, len(steps) - count


def _names(runs: list[str]) -> list[str]:
    """Return the last part of each path, all numbered if two are the same."""
    names = [Path(run).expanduser().absolute().name for run in runs]
    ambiguous = len(set(names)) < len(names)
    return [f"{i}_{name}" for i, name in enumerate(names, 1)] if ambiguous else names
