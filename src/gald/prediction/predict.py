"""`gald predict RUN INPUT... --to FOLDER`: segment images and videos with a trained network.

gald predict demo street.jpg
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
from gald.run.new_folders import refuse_unwritable


def main() -> None:
    """Predict the inputs of the command line."""
    flags = parse(sys.argv[1:])
    try:
        inputs = find_inputs(flags.inputs, flags.to)
        # torch takes seconds to import; a misspelt path should be an error before that.
        from gald.cli import silence_warnings
        from gald.prediction.batch import BatchPredictor

        silence_warnings()
        print(BatchPredictor(flags, inputs)())
    except KeyboardInterrupt:
        fail("interrupted; repeat the command to continue (finished outputs are kept)")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line after `gald predict`.

    Raises:
        ValueError: an argument is unknown or invalid, or there is nothing to write.
    """
    options = sorted(path.stem for path in (CONF_DIR / "inference").glob("*.yaml"))
    parser = Arguments(
        "gald predict",
        description="segment images and videos with a trained network",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="run, checkpoint, saved folder, name of the zoo, or OWNER/NAME")
    add(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="images, videos, folders, patterns, - for a list on stdin; also inference.key=value",
    )
    words = "output folder (default: runs/predict/NAME, by the name of the run)"
    add("--to", type=_folder, metavar="FOLDER", help=words)
    add(
        "--masks",
        choices=("palette", "ids", "none"),
        default="palette",
        help="label maps as png: train ids in the classes' colours (default), in grey, or none",
    )
    add("--overlay", action="store_true", help="image tinted by class; for videos an mp4")
    add("--confidence", choices=("png16", "npz"), help="probability of the predicted class")
    add(
        "--ld-map",
        choices=("png", "npz"),
        help="map of local distribution: png painted in colours, npz the same and its values",
    )
    add("--inference", choices=options, help="(default: the one used in validation)")
    add("--device", default="auto", help="auto (default), cpu, cuda, cuda:1, ...")
    add("--skip-bad", action="store_true", help="succeed even if some files are skipped")
    parser.add_trust()
    flags = parser.parse_intermixed_args(arguments)
    flags.overrides = [
        x for x in flags.inputs if x.lstrip("+").startswith("inference.") and "=" in x
    ]
    flags.inputs = [x for x in flags.inputs if x not in flags.overrides]
    flags.to = flags.to or _folder(f"runs/predict/{Path(flags.run).absolute().name}")
    if flags.to.exists() and not flags.to.is_dir():
        parser.error(f"--to {flags.to} is a file; name a folder")
    refuse_unwritable(flags.to, "--to")
    if not flags.inputs:
        parser.error("the following arguments are required: INPUT")
    if flags.overrides and flags.inference is None:
        parser.error(f"{flags.overrides[0]} needs --inference, one of {', '.join(options)}")
    if flags.masks == "none" and not (flags.overlay or flags.confidence or flags.ld_map):
        parser.error("--masks none leaves nothing to write; add --overlay")
    return flags


def _folder(given: str) -> Path:
    return Path(given).expanduser().absolute()
