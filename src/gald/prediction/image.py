"""Conversion of any kind of image to the uint8 tensor that networks take."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gald.data.reading.orientation import read_upright

ImageLike = str | Path | Image.Image | np.ndarray | Tensor
_EIGHT_BIT = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB")


def to_tensor(image: ImageLike) -> Tensor:
    """Convert an image to a tensor, grey as three equal channels and without transparency.

    A photo is turned upright by its orientation tag, as in training on your own photos.

    Args:
        image: a file; a PIL image; an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8; or
            a tensor (1, H, W), (3, H, W), (4, H, W) or (1, 3, H, W), uint8 or float in [0, 1].

    Returns:
        (3, H, W) uint8

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or values or shape are not supported.
    """
    if isinstance(image, str | Path):
        path = Path(image).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"there is no image {path}; correct the path")
        image = read_upright(path)
    elif isinstance(image, Image.Image):
        if image.mode not in _EIGHT_BIT:
            raise ValueError(
                f"image has mode {image.mode}; give one with 8 bits, as image.convert('RGB')"
            )
        image = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8:
            raise ValueError(f"image is an array of {image.dtype}; give uint8 values from 0 to 255")
        if image.ndim not in (2, 3):
            raise _bad_shape(image.shape, "(H, W, 3)")
        planes = image[..., None] if image.ndim == 2 else image
        tensor = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
    else:
        tensor = _to_uint8(image.detach())
        tensor = tensor[0] if tensor.ndim == 4 and len(tensor) == 1 else tensor
    if tensor.ndim != 3 or len(tensor) not in (1, 3, 4) or not tensor.numel():
        expected = "(H, W, 3)" if isinstance(image, np.ndarray) else "(3, H, W)"
        raise _bad_shape(image.shape, expected)
    return tensor.expand(3, -1, -1) if len(tensor) == 1 else tensor[:3]


def _to_uint8(image: Tensor) -> Tensor:
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point():
        raise ValueError(f"image is a tensor of {image.dtype}; give uint8 or floats in [0, 1]")
    low, high = (float(value) for value in image.aminmax())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"image has values from {low:g} to {high:g}; give floats in [0, 1]")
    return (image * 255).round().to(torch.uint8)


def _bad_shape(shape: tuple[int, ...], expected: str) -> ValueError:
    return ValueError(f"image has shape {tuple(shape)}; give one image of shape {expected}")
