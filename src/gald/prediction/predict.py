"""`gald predict RUN INPUT... --to FOLDER`: parse pictures and videos with a trained network.

gald predict runs/mine photos/ --to out --overlay
gald predict runs/mine 'drive/**/*.png' clip.mp4 --to out --masks ids --inference slide
find . -name '*.jpg' | gald predict owner/name - --to out --skip-bad
"""

import argparse
import sys
from pathlib import Path

from gald.cli import Arguments, fail
from gald.config import CONF_DIR
from gald.prediction.inputs import find_inputs


def main() -> None:
    """Predict what the command line names."""
    flags = parse(sys.argv[1:])
    try:
        inputs = find_inputs(flags.inputs, flags.to)
        # Imported here, because torch takes seconds, and a misspelt path should be told at once.
        from gald.cli import silence_warnings
        from gald.prediction.batch import BatchPredictor

        silence_warnings()
        print(BatchPredictor(flags, inputs)())
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on, what is finished is kept")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line after `gald predict`.

    Raises:
        ValueError: anything that it does not take, or nothing to write.
    """
    options = sorted(path.stem for path in (CONF_DIR / "inference").glob("*.yaml"))
    parser = Arguments(
        "gald predict",
        description="parse pictures and videos with a trained network",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="run folder, checkpoint, saved folder, or OWNER/NAME on the hub")
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="pictures, videos, folders, patterns, - for a list on stdin; also inference.key=value",
    )
    add("--to", type=_folder, required=True, metavar="FOLDER", help="where to write")
    add(
        "--masks",
        choices=("palette", "ids", "none"),
        default="palette",
        help="label maps as png: train ids in the classes' colours (default), in grey, or none",
    )
    add("--overlay", action="store_true", help="the picture tinted by class; of videos an mp4")
    add("--confidence", choices=("png16", "npz"), help="probability of the class that was chosen")
    add(
        "--ld-map",
        choices=("png", "npz"),
        help="what local distribution decides by, painted, or both painted and as numbers",
    )
    add("--inference", choices=options, help="(default: as the network was validated)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    add("--skip-bad", action="store_true", help="report a file that cannot be parsed and go on")
    flags = parser.parse_intermixed_args(arguments)
    flags.overrides = [
        x for x in flags.inputs if x.lstrip("+").startswith("inference.") and "=" in x
    ]
    flags.inputs = [x for x in flags.inputs if x not in flags.overrides]
    if flags.to.exists() and not flags.to.is_dir():
        parser.error(f"--to {flags.to} is a file; name a folder")
    if not flags.inputs:
        parser.error("the following arguments are required: INPUT")
    if flags.overrides and flags.inference is None:
        parser.error(f"{flags.overrides[0]} needs --inference, one of {', '.join(options)}")
    if flags.masks == "none" and not (flags.overlay or flags.confidence or flags.ld_map):
        parser.error("--masks none leaves nothing to write; add --overlay")
    return flags


def _folder(given: str) -> Path:
    return Path(given).expanduser().absolute()
