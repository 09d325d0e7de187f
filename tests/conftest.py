"""A tiny CamVid on disk, and where the real data lies."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake
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
def published(real_data: Path) -> Callable[[str], list[dict[str, Any]]]:
    """Reads the rows of a dataset's label table; the test skips where there is none."""

    def read(name: str) -> list[dict[str, Any]]:
        path = real_data / "labels" / f"{name}.json"
        if not path.is_file():
            pytest.skip(f"no label table {path}")
        return json.loads(path.read_text())

    return read


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """A CamVid of 7 train, 3 val and 2 test scenes of 24x32 pixels, with lists."""
    return fake.camvid(tmp_path / "camvid")
