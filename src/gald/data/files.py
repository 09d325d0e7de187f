"""Reads one image or one label map, whole and checked, or says in one sentence what is wrong."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

VOID = 255
_UNKNOWN = 254  # no dataset here has that many classes
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PNG_MODES = {2: "an RGB", 3: "a palette", 4: "a grey+alpha", 6: "an RGBA"}
_JPEG = b"\xff\xd8"


class SampleError(ValueError):
    """A sample that cannot be used, as one sentence, also when a worker process met it.

    A worker hands an error over by building a new one from the text of its whole traceback; this
    class keeps the sentence at the end of that text.

    Args:
        message: the sentence: the file, what is wrong, the remedy.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.rsplit("SampleError: ", 1)[-1].strip())


def read_image(path: Path) -> np.ndarray:
    """Read a png or jpg as RGB.

    Shape:
        returns: (H, W, 3) uint8
    """
    image = cv2.imdecode(_whole(path), cv2.IMREAD_COLOR)
    if image is None:
        raise SampleError(f"image {path} cannot be decoded; replace it by a valid png or jpg")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def read_mask(path: Path, label_map: Mapping[int, int]) -> np.ndarray:
    """Read an 8-bit grey png of labels and map them to train ids.

    Args:
        path: the file.
        label_map: stored label -> train id or 255; any other stored label is an error.

    Shape:
        returns: (H, W) uint8
    """
    data = _whole(path)
    head = data[:32].tobytes()
    if not head.startswith(_PNG):
        raise SampleError(
            f"mask {path} is not a png; save label maps as 8-bit grey png, "
            "lossy formats change the labels"
        )
    if head[25] in _PNG_MODES or head[24] != 8:
        kind = _PNG_MODES.get(head[25], f"a {head[24]}-bit")
        raise SampleError(
            f"mask {path} is {kind} png; save it as 8-bit grey png whose values are the labels"
        )
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if stored is None:
        raise SampleError(f"mask {path} cannot be decoded; replace it by a valid 8-bit grey png")
    table = np.full(256, _UNKNOWN, np.uint8)
    table[list(label_map)] = list(label_map.values())
    mask = cv2.LUT(stored, table)
    unknown = mask == _UNKNOWN
    if unknown.any():
        raise SampleError(
            f"mask {path} has label {stored[unknown][0]}, known are {_ranges(label_map)}; "
            "correct the mask or add the label to the dataset's label_map"
        )
    return mask


def check_sizes(image: np.ndarray, mask: np.ndarray, image_path: Path, mask_path: Path) -> None:
    """Refuse an image and a mask that do not cover the same pixels."""
    if image.shape[:2] != mask.shape:
        (h, w), (mask_h, mask_w) = image.shape[:2], mask.shape
        raise SampleError(
            f"image {image_path} is {w}x{h} but mask {mask_path} is {mask_w}x{mask_h}; "
            "export both at one size, labels are never resized"
        )


def _whole(path: Path) -> np.ndarray:
    """The bytes of a file, after a look at its end: decoders fill what is cut off with grey."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(f"cannot read {path} ({error.strerror}); restore the file") from None
    cut = not data
    if data.startswith(_PNG):
        cut = _PNG_END not in data
    elif data.startswith(_JPEG):
        # The end mark must follow the last start of scan: an embedded thumbnail has its own pair.
        cut = data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    if cut:
        raise SampleError(f"{path} is truncated ({len(data)} bytes); copy or download it again")
    return np.frombuffer(data, np.uint8)


def _ranges(labels: Mapping[int, int]) -> str:
    known = sorted(labels)
    if known == list(range(known[0], known[-1] + 1)):
        return f"{known[0]}..{known[-1]}"
    return ", ".join(map(str, known))
