"""A tiny CamVid on disk, a tiny network as training leaves it, and where the real data lies."""

import json
import os
import sys
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


@pytest.fixture
def gald_cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs `gald ARGUMENTS` in this process; an error is raised, not worded."""

    def call(*arguments: str) -> None:
        from gald import cli

        monkeypatch.setattr(sys, "argv", ["gald", *arguments])
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the run folder of a tiny network with random weights; takes overrides of training."""

    def make(*overrides: str) -> Path:
        import torch
        from hydra import compose, initialize_config_dir
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        from gald.conf_dir import CONF_DIR
        from gald.data.synthetic import SyntheticStreets

        folder = tmp_path_factory.mktemp("trained") / "run"
        tiny = ["model.channels=16", "model.backbone.name=test_resnet", f"output_dir={folder}"]
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            cfg = compose("train", [*tiny, *overrides])
        torch.manual_seed(0)
        model = instantiate(cfg.model, num_classes=len(SyntheticStreets.class_names))
        content = {
            "state_dict": {f"model.{key}": value for key, value in model.state_dict().items()},
            "gald": {
                "config": OmegaConf.to_container(cfg, resolve=True),
                "class_names": list(SyntheticStreets.class_names),
                "palette": [list(colour) for colour in SyntheticStreets.palette],
            },
        }
        (folder / "checkpoints").mkdir(parents=True)
        torch.save(content, folder / "checkpoints" / "best.ckpt")
        return folder

    return make
