"""Batch prediction for `gald predict`: skip finished files and predict the others."""

import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress
from torch import Tensor

from gald.config import compose
from gald.data.reading.files import unreadable
from gald.device import pick_device
from gald.install.extras import MissingExtra
from gald.options.check import check_config
from gald.options.roots import Eval
from gald.prediction.image import to_tensor
from gald.prediction.inputs import InputFile
from gald.prediction.output_log import OutputLog
from gald.prediction.outputs import Output
from gald.prediction.pipeline import pipeline
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load
from gald.prediction.video import Video, VideoWriter
from gald.progress import Beside, Lines, console, say

OVERLAY = Output("overlay")
_FRAMES_AHEAD = 4
Written = tuple[str, bytes, tuple[str, ...]]  # output, its content, and what it is made from
Outcome = list[Written] | Exception


@dataclass(frozen=True)
class Request:
    """What `gald predict` was asked for; see the options of `gald.prediction.command.predict`."""

    run: str
    to: Path
    masks: str
    overlay: bool
    confidence: str | None
    ld_map: str | None
    inference: str | None
    overrides: Sequence[str]
    device: str
    skip_bad: bool
    trust: Sequence[str]


class BatchPredictor:
    """Predictor of many files that skips outputs of earlier calls.

    For an image it writes `FOLDER/masks/NAME.png`, and likewise for the other outputs. For a video
    it writes one file per frame, `FOLDER/masks/NAME/000000.png`, and `FOLDER/overlay/NAME.mp4`. The
    outputs of a video have `.gald-part` in their names until all frames are done.

    Args:
        request: what the command line asks for.
        files: images and videos.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the network does not support the request.
    """

    def __init__(self, request: Request, files: Sequence[InputFile]) -> None:
        self.files = files
        self.skip_bad: bool = request.skip_bad
        self.outputs = _requested_outputs(request)
        device = pick_device(request.device)
        self.predictor: Predictor = load(request.run, request.trust)
        if request.inference is not None:
            _change_inference(self.predictor, request.inference, request.overrides)
        if request.ld_map and getattr(self.predictor.model.ld, "distribution_map", None) is None:
            raise ValueError(
                f"{request.run} has no LD map, because "
                f"{type(self.predictor.model.ld).__name__} does not compute one; leave out --ld-map"
            )
        self.network = self.predictor.fingerprint()
        self.predictor.to(device)
        self.log = OutputLog(request.to)

    def __call__(self) -> str:
        """Predict all files and return a summary with their numbers.

        Files that cannot be read or predicted are reported and skipped.

        Raises:
            ValueError: a file was skipped and `skip_bad` is off, after all others are predicted; or
                all files were skipped; or an output would replace a file that was made from other
                inputs.
            OSError: an output cannot be written.
        """
        # Check all files first, so that a conflict is an error before an hour of work, not after.
        bad: list[str] = []
        pending = []
        for file in self.files:
            try:
                file.path.stat()
            except OSError as error:
                bad.append(str(unreadable(file.path, error)))
                say(f"skipped: {bad[-1]}")
                continue
            if not self._is_done(file):
                pending.append(file)
        unseen = len(bad)
        skipped = len(self.files) - len(pending) - unseen
        if skipped:
            say(f"{skipped} of {len(self.files)} files are already predicted, skipping them")
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=console()) as self.bar:
            task = self.bar.add_task("predict", total=len(self.files), completed=skipped + unseen)
            lines = Lines("predict", len(self.files))
            with closing(self._outcomes(pending)) as outcomes:
                for number, (file, outcome) in enumerate(outcomes, skipped + unseen):
                    if isinstance(outcome, Exception):
                        text, path = str(outcome), str(file.path)
                        bad.append(text if path in text else f"{path}: {text}")
                        self._print(f"skipped: {bad[-1]}")
                    else:
                        for path, content, inputs in outcome:
                            self.log.write(path, content, *inputs)
                    self.bar.advance(task)
                    lines.show(number + 1)
        done = len(self.files) - skipped - len(bad)
        if bad and not self.skip_bad:
            if len(self.files) == 1:
                raise ValueError(bad[0])
            raise ValueError(
                f"{len(bad)} of {len(self.files)} files could not be predicted, the first because "
                f"{bad[0]}; the others are in {self.log.folder}, and --skip-bad accepts that"
            )
        if bad and not done + skipped:
            raise ValueError(f"none of {len(bad)} files could be predicted; see the reasons above")
        return f"{self.log.folder}: {done} predicted, {skipped} already done, {len(bad)} failed"

    def _outcomes(self, pending: Sequence[InputFile]) -> Generator[tuple[InputFile, Outcome]]:
        """Yield the outputs of each file to be written, in order, or the error that prevents it.

        The images between two videos are read and encoded beside the network. A video is predicted
        alone, and writes its outputs itself.
        """
        for is_video, files in groupby(pending, lambda file: file.is_video):
            if is_video:
                for file in files:
                    yield _attempt(file, self._predict_video, file)
                continue
            yield from pipeline(
                files,
                lambda file: _attempt(file, to_tensor, file.path),
                lambda read: _after(read, self._predict),
                lambda predicted: _after(predicted, lambda made: self._encode(predicted[0], made)),
            )

    def _encode(self, file: InputFile, prediction: Prediction) -> list[Written]:
        contents = []
        for path, (output,) in self._output_paths(file).items():
            inputs = self._inputs(file, [output])
            if not self.log.has(path, *inputs):
                contents.append((path, output.encode(prediction), inputs))
        return contents

    def _predict_video(self, file: InputFile) -> list[Written]:
        video, writer = Video(file.path), None
        paths = {
            path: outputs
            for path, outputs in self._output_paths(file).items()
            if not self.log.has(path, *self._inputs(file, outputs))
        }
        folders: list[tuple[Output, Path]] = []  # outputs with one file per frame
        for path, outputs in paths.items():
            partial = self.log.partial(path)
            if outputs == [OVERLAY]:
                writer = VideoWriter(partial, video.rate)
                continue
            shutil.rmtree(partial, ignore_errors=True)  # left by an interrupted call
            partial.mkdir()
            folders += [(output, partial) for output in outputs]

        def encode(prediction: Prediction) -> tuple[list[bytes], np.ndarray | None]:
            contents = [output.encode(prediction) for output, _ in folders]
            return contents, None if writer is None else np.asarray(prediction.overlay())

        frames = self.bar.add_task(escape(file.path.name), total=video.length or None)
        count = 0
        with (
            closing(_read_ahead(video)) as read,
            closing(pipeline(read, to_tensor, self._predict, encode)) as encoded,
        ):
            for index, (contents, overlay) in enumerate(encoded):
                count = index + 1
                for (output, folder), content in zip(folders, contents, strict=True):
                    (folder / f"{index:06}{output.suffix}").write_bytes(content)
                if writer is not None and overlay is not None:
                    writer.write(overlay)
                self.bar.advance(frames)
        self.bar.remove_task(frames)
        if count < video.length:
            self._print(f"{file.path}: read {count} of the {video.length} frames in its header")
        if writer is not None:
            writer.close()
        for path, outputs in paths.items():
            self.log.finish(path, *self._inputs(file, outputs))
        return []

    def _predict(self, image: Tensor) -> Prediction:
        kinds = {output.folder for output in self.outputs}
        return self.predictor.predict(image, "confidence" in kinds, "ld_map" in kinds)

    def _print(self, line: str) -> None:
        self.bar.console.print(line, markup=False, highlight=False)

    def _is_done(self, file: InputFile) -> bool:
        finished = [  # a list, because every output must be checked for a conflict
            self.log.has(path, *self._inputs(file, outputs))
            for path, outputs in self._output_paths(file).items()
        ]
        return all(finished)

    def _output_paths(self, file: InputFile) -> dict[str, list[Output]]:
        """Return each relative path, a file or a folder of a video's frames, with its outputs."""
        paths: dict[str, list[Output]] = {}
        for output in self.outputs:
            suffix = output.suffix
            if file.is_video:
                suffix = ".mp4" if output == OVERLAY else ""
            paths.setdefault(f"{output.folder}/{file.name}{suffix}", []).append(output)
        return paths

    def _inputs(self, file: InputFile, outputs: list[Output]) -> tuple[str, ...]:
        status = file.path.stat()
        state = f"{file.path.name} {status.st_size} {status.st_mtime_ns}"
        return (file.name, state, self.network, *(output.form for output in outputs))


