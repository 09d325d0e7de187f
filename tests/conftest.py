"""A tiny CamVid on disk, a tiny network as training leaves it, and where the real data lies."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
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
        monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
        monkeypatch.setenv("PYTHONSAFEPATH", "")
        monkeypatch.setenv("GALD_TRACEBACK", "1")
        cli.main()

    return call


@pytest.fixture(scope="session")
def console(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Starts what a user types: the console script `gald` of an installed wheel.

    The wheel lies in an environment of its own, which borrows the other packages from this one.
    """
    home = tmp_path_factory.mktemp("console")
    build = "import sys; from hatchling import build; print(build.build_wheel(sys.argv[1]))"
    made = [sys.executable, "-c", build, str(home)]
    wheel = subprocess.run(made, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    venv.create(home / "env", symlinks=True)
    python = home / "env" / "bin" / "python"
    (place,) = (home / "env" / "lib").glob("python*/site-packages")
    (place / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check"]
    install = [*pip, "install", "--quiet", "--no-deps", "--no-index", wheel.stdout.split()[-1]]
    subprocess.run(install, cwd=home, check=True, capture_output=True)
    inner = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    inner += ("GALD_RUN_ID", "GALD_TRACEBACK", "PYTHONPATH", "PYTHONSAFEPATH")

    def start(
        *arguments: str | Path, cwd: Path, timeout: float = 300, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if key not in inner}
        return subprocess.run(
            [python.with_name("gald"), *arguments],
            cwd=cwd,
            env=environment | {"OMP_NUM_THREADS": "1"} | variables,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the run folder of a tiny network with random weights; takes overrides of training."""

    def make(*overrides: str) -> Path:
        import torch
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        from gald.config import compose
        from gald.data.synthetic import SyntheticStreets

        folder = tmp_path_factory.mktemp("trained") / "run"
        tiny = ["model.channels=16", "model.backbone.name=test_resnet", f"output_dir={folder}"]
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
