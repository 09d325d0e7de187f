"""Toy twins: a few synthetic scenes in the exact on-disk layout of each dataset.

Each function writes one dataset below a folder that it returns, the `data.root` of it.
"""

import shutil
from pathlib import Path

import cv2
import numpy as np

HEIGHT, WIDTH = 24, 32


def scene(rng, labels):
    """An image and a label map in which patches of every given label lie side by side."""
    coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
    image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
    patches = rng.choice(np.asarray(labels), (HEIGHT // 2, WIDTH // 2))
    # every label somewhere, as long as there is room
    patches.ravel()[: min(len(labels), patches.size)] = labels[: patches.size]
    mask = np.kron(patches, np.ones((2, 2), patches.dtype))
    return image, mask


def write_image(path, image):
    """Write RGB pixels as the suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image[..., ::-1])


def write_labels(path, mask):
    """Write an 8-bit grey png."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask.astype(np.uint8))


def pack(folder, archive, inside=""):
    """Move a folder's content into a zip, below the folder `inside` of it."""
    parts = Path(inside).parts
    if parts:
        outer = folder.with_name(f"{folder.name}.packing")
        outer.joinpath(*parts[:-1]).mkdir(parents=True)
        folder.rename(outer.joinpath(*parts))
        folder = outer
    shutil.make_archive(str(archive.with_suffix("")), "zip", folder)
    shutil.rmtree(folder)


def camvid(root, suffix=".png", lists="{folder}/{name}"):
    """7 train, 3 val and 2 test scenes, with lists unless `lists` is None."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3), ("test", 2)):
        lines = []
        for i in range(count):
            image, mask = scene(rng, range(12))
            names = f"{split}_{i:02d}{suffix}", f"{split}_{i:02d}.png"
            write_image(root / split / names[0], image)
            write_labels(root / f"{split}annot" / names[1], mask)
            if lists is not None:
                columns = zip((split, f"{split}annot"), names, strict=True)
                lines.append(" ".join(lists.format(folder=f, name=n) for f, n in columns))
        if lists is not None:
            (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root
