"""The same training crops with other libraries, each in the usual style of its users.

Each function takes a dataset and a crop size, and returns rows by name. A row maps the index of a
sample to the image and mask that a worker would return. Labels are mapped by table lookup, the
fastest method, or are stored as train ids.
"""

import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import cv2
import numpy as np
import torch

from gald.data.dataset import SegmentationDataset
from gald.data.labels import VOID

Row = Callable[[int], tuple[Any, Any] | None]
Rows = dict[str, Row]

SCALE, JITTER = (0.5, 2.0), 0.3


def torchvision(dataset: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Use its v2 transforms and its decoder; it pads on both sides, so its crops have more void."""
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    height, width = dataset.pixels(0).labels.shape
    transform = v2.Compose(
        [
            v2.ScaleJitter((height, width), SCALE),  # relative to the original size, by SCALE
            v2.RandomCrop(
                crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: VOID}
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(JITTER, JITTER, JITTER),
        ]
    )

    def load(i: int) -> tuple[Any, Any]:
        image = io.decode_image(str(dataset.samples[i].image), io.ImageReadMode.RGB)
        labels = io.decode_image(str(dataset.samples[i].mask), io.ImageReadMode.UNCHANGED)
        mask = torch.from_numpy(cv2.LUT(labels[0].numpy(), dataset.lut))
        image, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.contiguous(), mask

    return {"torchvision v2, png": load}


def albumentations(dataset: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Use its transforms, on files read by OpenCV and on decoded arrays with train ids."""
    import albumentations as A

    jitter = (1 - JITTER, 1 + JITTER)
    transform = A.Compose(
        [
            A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1.0),
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=VOID),
            A.RandomCrop(*crop),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(jitter, jitter, jitter, hue=(0, 0), p=1.0),
        ]
    )
    decoded = _decoded(dataset)

    def png(i: int) -> tuple[Any, Any]:
        image = cv2.imread(str(dataset.samples[i].image), cv2.IMREAD_COLOR_RGB)
        labels = cv2.imread(str(dataset.samples[i].mask), cv2.IMREAD_UNCHANGED)
        out = transform(image=image, mask=cv2.LUT(labels, dataset.lut))
        return _tensors(out["image"], out["mask"])

    def memory(i: int) -> tuple[Any, Any]:
        out = transform(image=decoded[i][0], mask=decoded[i][1])
        return _tensors(out["image"], out["mask"])

    return {"albumentations, png": png, "albumentations, memory": memory}


def mmsegmentation(dataset: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Use its Cityscapes pipeline on labelTrainIds files, the format that it expects.

    Its colour jitter works in HSV. Its own pipeline draws a new crop if one class dominates, and
    returns the normalised float images and int64 labels of its preprocessor. The other two rows
    stop at uint8 and accept any crop.
    """
    # mmcv-lite has no compiled operators, but mmseg imports them even if it does not need them.
    sys.modules.setdefault("mmcv._ext", NoOperators("mmcv._ext"))
    from mmcv.transforms import Compose, LoadImageFromFile, Pad, RandomResize
    from mmseg.datasets import transforms as T
    from mmseg.models import SegDataPreProcessor

    height, width = dataset.pixels(0).labels.shape
    read = [LoadImageFromFile(), T.LoadAnnotations()]
    resize = RandomResize(
        (width, height), ratio_range=SCALE, resize_type="mmseg.Resize", keep_ratio=True
    )
    flip, jitter = T.RandomFlip(prob=0.5), T.PhotoMetricDistortion()
    official = Compose(
        [*read, resize, T.RandomCrop(crop, cat_max_ratio=0.75), flip, jitter, T.PackSegInputs()]
    )
    normalise = SegDataPreProcessor(
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        size=crop,
    )
    augment = [resize, T.RandomCrop(crop), flip, jitter, Pad(crop[::-1])]
    plain, from_memory = Compose([*read, *augment]), Compose(augment)
    decoded = _decoded(dataset)

    def sample(i: int) -> dict[str, Any]:
        _, image, labels = dataset.samples[i]
        mask = str(labels).replace("labelIds", "labelTrainIds")
        files = {"img_path": str(image), "seg_map_path": mask}
        return files | {"reduce_zero_label": False, "seg_fields": []}

    def official_png(i: int) -> tuple[Any, Any]:
        packed = official(sample(i))
        batch = {"inputs": [packed["inputs"]], "data_samples": [packed["data_samples"]]}
        batch = normalise(batch, training=True)
        return batch["inputs"][0], batch["data_samples"][0].gt_sem_seg.data[0]

    def png(i: int) -> tuple[Any, Any]:
        out = plain(sample(i))
        return _tensors(out["img"], out["gt_seg_map"])

    def memory(i: int) -> tuple[Any, Any]:
        image, mask = decoded[i]
        shape = {"img_shape": mask.shape, "ori_shape": mask.shape}
        out = from_memory({"img": image, "gt_seg_map": mask, "seg_fields": ["gt_seg_map"]} | shape)
        return _tensors(out["img"], out["gt_seg_map"])

    return {
        "mmsegmentation, png": official_png,
        "mmsegmentation, png, any crop, uint8": png,
        "mmsegmentation, memory, any crop, uint8": memory,
    }


class NoOperators(types.ModuleType):
    """Stub module: every attribute exists and is None."""

    __file__ = "none"  # mmengine reads __file__ of all modules

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)  # mmengine looks for its loader

    def __getattr__(self, name: str) -> None:
        return None


def _decoded(dataset: SegmentationDataset) -> list[tuple[np.ndarray, np.ndarray]]:
    pixels = (dataset.pixels(i) for i in range(len(dataset)))
    return [(image, cv2.LUT(labels, lut)) for image, labels, lut in pixels]


def _tensors(image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Convert (h, w, 3) to (3, h, w) in the fastest way we know; our loader does the same."""
    planes = np.empty((3, *mask.shape), np.uint8)
    for channel in range(3):
        cv2.extractChannel(image, channel, planes[channel])
    return torch.from_numpy(planes), torch.from_numpy(np.ascontiguousarray(mask))


PEERS = (torchvision, albumentations, mmsegmentation)
