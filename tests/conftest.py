"""A tiny CamVid on disk, and where the real data lies."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def real_data() -> Path:
    """The folder of real data; the test skips where there is none."""
    root = (REPOSITORY / os.environ.get("GALD_DATA", "../shared/data")).resolve()
    if not root.is_dir():
        pytest.skip(f"no real data at {root}; set GALD_DATA")
    return root


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A CamVid of 7 train, 3 val and 2 test scenes of 24x32 pixels, with lists."""
    return write_camvid(tmp_path / "camvid")


def write_camvid(root: Path, suffix: str = ".png", lists: str | None = "{folder}/{name}") -> Path:
    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 3), ("test", 2)):
        lines = []
        for folder in (split, f"{split}annot"):
            (root / folder).mkdir(parents=True)
        for i in range(count):
            coarse = rng.integers(0, 255, (6, 8, 3), np.uint8)
            image = cv2.resize(coarse, (32, 24), interpolation=cv2.INTER_LINEAR)
            mask = rng.integers(0, 12, (24, 32), np.uint8)
            names = f"{split}_{i:02d}{suffix}", f"{split}_{i:02d}.png"
            cv2.imwrite(str(root / split / names[0]), image)
            cv2.imwrite(str(root / f"{split}annot" / names[1]), mask)
            if lists is not None:
                columns = zip((split, f"{split}annot"), names, strict=True)
                lines.append(" ".join(lists.format(folder=f, name=n) for f, n in columns))
        if lists is not None:
            (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def camvid_writer():
    return write_camvid
