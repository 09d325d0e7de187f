"""Reading and checking of images and label maps, also inside of zip files.

A path may lead through a zip file: `root/train2017.zip/train2017/1.jpg`. So datasets can stay as
they were downloaded, and a message names the file inside the archive.
"""

import io
import os
import threading
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL.PngImagePlugin import PngImageFile

from gald.data.reading.header import (
    JPEG,
    PNG,
    Header,
    read_header,
    read_orientation,
    read_size,
)
from gald.data.reading.png import LazyArray, PngRows
from gald.install.extras import require
from gald.run.limits import refuse_above, refuse_pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
READING = 2  # increase it when the same files give other pixels: derived files are made again
_PNG_END = b"IEND\xaeB`\x82"
_PNG_GREY, _PNG_RGB, _PNG_PALETTE = 0, 2, 3
_PNG_TYPES = {_PNG_RGB: "an RGB", 4: "a grey+alpha", 6: "an RGBA"}
# Pixels in stored order, because label maps have no orientation; any depth, to refuse 16 bits.
_STORED_ORDER = cv2.IMREAD_IGNORE_ORIENTATION
_AS_STORED = cv2.IMREAD_COLOR_RGB | _STORED_ORDER | cv2.IMREAD_ANYDEPTH
# Folders with copies of images that systems and tools make beside the real ones.
_NO_DATA = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "lost+found")
_ENDS = 1 << 16  # bytes at the start and at the end of a file that `read_head` reads


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
    """Read an image as RGB, in stored order whatever its orientation tag.

    Shape:
        returns: (H, W, 3) uint8
    """
    return np.asarray(open_image(path))


def open_image(path: Path) -> LazyArray:
    """Open an image like `read_image`; a png is decoded on slicing, if that saves work.

    Shape:
        returns: (H, W, 3) uint8
    """
    return open_photo(path)[0]


def open_photo(path: Path) -> tuple[LazyArray, int]:
    """Open an image in stored order, and return its EXIF orientation too, 1 to 8.

    Raises:
        SampleError: the file is damaged, or stores more than 8 bits per value.
    """
    return _decode_photo(_read_complete(path), path)


def _decode_photo(data: bytes, path: Path) -> tuple[LazyArray, int]:
    header = read_header(data)
    orientation = read_orientation(data) if header is None else header.orientation
    if header is not None and header.depth > 8:
        raise SampleError(_too_deep(path, header.depth))
    refuse_large(read_size(data), f"image {path}")
    if data[25:26] == bytes([_PNG_RGB]) and _by_rows(data):
        return PngRows(data, SampleError(_undecodable("image", path))), orientation
    if header is not None and header.kind == "jpg" and header.channels in (1, 3):
        return _decode_jpeg(data, path), orientation
    image = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    if image is None:
        raise SampleError(_undecodable("image", path))
    if image.dtype != np.uint8:
        raise SampleError(_too_deep(path, 8 * image.dtype.itemsize))
    return image, orientation


def _decode_jpeg(data: bytes, path: Path) -> np.ndarray:
    """Decode with the only decoder at hand that reports damage; others guess the lost pixels."""
    try:
        from kornia_rs.io import decode_image_jpegturbo
    except ImportError:
        require(f"image {path}, a jpg,", "data", "kornia_rs")
        raise
    try:
        return decode_image_jpegturbo(data, "rgb")
    except Exception:  # kornia has no exception of its own
        raise SampleError(
            f"image {path} is damaged inside: its jpg data breaks off or has invalid codes; copy "
            "or download it again"
        ) from None


