"""`gald submit NAME RUN`: predict, check and pack the label maps for a test server."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import get_class
from omegaconf import DictConfig
from rich import progress

from gald.cli import Arguments, fail
from gald.config import compose
from gald.data.reading.files import fingerprint, read_image
from gald.device import pick_device
from gald.options.check import check_config
from gald.options.roots import Train
from gald.prediction.output_log import OutputLog
from gald.prediction.predictor import load
from gald.prediction.submission import Submission
from gald.progress import console
from gald.run.new_folders import refuse_unwritable

NAMES = ("cityscapes", "ade20k", "coco_stuff")


def main() -> None:
    """Predict and pack a submission, or check an existing zip."""
    flags = parse(sys.argv[1:])
    chosen = [f"data={flags.name}"]
    if flags.inference:
        chosen += [f"inference={flags.inference}", *flags.overrides]
    cfg = compose("train", chosen)
    check_config(cfg, Train)
    dataset: Any = get_class(cfg.data._target_).dataset_class  # ty: ignore[missing-attribute]
    split = flags.split or dataset.submission_splits[0]
    root = flags.data_root or cfg.data.root
    submission = Submission(dataset, root, split, flags.subset)
    if flags.check:
        submission.check(flags.check.expanduser())
        print(f"{flags.check}: {len(submission.images)} label maps, no problem found")
        return
    to = (flags.to or Path(f"{flags.name}_{split}.zip")).expanduser()
    try:
        inference = cfg.inference if flags.inference else None
        submit(submission, flags.run, to, inference, flags.device, flags.trust)
    except KeyboardInterrupt:
        fail(f"interrupted; repeat the command to continue from the maps in {maps_folder(to)}")
    print(f"{to}: {len(submission.images)} label maps, ready to upload")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the command line after `gald submit`.

    Raises:
        ValueError: an argument is unknown or invalid.
    """
    parser = Arguments(
        "gald submit",
        description="write the zip of label maps for a test server, or check one",
        allow_abbrev=False,
    )
    parser.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "run", nargs="?", metavar="RUN", help="run, checkpoint, name of the zoo or hub id"
    )
    keys = "config keys of the inference chosen with --inference"
    parser.add_argument("overrides", nargs="*", metavar="inference.key=value", help=keys)
    parser.add_argument("--split", help="default: the split that the server evaluates")
    parser.add_argument("--data-root", metavar="ROOT", help="default: data.root of data=NAME")
    parser.add_argument("--to", type=Path, metavar="FILE.zip", help="default: NAME_SPLIT.zip")
    parser.add_argument("--inference", metavar="OPTION", help="default: inference of the run")
    parser.add_argument("--device", default="auto", help="default: auto, the best available")
    parser.add_argument("--subset", action="store_true", help="accept any number of images")
    parser.add_argument("--check", type=Path, metavar="FILE.zip", help="only check this zip")
    parser.add_trust()
    flags = parser.parse_intermixed_args(arguments)
    if (flags.run is None) == (flags.check is None):
        raise ValueError("gald submit needs either a RUN to predict with or --check FILE.zip")
    for key in flags.overrides:
        if not flags.inference or not key.startswith("inference."):
            raise ValueError(
                f"gald submit does not accept {key!r}; choose --inference OPTION and set its keys "
                "as inference.key=value"
            )
    return flags


def submit(
    submission: Submission,
    run: str,
    to: Path,
    inference: DictConfig | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> None:
    """Predict, check and pack a submission; a repeated call continues an interrupted one.

    Finished label maps are kept in the folder `FILE.zip.maps`, which is deleted once the zip is
    complete.

    Args:
        submission: the expected label maps.
        run: as in `gald.load`.
        to: the zip; must not exist.
        inference: config of an inference that replaces the one used in validation.
        device: as in `gald.device.pick_device`.
        trust: as in `gald.load`.

    Raises:
        ValueError: the zip exists, the network has other classes, the folder contains label maps
            of another network, or a label map is invalid.
        OSError: the disk is full or cannot be written.
    """
    if to.suffix != ".zip":
        raise ValueError(f"{to} does not end in .zip; choose another --to")
    exists = ValueError(f"{to} already exists; choose another --to, or move it away")
    if to.exists() and not maps_folder(to).exists():
        raise exists
    refuse_unwritable(to.absolute().parent, "--to")
    predictor = load(run, trust)
    known, wanted = predictor.class_names, submission.dataset.class_names
    if known != wanted:
        raise ValueError(
            f"{run} has {len(known)} classes ({', '.join(known)}) but {submission.dataset.title} "
            f"has {len(wanted)} ({', '.join(wanted)}); choose a network trained on these classes"
        )
    if inference is not None:
        predictor.set_inference(inference)
    network = predictor.fingerprint()
    predictor.to(pick_device(device))
    log = OutputLog(maps_folder(to))
    sources = {
        name: (str(path), fingerprint(path), network) for name, path in submission.images.items()
    }
    pending = [name for name, inputs in sources.items() if not log.has(f"maps/{name}", *inputs)]
    if to.exists() and pending:
        raise exists  # else a call was killed between the zip and the removal of the label maps
    with progress.Progress(console=console()) as bar:
        task = bar.add_task("predicting", total=len(sources), completed=len(sources) - len(pending))
        for name in pending:
            image = read_image(submission.images[name])
            labels = predictor.predict(image, confidence=False, ld_map=False).labels
            log.write(f"maps/{name}", submission.encode(labels), *sources[name])
            bar.advance(task)
    submission.check(log.folder / "maps")
    submission.pack(log.folder / "maps", to)
    shutil.rmtree(log.folder)


def maps_folder(to: Path) -> Path:
    """Return the folder for the label maps of a zip until the zip is complete."""
    return to.with_name(f"{to.name}.maps")
