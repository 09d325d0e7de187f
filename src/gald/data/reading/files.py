"""Reading and checking of images and label maps, also inside of zip files.

A path may lead through a zip file: `root/train2017.zip/train2017/1.jpg`. So datasets can stay as
they were downloaded, and a message names the file inside the archive.
"""

import io
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from gald.data.reading.png import LazyArray, PngRows

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_PNG_REFUSED = {_PNG_RGB: "an RGB", 4: "a grey+alpha", 6: "an RGBA"}
_JPEG = b"\xff\xd8"
# Pixels in stored order: label maps ignore the orientation tag of an image.
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class SampleError(ValueError):
    """Error about an unusable sample, as one sentence, also if a worker process raised it.

    A DataLoader raises a worker's error again, with the text of the whole traceback as message;
    this class keeps only the sentence at the end of that text.

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
    return np.asarray(open_image(path))


def open_image(path: Path) -> LazyArray:
    """Open a png or jpg as RGB; a png is decoded on slicing, if that saves work.

    Shape:
        returns: (H, W, 3) uint8
    """
    data = _read_complete(path)
    if data[25:26] == bytes([_PNG_RGB]) and _by_rows(data):
        return PngRows(data, SampleError(_undecodable("image", path)))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    if image is None:
        raise SampleError(_undecodable("image", path))
    return image


def read_labels(path: Path) -> np.ndarray:
    """Read the stored labels of an 8-bit grey or palette png; palette indices are the labels.

    Shape:
        returns: (H, W) uint8
    """
    return np.asarray(open_labels(path))


def open_labels(path: Path) -> LazyArray:
    """Open stored labels like `read_labels`; decoded on slicing, if that saves work.

    Shape:
        returns: (H, W) uint8
    """
    data = _read_complete(path)
    if not data.startswith(_PNG):
        raise SampleError(
            f"mask {path} is not a png; save label maps as 8-bit grey png, because lossy formats "
            "change the labels"
        )
    depth, kind = data[24], data[25]
    if depth != 8 or kind in _PNG_REFUSED:
        png_type = _PNG_REFUSED.get(kind, f"a {depth}-bit")
        raise SampleError(
            f"mask {path} is {png_type} png; save it as 8-bit grey png with the labels as values"
        )
    if kind == _PNG_GREY and _by_rows(data):
        return PngRows(data, SampleError(_undecodable("mask", path)))
    labels = None
    if kind == _PNG_GREY:
        labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    else:  # OpenCV would return the colours of the palette
        with suppress(OSError, SyntaxError):
            labels = np.array(Image.open(io.BytesIO(data)))
    if labels is None:
        raise SampleError(_undecodable("mask", path))
    return labels


def _by_rows(data: bytes) -> bool:
    """Return whether `PngRows` is the fastest decoder of a file."""
    # It holds the interpreter's lock, so among several threads OpenCV is faster.
    single_threaded = threading.current_thread() is threading.main_thread()
    return single_threaded and PngRows.suits(data)


def check_sizes(image: LazyArray, mask: LazyArray, image_path: Path, mask_path: Path) -> None:
    """Raise a `SampleError` if image and mask differ in size."""
    if image.shape[:2] != mask.shape:
        h, w, mask_h, mask_w = *image.shape[:2], *mask.shape
        raise SampleError(
            f"image {image_path} is {w}x{h} but mask {mask_path} is {mask_w}x{mask_h}; "
            "export both at the same size, because labels are never resized"
        )


def read_bytes(path: Path) -> bytes:
    """Read a file, also inside of a zip."""
    archive, member = _split(path)
    try:
        if archive is None:
            return path.read_bytes()
        return _open(archive).read(member)
    except KeyError:
        raise SampleError(f"{archive} has no {member}; download the archive again") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise SampleError(f"cannot read {path} ({reason}); restore the file") from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise SampleError(f"cannot read {path} ({error}); download {archive} again") from None


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """List a folder's files at any depth, sorted; empty if the folder does not exist."""
    archive, inside = _split(folder)
    if archive is None:
        files = _walk(folder)
    else:
        prefix = f"{inside}/" if inside else ""
        names = (info.filename for info in _open(archive).infolist() if not info.is_dir())
        files = (archive / name for name in names if name.startswith(prefix))
    return sorted(path for path in files if path.suffix.lower() in suffixes)


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder; links to folders are followed, each folder once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names)


def is_dir(path: Path) -> bool:
    """Return whether a folder exists, also inside of a zip; a zip itself counts as a folder."""
    archive, inside = _split(path)
    if archive is None:
        return path.is_dir()
    names = _open(archive).namelist()
    return not inside or any(name.startswith(f"{inside}/") for name in names)


def is_file(path: Path) -> bool:
    """Return whether a file exists, also inside of a zip."""
    archive, member = _split(path)
    return path.is_file() if archive is None else member in _open(archive).NameToInfo


def fingerprint(path: Path) -> str:
    """Return size and modification time, or size and checksum of a file inside of a zip."""
    archive, member = _split(path)
    if archive is None:
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    info = _open(archive).getinfo(member)
    return f"{info.file_size} {info.CRC}"


def _split(path: Path) -> tuple[Path | None, str]:
    """Split a path into the zip that it leads through, if any, and the path inside."""
    if ".zip" in str(path).lower():
        for place in (*reversed(path.parents), path):
            if place.suffix.lower() == ".zip" and place.is_file():
                rest = path.relative_to(place).as_posix()
                return place, "" if rest == "." else rest
    return None, ""


_ARCHIVES: dict[tuple[int, Path], zipfile.ZipFile] = {}


def _open(archive: Path) -> zipfile.ZipFile:
    """Open an archive once per process: forked processes would share one file position."""
    key = (os.getpid(), archive)
    if key not in _ARCHIVES:
        try:
            _ARCHIVES[key] = zipfile.ZipFile(archive)
        except zipfile.BadZipFile:
            raise SampleError(
                f"{archive} is not a complete zip; download or copy it again"
            ) from None
    return _ARCHIVES[key]


def _read_complete(path: Path) -> bytes:
    """Read a file that must not be truncated: decoders would fill the missing part with grey."""
    data = read_bytes(path)
    truncated = not data
    if data.startswith(_PNG):
        truncated = _PNG_END not in data[-64:] and _PNG_END not in data
    elif data.startswith(_JPEG):
        # The end marker must follow the last start of scan: an embedded thumbnail has its own pair.
        truncated = data.rfind(b"\xff\xd9") <= data.rfind(b"\xff\xda")
    if truncated:
        raise SampleError(f"{path} is truncated ({len(data)} bytes); copy or download it again")
    return data


def _undecodable(what: str, path: Path) -> str:
    return f"{what} {path} cannot be decoded; replace it by a valid png" + (
        " or jpg" if what == "image" else " (8-bit grey)"
    )