def read_labels(path: Path) -> np.ndarray:
    """Read the stored labels of a png: grey values or palette indices of 1 to 16 bits.

    An RGB or transparent png is read if it is grey and opaque; then nothing is lost.

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
    refuse_lossy(data, path)
    header = read_header(data)
    if header is None:
        raise SampleError(_undecodable("mask", path))
    refuse_large((header.height, header.width), f"mask {path}")
    kind = data[25]
    if header.depth == 8 and kind == _PNG_GREY and _by_rows(data):
        return PngRows(data, SampleError(_undecodable("mask", path)))
    if header.depth < 8 or kind == _PNG_PALETTE:
        return _indices(data, header, path)
    labels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED | _STORED_ORDER)
    if labels is None:
        raise SampleError(_undecodable("mask", path))
    if labels.ndim == 3:  # also grey with a transparent value, which is no colour
        grey = kind == _PNG_GREY
        labels = labels[..., 0].copy() if grey else _grey_channel(labels, kind, path)
    if labels.dtype == np.uint16:
        if (largest := labels.max()) > 255:
            row, column = np.argwhere(labels == largest)[0]
            raise SampleError(
                f"mask {path} is a 16-bit png with label {largest} in row {row}, column {column}; "
                "save it as 8-bit grey png with labels from 0 to 255"
            )
        labels = labels.astype(np.uint8)
    return labels


def read_colours(path: Path) -> np.ndarray:
    """Read a mask that stores colours, as RGB; 16 bits per value are read if 8 lose nothing.

    Shape:
        returns: (H, W, 3) uint8
    """
    data = _read_complete(path)
    refuse_lossy(data, path)
    header = read_header(data)
    if header is not None and header.depth == 16:
        return _in_8_bits(data, header, path)
    return np.asarray(_decode_photo(data, path)[0])


def _in_8_bits(data: bytes, header: Header, path: Path) -> np.ndarray:
    """Decode a png of 16 bits per value as RGB of 8, if the two bytes of each value are equal."""
    refuse_large((header.height, header.width), f"mask {path}")
    colours = cv2.imdecode(np.frombuffer(data, np.uint8), _AS_STORED)
    if colours is None:
        raise SampleError(_undecodable("mask", path))
    high, low = np.divmod(colours, 256)
    if (high != low).any():
        raise SampleError(_too_deep(path, header.depth))
    return high.astype(np.uint8)


def refuse_large(size: tuple[int, int] | None, what: str) -> None:
    """Raise a `SampleError` if a picture has too many pixels to be decoded.

    Args:
        size: height and width; None if they are unknown.
        what: the picture, with its path.
    """
    if size is None:
        return
    try:
        refuse_pixels(*size, what, "make it smaller or cut it into tiles")
    except ValueError as error:
        raise SampleError(str(error)) from None


def refuse_lossy(data: bytes, path: Path) -> None:
    """Raise a `SampleError` if a mask is not a png.

    Args:
        data: the file or its first bytes.
        path: of the mask.
    """
    if not data.startswith(PNG):
        raise SampleError(not_png(path))


def not_png(path: Path) -> str:
    """Return the message about a mask of another format."""
    return (
        f"mask {path} is not a png; save label maps as 8-bit grey png, because lossy formats "
        "change the labels"
    )


def _indices(data: bytes, header: Header, path: Path) -> np.ndarray:
    """Decode palette indices, or grey values of 1, 2 or 4 bits as they are stored."""
    try:  # OpenCV would return the colours of the palette
        labels = np.array(PngImageFile(io.BytesIO(data)), np.uint8)
    except (OSError, SyntaxError, ValueError):
        raise SampleError(_undecodable("mask", path)) from None
    if data[25] == _PNG_GREY and header.depth in (2, 4):
        labels //= 255 // (2**header.depth - 1)  # Pillow stretches them to 0..255
    return labels


def _grey_channel(pixels: np.ndarray, kind: int, path: Path) -> np.ndarray:
    """Return the only channel of a grey and opaque image.

    Raises:
        SampleError: it has colours or transparent pixels.
    """
    grey, opaque = pixels[..., 0], np.iinfo(pixels.dtype).max
    is_grey = all(np.array_equal(grey, pixels[..., i]) for i in (1, 2))
    if is_grey and (pixels.shape[2] == 3 or (pixels[..., 3] == opaque).all()):
        return np.ascontiguousarray(grey)
    what = "transparent pixels" if is_grey else "colours"
    raise SampleError(
        f"mask {path} is {_PNG_TYPES[kind]} png with {what}; save it as 8-bit grey png with the "
        "labels as values"
    )


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
            _refuse_bytes(path.stat().st_size, path)
            return path.read_bytes()
        _refuse_bytes(_open(archive).getinfo(member).file_size, path)
        return _open(archive).read(member)
    except KeyError:
        raise SampleError(f"{archive} has no {member}; download the archive again") from None
    except OSError as error:
        raise unreadable(path, error) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as error:
        raise SampleError(f"cannot read {path} ({error}); download {archive} again") from None


def _refuse_bytes(size: int, path: Path) -> None:
    words = "has {0} bytes, and a file of a dataset may have {1} MB"
    try:
        refuse_above(size, str(path), words, "GALD_MAX_FILE_MB", 10**6, "replace it")
    except ValueError as error:
        raise SampleError(str(error)) from None


def read_lines(path: Path) -> list[str]:
    """Read a list of names: UTF-8 with or without byte order mark, and any line ends.

    Spaces at the end of a line are removed; empty lines stay, so that line numbers are right.
    """
    data = read_bytes(path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SampleError(
            f"{path} is not UTF-8 text; save it as UTF-8 in your editor, for example"
        ) from None
    return [composed(line.rstrip()) for line in text.splitlines()]


def composed(name: str) -> str:
    """Return a name with its accents composed (NFC): macOS and zip files may store them apart."""
    return unicodedata.normalize("NFC", name)


def is_hidden(relative: PurePath) -> bool:
    """Return whether a file is hidden or a system's copy, such as `._a.png` or `__MACOSX/a.png`.

    Args:
        relative: path below the searched folder, which itself may be hidden.
    """
    return any(part.startswith(".") or part in _NO_DATA for part in relative.parts)


def list_files(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    """List a folder's files at any depth, sorted; empty if the folder does not exist.

    Hidden files and folders are ignored, see `is_hidden`.
    """
    archive, inside = _split(folder)
    if archive is None:
        files = _walk(folder)
    else:
        prefix = f"{inside}/" if inside else ""
        names = (info.filename for info in _open(archive).infolist() if not info.is_dir())
        files = (archive / name for name in names if name.startswith(prefix))
    return sorted(
        path
        for path in files
        if path.suffix.lower() in suffixes and not is_hidden(path.relative_to(folder))
    )


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
    """Return size and times of a file, or size and checksum of a file inside of a zip.

    Tools that copy can set the time of modification back; the time of the last change of the entry
    (ctime) they cannot set.
    """
    archive, member = _split(path)
    if archive is None:
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"
    info = _open(archive).getinfo(member)
    return f"{info.file_size} {info.CRC}"


def file_size(path: Path) -> int:
    """Return the size in bytes of a file, also inside of a zip.

    Raises:
        SampleError: the file cannot be read.
    """
    archive, member = _split(path)
    if archive is not None:
        return _open(archive).getinfo(member).file_size
    try:
        return path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None


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


def read_head(path: Path) -> bytes:
    """Read the start of a file that contains its header; all of it inside of a zip.

    Raises:
        SampleError: the file cannot be read, or is truncated.
    """
    if _split(path)[0] is not None:
        return _read_complete(path)
    try:
        with path.open("rb") as file:
            head = tail = file.read(_ENDS)
            if len(head) == _ENDS:
                file.seek(-_ENDS, os.SEEK_END)
                tail = file.read()
    except OSError as error:
        raise unreadable(path, error) from None
    complete = not _is_truncated(head, tail) and read_header(head) is not None
    # otherwise the end is before a long appendix, or the header after a long block of metadata
    return head if complete else _read_complete(path)


def image_header(path: Path) -> Header | None:
    """Read the header of an image without decoding it; None for other formats than png and jpg.

    Raises:
        SampleError: the file is truncated, or stores more than 8 bits per value.
    """
    header = read_header(read_head(path))
    if header is not None and header.depth > 8:
        raise SampleError(_too_deep(path, header.depth))
    if header is not None:
        refuse_large((header.height, header.width), f"image {path}")
    return header


def mask_header(path: Path) -> Header | None:
    """Read the header of a mask without decoding it; None if it is no image file.

    Raises:
        SampleError: the file is truncated or no png.
    """
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    head = read_head(path)
    refuse_lossy(head, path)
    header = read_header(head)
    if header is not None:
        refuse_large((header.height, header.width), f"mask {path}")
    return header


def require_8_bits(path: Path) -> None:
    """Raise a `SampleError` unless a mask stores one value of 8 bits per pixel, as servers want."""
    header = mask_header(path)
    if header is None or (header.depth, header.channels) == (8, 1):
        return
    kind = {2: "a grey+alpha", 3: "an RGB", 4: "an RGBA"}.get(header.channels)
    raise SampleError(
        f"mask {path} is {kind or f'a {header.depth}-bit'} png; save it as 8-bit grey png with the "
        "labels as values"
    )


def _read_complete(path: Path) -> bytes:
    """Read a file that must not be truncated: decoders would fill the missing part with grey."""
    data = read_bytes(path)
    if _is_truncated(data, data):
        raise SampleError(f"{path} is truncated ({len(data)} bytes); copy or download it again")
    return data


def _is_truncated(head: bytes, tail: bytes) -> bool:
    """Return whether the end of a png or jpg is missing in its last bytes."""
    if head.startswith(PNG):
        return _PNG_END not in tail[-64:] and _PNG_END not in tail
    if head.startswith(JPEG):
        # The end marker must follow the last start of scan: an embedded thumbnail has its own pair.
        return tail.rfind(b"\xff\xd9") <= tail.rfind(b"\xff\xda")
    return not head


def _undecodable(what: str, path: Path) -> str:
    return f"{what} {path} cannot be decoded; replace it by a valid png" + (
        " or jpg" if what == "image" else " (8-bit grey)"
    )


def _too_deep(path: Path, depth: int) -> str:
    return (
        f"image {path} stores {depth} bits per value, and networks take 8; convert it to 8 bits, "
        "for example by dividing by its largest value / 255"
    )


def unreadable(path: Path, error: OSError) -> SampleError:
    """Return the error about a file that cannot be opened."""
    if path.is_symlink() and not path.exists():
        return SampleError(
            f"{path} is a link to {path.readlink()}, which does not exist; restore the target or "
            "remove the link"
        )
    reason = error.strerror or str(error)
    return SampleError(f"cannot read {path} ({reason}); restore the file")
