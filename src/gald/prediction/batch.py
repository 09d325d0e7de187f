"""What `gald predict` does: predict every file that is not done yet."""

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from rich.progress import MofNCompleteColumn, Progress

from gald.config import compose
from gald.device import pick_device
from gald.prediction.inputs import InputFile
from gald.prediction.output_log import OutputLog
from gald.prediction.outputs import Output
from gald.prediction.prediction import Prediction
from gald.prediction.predictor import Predictor, load
from gald.prediction.video import Video, VideoWriter
from gald.progress import console, say

OVERLAY = Output("overlay")


class BatchPredictor:
    """Predicts files one after the other, and leaves what an earlier call finished as it is.

    Of an image it writes `FOLDER/masks/NAME.png` and likewise for the other outputs; of a video the
    same for every frame, `FOLDER/masks/NAME/000000.png`, and `FOLDER/overlay/NAME.mp4`. The outputs
    of a video are called `.part` until all its frames are done.

    Args:
        flags: as `gald.prediction.predict.parse` reads them.
        files: images and videos.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the network cannot do what is asked.
    """

    def __init__(self, flags: argparse.Namespace, files: Sequence[InputFile]) -> None:
        self.files = files
        self.skip_bad: bool = flags.skip_bad
        self.outputs = _requested_outputs(flags)
        device = pick_device(flags.device)
        self.predictor: Predictor = load(flags.run)
        if flags.inference is not None:
            _change_inference(self.predictor, flags.inference, flags.overrides)
        if flags.ld_map and getattr(self.predictor.model.ld, "distribution_map", None) is None:
            raise ValueError(
                f"{flags.run} has no LD map, because its "
                f"{type(self.predictor.model.ld).__name__} decides nothing; leave --ld-map out"
            )
        self.network = self.predictor.fingerprint()
        self.predictor.to(device)
        self.log = OutputLog(flags.to)

    def __call__(self) -> str:
        """Predict all files; returns a sentence that counts them.

        Raises:
            ValueError: a file is damaged, and bad ones are not to be skipped; or all are; or an
                output would replace a file that was made from something else.
            OSError: an output cannot be written.
        """
        # Look at all files first, to refuse before an hour of work and not after it.
        waiting = [file for file in self.files if not self._is_done(file)]
        there, bad = len(self.files) - len(waiting), 0
        if there:
            say(f"{there} of {len(self.files)} are there already and are left as they are")
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=console()) as self.bar:
            task = self.bar.add_task("predict", total=len(self.files), completed=there)
            for file in waiting:
                try:
                    self._predict_video(file) if file.is_video else self._predict_image(file)
                except (ValueError, FileNotFoundError, cv2.error) as error:
                    text, path = str(error), str(file.path)
                    sentence = text if path in text else f"{path}: {text}"
                    if not self.skip_bad:
                        raise ValueError(sentence) from error
                    bad += 1
                    self._say(f"skipped: {sentence}")
                self.bar.advance(task)
        done = len(waiting) - bad
        if bad and not done + there:
            raise ValueError(f"none of {bad} files could be predicted; the lines above say why")
        return f"{self.log.folder}: {done} predicted, {there} were there, {bad} skipped as bad"

    def _predict_image(self, file: InputFile) -> None:
        prediction = self._predict(file.path)
        for place, (output,) in self._places(file).items():
            inputs = self._inputs(file, [output])
            if not self.log.has(place, *inputs):
                self.log.write(place, output.encode(prediction), *inputs)

    def _predict_video(self, file: InputFile) -> None:
        video, writer = Video(file.path), None
        places = self._places(file)
        folders: list[tuple[Output, Path]] = []  # of outputs that are a file per frame
        for place, outputs in places.items():
            partial = self.log.partial(place)
            if outputs == [OVERLAY]:
                writer = VideoWriter(partial, video.rate)
                continue
            shutil.rmtree(partial, ignore_errors=True)  # of a call that was interrupted
            partial.mkdir()
            folders += [(output, partial) for output in outputs]
        frames = self.bar.add_task(file.path.name, total=video.length or None)
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
            self._say(f"{file.path}: read {count} frames of the {video.length} in its header")
        if writer is not None:
            writer.close()
        for place, outputs in places.items():
            inputs = self._inputs(file, outputs)
            if not self.log.has(place, *inputs):
                self.log.finish(place, *inputs)

    def _predict(self, image: object) -> Prediction:
        kinds = {output.folder for output in self.outputs}
        return self.predictor.predict(image, "confidence" in kinds, "ld_map" in kinds)  # ty: ignore

    def _say(self, line: str) -> None:
        self.bar.console.print(line, markup=False, highlight=False)

    def _is_done(self, file: InputFile) -> bool:
        found = [  # a list: every one is checked, in case it belongs to somebody else
            self.log.has(place, *self._inputs(file, outputs))
            for place, outputs in self._places(file).items()
        ]
        return all(found)

    def _places(self, file: InputFile) -> dict[str, list[Output]]:
        """The files, or folders of a video's frames, below the target, with their outputs."""
        places: dict[str, list[Output]] = {}
        for output in self.outputs:
            suffix = output.suffix
            if file.is_video:
                suffix = ".mp4" if output == OVERLAY else ""
            places.setdefault(f"{output.folder}/{file.name}{suffix}", []).append(output)
        return places

    def _inputs(self, file: InputFile, outputs: list[Output]) -> tuple[str, ...]:
        status = file.path.stat()
        state = f"{file.path.name} {status.st_size} {status.st_mtime_ns}"
        return (file.name, state, self.network, *(output.form for output in outputs))


def _requested_outputs(flags: argparse.Namespace) -> list[Output]:
    outputs = [] if flags.masks == "none" else [Output("masks", flags.masks)]
    if flags.overlay:
        outputs.append(OVERLAY)
    if flags.confidence:
        outputs.append(Output("confidence", flags.confidence))
    if flags.ld_map:
        outputs.append(Output("ld_map"))
    if flags.ld_map == "npz":
        outputs.append(Output("ld_map", "npz"))
    return outputs


def _change_inference(predictor: Predictor, name: str, overrides: list[str]) -> None:
    """Let a network score images in another way; the config may refer to how it resizes."""
    cfg = compose("eval", ["ckpt_path=unused", f"inference={name}", *overrides])
    predictor.set_inference(cfg.inference)
