"""`gald data ACTION NAME`: download or import a dataset, check it, count its classes, show it."""

import argparse
import sys
from pathlib import Path
from typing import Any

from gald.cli import Arguments, fail
from gald.config import CONF_DIR, compose
from gald.data.tools.importing import command as importing

ACTIONS = {
    "prepare": "download the dataset, or print how to get it",
    "verify": "read every file and list all problems",
    "stats": "frequency of each class, and weights that balance the loss",
    "browse": "one figure of many images with their labels",
}
IMPORT = "draw polygons of COCO or labelme as masks: gald data import coco FOLDER --to OUT"
USAGE = (
    "usage: gald data ACTION NAME [data.key=value ...] [OPTIONS]\n\n"
    + "\n".join(f"  {action:<8} {text}" for action, text in (ACTIONS | {"import": IMPORT}).items())
    + "\n\nNAME is an option of conf/data, and keys are those of gald train, for example"
    "\n  gald data verify camvid data.root=FOLDER"
    "\ngald data ACTION --help lists the options of one action."
)


def main() -> int:
    """Run the command line after `gald data`; return the exit code."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0 if arguments else 2
    if arguments[0] == "import":
        return _import(arguments[1:])
    flags = parse(arguments)
    try:
        return _act(flags)
    except KeyboardInterrupt:
        fail(f"interrupted; repeat gald data {flags.action} {flags.name} to finish")


def _import(arguments: list[str]) -> int:
    flags = importing.parse(arguments)
    try:
        return importing.run(flags)
    except KeyboardInterrupt:
        fail("interrupted; nothing was written, so repeat the command")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line after `gald data`.

    Raises:
        ValueError: an argument is unknown or not valid.
    """
    action, *rest = arguments
    if action not in ACTIONS:
        raise ValueError(
            f"data has no action {action!r}; choose one of {', '.join([*ACTIONS, 'import'])}"
        )
    options = sorted(path.stem for path in (CONF_DIR / "data").glob("*.yaml"))
    parser = Arguments(f"gald data {action}", description=ACTIONS[action], allow_abbrev=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(options))
    keys = "any key of gald train, e.g. data.root=FOLDER"
    parser.add_argument("overrides", nargs="*", metavar="data.key=value", help=keys)
    if action == "verify":
        parser.add_argument("--split", help="one split, or several as train+val (default: all)")
        parser.add_argument("--subset", action="store_true", help="accept any number of images")
        parser.add_argument("--output", type=Path, metavar="FILE.json", help="save the report")
    if action in ("stats", "browse"):
        parser.add_argument("--split", default="train", help="train, val, ... (default: train)")
    if action == "browse":
        parser.add_argument("--count", type=int, default=24, help="number of images (default: 24)")
        parser.add_argument("--class", dest="class_name", help="images with most of this class")
        parser.add_argument("--output", type=Path, metavar="FILE.png", help="path of the figure")
    flags = parser.parse_intermixed_args(rest)
    flags.name = (flags.name or "").removeprefix("data=")  # as in gald train
    if flags.name not in options:
        problem = f"data has no option {flags.name!r}"
        if not flags.name:
            problem = f"{parser.prog} needs a NAME"
        raise ValueError(f"{problem}; choose one of {', '.join(options)}")
    for override in flags.overrides:
        if "=" not in override:
            raise ValueError(
                f"{override!r} is not key=value; write data.KEY=VALUE, or see {parser.prog} --help"
            )
    return argparse.Namespace(action=action, **vars(flags))


def _act(flags: argparse.Namespace) -> int:
    from hydra.utils import get_class

    from gald.options.check import check_config
    from gald.options.roots import Train
    from gald.run.building import build_own
    from gald.run.new_folders import refuse_unwritable

    cfg = compose("train", [f"data={flags.name}", *flags.overrides])
    check_config(cfg, Train)
    if getattr(flags, "output", None):
        refuse_unwritable(flags.output.expanduser().absolute().parent, "--output")
    if flags.action == "prepare":
        if "root" not in cfg.data:
            print(f"{flags.name} is drawn on the fly; there is nothing to prepare")
            return 0
        from gald.data.tools.prepare import prepare

        # only the class: creating some modules reads the dataset, which does not exist yet
        module_class: Any = get_class(cfg.data._target_)
        prepare(module_class.dataset_class, flags.name, Path(cfg.data.root))
        return 0
    data = build_own(cfg.data)
    if flags.action == "verify":
        from gald.data.tools.verify import verify

        return verify(data, flags.name, flags.split, flags.subset, flags.output)
    if flags.action == "stats":
        from gald.data.tools.class_report import print_classes

        print_classes(data, flags.name, flags.split)
    else:
        from gald.data.tools.browse import browse

        browse(data, flags.name, flags.split, flags.count, flags.class_name, flags.output)
    return 0
