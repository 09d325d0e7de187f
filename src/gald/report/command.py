"""`gald report RUN`: one page about a run, from what it has stored.

gald report runs/mine
gald report runs/mine --split test --to out
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gald.cli import Arguments
from gald.run.new_folders import refuse_unwritable
from gald.run.results import SPLITS

if TYPE_CHECKING:
    import torch

    from gald.report.pictures import Source
    from gald.report.stored import Stored


def main() -> None:
    """Write the report of the run that the command line names."""
    flags = parse(sys.argv[1:])
    # torch takes seconds to import; a misspelt option should be an error before that.
    from gald.device import pick_device
    from gald.report.stored import read_stored
    from gald.report.training import line_about
    from gald.report.write import refuse_other_than_report, write_report
    from gald.run.slots import check_trust

    to = flags.to or flags.run / "report"
    trust = check_trust(flags.trust)
    run = read_stored(flags.run, flags.split, trust)
    refuse_other_than_report(to)
    refuse_unwritable(to, "--to")
    device = pick_device(flags.device)
    source = None
    if flags.data_root is not None:  # a folder that the user names must have the data
        source = _source(run, device, trust, flags.data_root)
    command = shlex.join(["gald", "report", *sys.argv[1:]])
    page = write_report(run, lambda: source or _source(run, device, trust), to, command)
    print(line_about(to, page.missing))


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line after `gald report`.

    Raises:
        ValueError: an argument is unknown or invalid.
    """
    parser = Arguments(
        "gald report",
        description="write one page about a run: scores, curves, classes, images, costs",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", type=_path, metavar="RUN", help="folder written by gald train or gald eval")
    add("--to", type=_path, metavar="FOLDER", help="default: RUN/report, which is replaced")
    add("--split", choices=SPLITS, help="split to show in detail (default: val, if it has scores)")
    add("--data-root", metavar="FOLDER", help="where the data is now (default: data.root of RUN)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    parser.add_trust()
    return parser.parse_args(arguments)


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
    predict = predict_with(
        lambda batch: network.inference.predict(network.model, batch).labels, device
    )
    return Source(dataset, predict, network.palette)


def _path(given: str) -> Path:
    return Path(given).expanduser().absolute()