def _attempt(file: InputFile, work: Callable[..., Any], *given: Any) -> tuple[InputFile, Any]:
    """Return a file with what a function returns, or with its error if the file can be skipped."""
    try:
        return file, work(*given)
    except MissingExtra:
        raise
    except (ValueError, FileNotFoundError, cv2.error) as error:
        return file, error


def _after(attempt: tuple[InputFile, Any], work: Callable[[Any], Any]) -> tuple[InputFile, Any]:
    """Go on with what an attempt returned, unless it failed."""
    file, value = attempt
    return attempt if isinstance(value, Exception) else _attempt(file, work, value)


def _read_ahead(video: Video) -> Generator[np.ndarray]:
    """Yield the frames of a video; a thread reads a few of them ahead."""
    frames = iter(video)
    with Beside[np.ndarray | None](1, _FRAMES_AHEAD) as reading:
        while True:
            for call in reading.put(next, frames, None):
                frame = call.result()
                if frame is None:
                    return
                yield frame


def _requested_outputs(request: Request) -> list[Output]:
    outputs = [] if request.masks == "none" else [Output("masks", request.masks)]
    if request.overlay:
        outputs.append(OVERLAY)
    if request.confidence:
        outputs.append(Output("confidence", request.confidence))
    if request.ld_map:
        outputs.append(Output("ld_map"))
    if request.ld_map == "npz":
        outputs.append(Output("ld_map", "npz"))
    return outputs


def _change_inference(predictor: Predictor, name: str, overrides: Sequence[str]) -> None:
    """Replace the inference of a network; its config may refer to `model.align_corners`."""
    cfg = compose("eval", ["ckpt_path=unused", f"inference={name}", *overrides])
    check_config(cfg, Eval)
    predictor.set_inference(cfg.inference)
