"""Reads a video frame by frame, and writes one."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np


class Video:
    """A video's frames, RGB.

    Args:
        path: of the file.

    Raises:
        ValueError: it is no video that OpenCV can read.

    Attributes:
        rate: frames a second.
        length: number of frames as the file's header has it, which may be an estimate.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        self.rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.length = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not (self._capture.isOpened() and self.rate > 0):
            raise ValueError(f"video {path} cannot be read; convert it to mp4, or copy it again")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Decode one frame (H, W, 3) uint8 after another.

        Raises:
            ValueError: there is none.
        """
        empty = True
        while (read := self._capture.read())[0]:
            empty = False
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        self._capture.release()
        if empty:
            raise ValueError(f"video {self.path} has no frame that can be read; copy it again")


class VideoWriter:
    """Writes RGB frames as an mp4 (MPEG-4 part 2).

    The codec knows even sizes only: of an odd size the last row or column is left out.

    Args:
        path: of the file, which ends in .mp4.
        rate: frames a second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self.written = 0
        self._writer = cv2.VideoWriter()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8; all have the size of the first."""
        if not self.written:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer.open(str(self.path), codec, self.rate, frame.shape[1::-1])
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.written += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: it does not hold all frames; OpenCV does not say why.
        """
        self._writer.release()
        held = int(cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT))
        if held != self.written:
            raise OSError(
                f"{self.path} holds {held} of {self.written} frames; see whether the disk is full, "
                "and repeat the command"
            )
