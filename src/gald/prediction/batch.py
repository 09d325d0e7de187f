"""What `gald predict` does: every source that is not done yet, one after the other."""

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
    """Parses sources one after the other; what a former call finished is left as it is.

    Of a picture it writes `FOLDER/masks/NAME.png` and likewise for the other kinds; of a video the
    same for every frame, `FOLDER/masks/NAME/000000.png`, and `FOLDER/overlay/NAME.mp4`. A video's
    outputs are called `.part` until all of it is parsed.

    Args:
        flags: as `gald.prediction.predict.parse` reads them.
        sources: what to parse.

    Raises:
        FileNotFoundError: there is no such network.
        ValueError: the network cannot do what is asked.
    """

    def __init__(self, flags: argparse.Namespace, sources: Sequence[InputFile]) -> None:
        self.sources = sources
        self.skip_bad: bool = flags.skip_bad
        self.products = _products(flags)
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
        """Do it; returns how many were done.

        Raises:
            ValueError: a source is damaged, and bad ones are not to be skipped; or all are; or an
            output would replace a file that was made of something else.
            OSError: an output cannot be written.
        """
        # All of them first: an output in the way is told before an hour of work.
        waiting = [source for source in self.sources if not self._is_done(source)]
        there, bad = len(self.sources) - len(waiting), 0
        if there:
            say(f"{there} of {len(self.sources)} are there already and are left as they are")
        columns = (*Progress.get_default_columns(), MofNCompleteColumn())
        with Progress(*columns, console=console()) as self.bar:
            task = self.bar.add_task("predict", total=len(self.sources), completed=there)
            for source in waiting:
                try:
                    self._video(source) if source.is_video else self._picture(source)
                except (ValueError, FileNotFoundError, cv2.error) as error:
                    sentence = (
                        str(error) if str(source.path) in str(error) else f"{source.path}: {error}"
                    )
                    if not self.skip_bad:
                        raise ValueError(sentence) from error
                    bad += 1
                    self._say(f"skipped: {sentence}")
                self.bar.advance(task)
        done = len(waiting) - bad
        if bad and not done + there:
            raise ValueError(f"none of {bad} sources could be parsed; the lines above say why")
        return f"{self.log.folder}: {done} predicted, {there} were there, {bad} skipped as bad"

    def _picture(self, source: InputFile) -> None:
        prediction = self._parse(source.path)
        for output, (product,) in self._outputs(source).items():
            made_of = self._made_of(source, [product])
            if not self.log.has(output, *made_of):
                self.log.write(output, product.encode(prediction), *made_of)

    def _video(self, source: InputFile) -> None:
        video, writer = Video(source.path), None
        outputs = self._outputs(source)
        pieces: list[tuple[Output, Path]] = []
        for output, products in outputs.items():
            place = self.log.partial(output)
            if products == [OVERLAY]:
                writer = VideoWriter(place, video.rate)
                continue
            shutil.rmtree(place, ignore_errors=True)  # of a call that was interrupted
            place.mkdir()
            pieces += [(product, place) for product in products]
        frames = self.bar.add_task(source.path.name, total=video.length or None)
        count = 0
        for index, frame in enumerate(video):
            count = index + 1
            prediction = self._parse(frame)
            for product, place in pieces:
                (place / f"{index:06}{product.suffix}").write_bytes(product.encode(prediction))
            if writer is not None:
                writer.write(np.asarray(prediction.overlay()))
            self.bar.advance(frames)
        self.bar.remove_task(frames)
        if count < video.length:
            self._say(
                f"{source.path}: read {count} frames, of {video.length} that its header names"
            )
        if writer is not None:
            writer.close()
        for output, products in outputs.items():
            made_of = self._made_of(source, products)
            if not self.log.has(output, *made_of):
                self.log.finish(output, *made_of)

    def _parse(self, image: object) -> Prediction:
        kinds = {product.folder for product in self.products}
        return self.predictor.predict(image, "confidence" in kinds, "ld_map" in kinds)  # ty: ignore

    def _say(self, line: str) -> None:
        self.bar.console.print(line, markup=False, highlight=False)

    def _is_done(self, source: InputFile) -> bool:
        found = [  # a list: every one is looked at, in case it is somebody else's
            self.log.has(output, *self._made_of(source, products))
            for output, products in self._outputs(source).items()
        ]
        return all(found)

    def _outputs(self, source: InputFile) -> dict[str, list[Output]]:
        """The files, or the folders of a video's frames, and what kinds of file make them up."""
        outputs: dict[str, list[Output]] = {}
        for product in self.products:
            suffix = product.suffix
            if source.is_video:
                suffix = ".mp4" if product == OVERLAY else ""
            outputs.setdefault(f"{product.folder}/{source.name}{suffix}", []).append(product)
        return outputs

    def _made_of(self, source: InputFile, products: list[Output]) -> tuple[str, ...]:
        status = source.path.stat()
        file = f"{source.path.name} {status.st_size} {status.st_mtime_ns}"
        return (source.name, file, self.network, *(product.form for product in products))


def _products(flags: argparse.Namespace) -> list[Output]:
    products = [] if flags.masks == "none" else [Output("masks", flags.masks)]
    if flags.overlay:
        products.append(OVERLAY)
    if flags.confidence:
        products.append(Output("confidence", flags.confidence))
    if flags.ld_map:
        products.append(Output("ld_map"))
    if flags.ld_map == "npz":
        products.append(Output("ld_map", "npz"))
    return products


def _change_inference(predictor: Predictor, name: str, overrides: list[str]) -> None:
    """Let a network score images in another way; the config may refer to how it resizes."""
    cfg = compose("eval", ["ckpt_path=unused", f"inference={name}", *overrides])
    predictor.set_inference(cfg.inference)
