"""The same crops by other libraries, each as its own users would write it.

A function takes scenes and a crop size, and gives a row by name: index of a scene -> what a worker
would hand over. Labels are mapped by lookup, the fastest way, or come mapped from the start.
"""

import sys
import types
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from gald.data.dataset import SegmentationDataset
from gald.data.labels import VOID

Row = Callable[[int], tuple[Any, Any] | None]
Rows = dict[str, Row]

SCALE, JITTER = (0.5, 2.0), 0.3


def torchvision(scenes: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Its v2 transforms on its own decoder; it pads on both sides, so its crops hold more void."""
    from torchvision import io, tv_tensors
    from torchvision.transforms import v2

    height, width = scenes.pixels(0).labels.shape
    transform = v2.Compose(
        [
            v2.ScaleJitter((height, width), SCALE),  # scales the image as it is, then by SCALE
            v2.RandomCrop(
                crop, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: VOID}
            ),
            v2.RandomHorizontalFlip(0.5),
            v2.ColorJitter(JITTER, JITTER, JITTER),
        ]
    )

    def load(i: int) -> tuple[Any, Any]:
        image = io.decode_image(str(scenes.samples[i].image), io.ImageReadMode.RGB)
        labels = io.decode_image(str(scenes.samples[i].mask), io.ImageReadMode.UNCHANGED)
        mask = torch.from_numpy(cv2.LUT(labels[0].numpy(), scenes.table))
        image, mask = transform(tv_tensors.Image(image), tv_tensors.Mask(mask))
        return image.contiguous(), mask

    return {"torchvision v2, png": load}


def albumentations(scenes: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Its transforms, from files by OpenCV and from decoded arrays with train ids."""
    import albumentations as A

    around = (1 - JITTER, 1 + JITTER)
    transform = A.Compose(
        [
            A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1.0),
            A.PadIfNeeded(*crop, border_mode=cv2.BORDER_CONSTANT, fill=0, fill_mask=VOID),
            A.RandomCrop(*crop),
            A.HorizontalFlip(p=0.5),
            A.ColorJitter(around, around, around, hue=(0, 0), p=1.0),
        ]
    )
    decoded = _decoded(scenes)

    def png(i: int) -> tuple[Any, Any]:
        image = cv2.imread(str(scenes.samples[i].image), cv2.IMREAD_COLOR_RGB)
        labels = cv2.imread(str(scenes.samples[i].mask), cv2.IMREAD_UNCHANGED)
        out = transform(image=image, mask=cv2.LUT(labels, scenes.table))
        return _tensors(out["image"], out["mask"])

    def memory(i: int) -> tuple[Any, Any]:
        out = transform(image=decoded[i][0], mask=decoded[i][1])
        return _tensors(out["image"], out["mask"])

    return {"albumentations, png": png, "albumentations, memory": memory}


def mmsegmentation(scenes: SegmentationDataset, crop: tuple[int, int]) -> Rows:
    """Its pipeline for Cityscapes on labelTrainIds files, as it has them.

    Its colour jitter is in HSV. Its own pipeline draws a crop again that is mostly one class, and
    ends with the normalised float images and int64 labels of its preprocessor; the other two rows
    stop at uint8 and take any crop.
    """
    # mmcv-lite lacks the compiled operators, which mmseg imports even where it needs none.
    sys.modules.setdefault("mmcv._ext", NoOperators("mmcv._ext"))
    from mmcv.transforms import Compose, LoadImageFromFile, Pad, RandomResize
    from mmseg.datasets import transforms as T
    from mmseg.models import SegDataPreProcessor

    height, width = scenes.pixels(0).labels.shape
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
    decoded = _decoded(scenes)

    def sample(i: int) -> dict[str, Any]:
        _, image, labels = scenes.samples[i]
        mask = str(labels).replace("labelIds", "labelTrainIds")
        files = {"img_path": str(image), "seg_map_path": mask}
        return files | {"reduce_zero_label": False, "seg_fields": []}

    def its_own(i: int) -> tuple[Any, Any]:
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
        "mmsegmentation, png": its_own,
        "mmsegmentation, png, any crop, uint8": png,
        "mmsegmentation, memory, any crop, uint8": memory,
    }


class NoOperators(types.ModuleType):
    """Stands for a module that has every name and nothing behind it."""

    __file__ = "none"  # mmengine looks through all modules for the file of each

    def __getattr__(self, name: str) -> None:
        return None


def _decoded(scenes: SegmentationDataset) -> list[tuple[np.ndarray, np.ndarray]]:
    pixels = (scenes.pixels(i) for i in range(len(scenes)))
    return [(image, cv2.LUT(labels, table)) for image, labels, table in pixels]


def _tensors(image: np.ndarray, mask: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The fastest way we know from (h, w, 3) to (3, h, w); ours takes it too."""
    planes = np.empty((3, *mask.shape), np.uint8)
    for channel in range(3):
        cv2.extractChannel(image, channel, planes[channel])
    return torch.from_numpy(planes), torch.from_numpy(np.ascontiguousarray(mask))


PEERS = (torchvision, albumentations, mmsegmentation)
