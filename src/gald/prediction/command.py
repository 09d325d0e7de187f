"""`gald predict`, `gald submit` and `gald serve`: use a trained network.

gald predict demo street.jpg
gald predict runs/mine photos/ --to out --overlay
gald predict runs/mine 'drive/**/*.png' clip.mp4 --to out --masks ids --inference slide
find . -name '*.jpg' | gald predict owner/name - --to out --skip-bad
gald submit cityscapes runs/mine
gald serve runs/mine
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gald.cli import fail, silence_warnings
from gald.command_line.app import Trust, path
from gald.config import compose, options_of
from gald.prediction.inputs import find_inputs
from gald.run.new_folders import refuse_unwritable
from gald.run.preemption import INTERRUPTED


def predict(
    run: str,
    /,
    *inputs: str,
    to: Path | None = None,
    masks: Literal["palette", "ids", "none"] = "palette",
    overlay: bool = False,
    confidence: Literal["png16", "npz"] | None = None,
    ld_map: Literal["png", "npz"] | None = None,
    inference: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    trust: Trust = (),
) -> None:
    """Segment images and videos with a trained network.

    Args:
        run: run, checkpoint, saved folder, name of the zoo, or OWNER/NAME on the hub
        inputs: images, videos, folders, patterns, - for a list on stdin; also inference.key=value
        to: output folder (default: runs/predict/NAME, by the name of the run)
        masks: label maps as png: train ids in the classes' colours, in grey, or none
        overlay: image tinted by class; for videos an mp4
        confidence: probability of the predicted class
        ld_map: map of local distribution: png painted in colours, npz the same and its values
        inference: option of the config group (default: the one used in validation)
        device: auto, cpu, cuda, cuda:1, ...
        skip_bad: succeed even if some files are skipped
        trust: package with classes of your own that the file may name; repeat for more

    Raises:
        ValueError: an option is invalid, or there is nothing to read or write.
    """
    overrides = [x for x in inputs if x.lstrip("+").startswith("inference.") and "=" in x]
    names = [x for x in inputs if x not in overrides]
    folder = path(to or Path("runs/predict") / Path(run).absolute().name)
    _check_prediction(names, overrides, folder, inference)
    if masks == "none" and not (overlay or confidence or ld_map):
        raise ValueError("gald predict: --masks none leaves nothing to write; add --overlay")
    try:
        found = find_inputs(names, folder)
        # torch takes seconds to import; a misspelt path should be an error before that.
        from gald.prediction.batch import BatchPredictor, Request

        silence_warnings()
        request = Request(
            run, folder, masks, overlay, confidence, ld_map, inference, overrides, device, skip_bad,
            trust,
        )  # fmt: skip
        print(BatchPredictor(request, found)())
    except KeyboardInterrupt:
        fail("interrupted; repeat the command to continue (finished outputs are kept)", INTERRUPTED)


def submit(
    name: Literal["cityscapes", "ade20k", "coco_stuff"],
    run: str | None = None,
    /,
    *overrides: str,
    split: str | None = None,
    data_root: str | None = None,
    to: Path | None = None,
    inference: str | None = None,
    device: str = "auto",
    subset: bool = False,
    check: Path | None = None,
    trust: Trust = (),
) -> None:
    """Write the zip of label maps for a test server, or check one.

    Args:
        name: dataset of the server
        run: run, checkpoint, name of the zoo or hub id
        overrides: config keys of the inference chosen with --inference, inference.key=value
        split: default: the split that the server evaluates
        data_root: default: data.root of data=NAME
        to: the zip (default: NAME_SPLIT.zip)
        inference: option of the config group (default: inference of the run)
        device: auto, cpu, cuda, cuda:1, ...
        subset: accept any number of images
        check: only check this zip
        trust: package with classes of your own that the file may name; repeat for more

    Raises:
        ValueError: an option is invalid.
    """
    if run is not None and "=" in run and check is not None:
        run, overrides = None, (run, *overrides)
    if (run is None) == (check is None):
        raise ValueError("gald submit needs either a RUN to predict with or --check FILE.zip")
    _check_overrides(overrides, inference)
    from hydra.utils import get_class

    from gald.options.check import check_config
    from gald.options.roots import Train
    from gald.prediction.submission import Submission
    from gald.prediction.submit import maps_folder, submit

    chosen = [f"data={name}", *([f"inference={inference}", *overrides] if inference else [])]
    cfg = compose("train", chosen)
    check_config(cfg, Train)
    dataset: Any = get_class(cfg.data._target_).dataset_class  # ty: ignore[missing-attribute]
    split = split or dataset.submission_splits[0]
    submission = Submission(dataset, data_root or cfg.data.root, split, subset)
    if check is not None:
        submission.check(check.expanduser())
        print(f"{check}: {len(submission.images)} label maps, no problem found")
        return
    assert run is not None, "checked above"
    zip_file = (to or Path(f"{name}_{split}.zip")).expanduser()
    try:
        submit(submission, run, zip_file, cfg.inference if inference else None, device, trust)
    except KeyboardInterrupt:
        kept = maps_folder(zip_file)
        fail(f"interrupted; repeat the command to continue from the maps in {kept}", INTERRUPTED)
    print(f"{zip_file}: {len(submission.images)} label maps, ready to upload")


def serve(
    run: str,
    /,
    *,
    port: int = 7860,
    host: str = "127.0.0.1",
    megapixels: int = 25,
    megabytes: int = 50,
    seconds: int = 60,
    at_once: int = 2,
    examples: Path | None = None,
    trust: Trust = (),
) -> None:
    """Open a local web page that segments uploaded images, until interrupted.

    Args:
        run: run, checkpoint, saved folder, name of the zoo or hub id
        port: port of the page
        host: 127.0.0.1 is this machine only; 0.0.0.0 serves everyone on the network
        megapixels: largest picture
        megabytes: largest file
        seconds: longest time from an upload to its answer
        at_once: pictures that are segmented at the same time
        examples: folder with pictures to offer (default: drawn streets, if it was trained on them)
        trust: package with classes of your own that the file may name; repeat for more
    """
    from gald.prediction.serve import Bounds, serve  # imports torch, which takes seconds

    bounds = Bounds(megapixels, megabytes, seconds, at_once)
    serve(run, port, host, trust, bounds, examples)


def _check_prediction(
    names: list[str], overrides: list[str], to: Path, inference: str | None
) -> None:
    options = options_of("inference")
    if to.exists() and not to.is_dir():
        raise ValueError(f"gald predict: --to {to} is a file; name a folder")
    refuse_unwritable(to, "--to")
    if not names:
        raise ValueError("gald predict needs an INPUT: images, videos, folders, or - for a list")
    if inference is not None and inference not in options.split(", "):
        raise ValueError(
            f"gald predict: --inference {inference} is no option; choose one of {options}"
        )
    if overrides and inference is None:
        raise ValueError(f"gald predict: {overrides[0]} needs --inference, one of {options}")


def _check_overrides(overrides: Sequence[str], inference: str | None) -> None:
    for key in overrides:
        if not inference or not key.startswith("inference."):
            raise ValueError(
                f"gald submit does not accept {key!r}; choose --inference OPTION and set its keys "
                "as inference.key=value"
            )
