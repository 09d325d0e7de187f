"""`gald submit NAME RUN`: predict, check and pack the label maps for a test server."""

import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig
from rich import progress

from gald.data.reading.files import fingerprint
from gald.data.reading.image import read_image
from gald.device import pick_device
from gald.prediction.output_log import OutputLog
from gald.prediction.pipeline import pipeline
from gald.prediction.predictor import load
from gald.prediction.submission import Submission
from gald.progress import Lines, console
from gald.run.new_folders import refuse_unwritable


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
        lines = Lines("predicting", len(sources))
        contents = pipeline(
            pending,
            lambda name: read_image(submission.images[name]),
            lambda image: predictor.predict(image, confidence=False, ld_map=False).labels,
            submission.encode,
        )
        with closing(contents):
            for number, (name, content) in enumerate(zip(pending, contents, strict=True), 1):
                log.write(f"maps/{name}", content, *sources[name])
                bar.advance(task)
                lines.show(len(sources) - len(pending) + number)
    submission.check(log.folder / "maps")
    submission.pack(log.folder / "maps", to)
    shutil.rmtree(log.folder)


def maps_folder(to: Path) -> Path:
    """Return the folder for the label maps of a zip until the zip is complete."""
    return to.with_name(f"{to.name}.maps")
