"""`gald data import coco|labelme FOLDER`: draw polygons as masks for `data=folder`."""

import argparse
from pathlib import Path

from gald.cli import Arguments

KINDS = {
    "coco": "json files of COCO, also from CVAT, Roboflow or Label Studio",
    "labelme": "json files of labelme, one for each image",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line after `gald data import`.

    Raises:
        ValueError: an argument is unknown or not valid.
    """
    kinds = "; ".join(f"{kind}: {text}" for kind, text in KINDS.items())
    parser = Arguments(
        "gald data import",
        description="Draw annotations as masks, in the layout that data=folder reads.",
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=KINDS, metavar="coco|labelme", help=kinds)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="json files and images")
    parser.add_argument("--to", type=Path, metavar="OUT", help="a new folder (FOLDER_masks)")
    parser.add_argument(
        "--unlabelled",
        choices=("background", "void"),
        default="background",
        help="pixels without annotation: background, a class (default), or void",
    )
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images")
    parser.add_argument("--copy", action="store_true", help="copy the images; default: link them")
    return parser.parse_args(arguments)


def run(flags: argparse.Namespace) -> int:
    """Import a folder; return the exit code."""
    from gald.data.tools.importing.write import import_folder

    return import_folder(
        flags.kind, flags.folder, flags.to, flags.unlabelled, flags.images, flags.copy
    )
