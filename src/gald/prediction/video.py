"""Reading and writing of videos, frame by frame."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gald.run.limits import refuse_pixels


class Video:
    """The RGB frames of a video.

    Args:
        path: video file.

    Raises:
        ValueError: OpenCV cannot read the file.

    Attributes:
        rate: frames per second.
        length: number of frames in the file's header, which may be an estimate.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._capture = cv2.VideoCapture(str(path))
        self.rate = self._capture.get(cv2.CAP_PROP_FPS)
        self.length = int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if not (self._capture.isOpened() and self.rate > 0):
            raise ValueError(f"video {path} cannot be read; convert it to mp4, or copy it again")
        sides = cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH
        height, width = (int(self._capture.get(side)) for side in sides)
        refuse_pixels(height, width, f"a frame of video {path}", "make it smaller")

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield the frames, each (H, W, 3) uint8.

        Raises:
            ValueError: no frame can be decoded.
        """
        empty = True
        while (read := self._capture.read())[0]:
            empty = False
            yield cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB)
        self._capture.release()
        if empty:
            raise ValueError(f"video {self.path} has no readable frame; copy it again")


class VideoWriter:
    """Writer of RGB frames to an mp4 (MPEG-4 part 2).

    The codec supports even sizes only: at an odd size the last row or column is dropped.

    Args:
        path: output file, ending in .mp4.
        rate: frames per second.
    """

    def __init__(self, path: Path, rate: float) -> None:
        self.path = path
        self.rate = rate
        self.written = 0
        self._writer = cv2.VideoWriter()

    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8; all frames have the size of the first."""
        if not self.written:
            codec = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer.open(str(self.path), codec, self.rate, frame.shape[1::-1])
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.written += 1

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: the file does not contain all frames; OpenCV reports no reason.
        """
        self._writer.release()
        stored = int(cv2.VideoCapture(str(self.path)).get(cv2.CAP_PROP_FRAME_COUNT))
        if stored != self.written:
            raise OSError(
                f"{self.path} contains {stored} of {self.written} frames; check whether the disk "
                "is full, and repeat the command"
            )
