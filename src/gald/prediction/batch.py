"""Batch prediction for `gald predict`: skip finished files and predict the others."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

from gald.config import compose
from gald.data.reading.files import unreadable
from gald.device import pick_device
from gald.options.check import check_config
from gald.options.roots import Eval
from gald.prediction.inputs import InputFile
from gald.prediction.output_log import OutputLog
from gald.prediction.outputs import Output
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load
from gald.prediction.video import Video, VideoWriter
from gald.progress import Lines, console, say

OVERLAY = Output("overlay")


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
    outputs of a video have `.part` in their names until all frames are done.

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
            for number, file in enumerate(pending, skipped + unseen):
                lines.show(number)
                try:
                    self._predict_video(file) if file.is_video else self._predict_image(file)
                except (ValueError, FileNotFoundError, cv2.error) as error:
                    text, path = str(error), str(file.path)
                    sentence = text if path in text else f"{path}: {text}"
                    bad.append(sentence)
                    self._print(f"skipped: {sentence}")
                self.bar.advance(task)
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

    def _predict_image(self, file: InputFile) -> None:
        prediction = self._predict(file.path)
        for path, (output,) in self._output_paths(file).items():
            inputs = self._inputs(file, [output])
            if not self.log.has(path, *inputs):
                self.log.write(path, output.encode(prediction), *inputs)

    def _predict_video(self, file: InputFile) -> None:
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
        frames = self.bar.add_task(escape(file.path.name), total=video.length or None)
        count = 0
        for index, frame in enumerate(video):
            count = index + 1
            prediction = self._predict(frame)
            for output, folder in folders:
                (folder / f"{index:06}{output.suffix}").write_bytes(output.encode(prediction))
            if writer is not None:
                writer.write(np.asarray(prediction.overlay()))
            self.bar.advance(frames)
        self.bar.remove_task(frames)
        if count < video.length:
            self._print(f"{file.path}: read {count} of the {video.length} frames in its header")
        if writer is not None:
            writer.close()
        for path, outputs in paths.items():
            self.log.finish(path, *self._inputs(file, outputs))

    def _predict(self, image: object) -> Prediction:
        kinds = {output.folder for output in self.outputs}
        return self.predictor.predict(image, "confidence" in kinds, "ld_map" in kinds)  # ty: ignore

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
