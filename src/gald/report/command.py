"""`gald report RUN`: one page about a run, from what it has stored.

gald report runs/mine
gald report runs/mine --split test --to out
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gald.command_line.app import Trust, path
from gald.run.new_folders import refuse_unwritable

if TYPE_CHECKING:
    import torch

    from gald.report.pictures import Source
    from gald.report.stored import Stored


def main(
    run: Path,
    /,
    *,
    to: Path | None = None,
    split: Literal["val", "test"] | None = None,
    data_root: str | None = None,
    device: str = "auto",
    trust: Trust = (),
) -> None:
    """Write one page about a run: scores, curves, classes, images, costs.

    Args:
        run: folder written by gald train or gald eval
        to: default: RUN/report, which is replaced
        split: split to show in detail (default: val, if it has scores)
        data_root: where the data is now (default: data.root of RUN)
        device: auto, cpu, cuda, cuda:1, ...
        trust: package with classes of your own that the file may name; repeat for more
    """
    # torch takes seconds to import; a misspelt option should be an error before that.
    from gald.device import pick_device
    from gald.report.stored import read_stored
    from gald.report.training import line_about
    from gald.report.write import refuse_other_than_report, write_report
    from gald.run.slots import check_trust

    folder = path(to or run / "report")
    checked = check_trust(trust)
    stored = read_stored(path(run), split, checked)
    refuse_other_than_report(folder)
    refuse_unwritable(folder, "--to")
    chosen = pick_device(device)
    source = None
    if data_root is not None:  # a folder that the user names must have the data
        source = _source(stored, chosen, checked, data_root)
    command = shlex.join(["gald", "report", *sys.argv[1:]])
    page = write_report(stored, lambda: source or _source(stored, chosen, checked), folder, command)
    print(line_about(folder, page.missing))


def _source(
    run: "Stored", device: "torch.device", trust: Sequence[str], root: str | None = None
) -> "Source":
    """Load the network of the run, and list the images of its split."""
    from gald.comparison.again import dataset_of, network_of
    from gald.report.pictures import Source, predict_with

    if run.evaluated is None:
        raise ValueError(f"no image can be shown from --data-root {root}: {run.missing}")
    network = network_of(run.evaluated, trust).to(device)
    dataset = dataset_of(run.evaluated, network, run.split, trust, root)
    predict = predict_with(network.model, network.inference, device)
    return Source(dataset, predict, network.palette)
