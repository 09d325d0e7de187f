"""What each extra has, and what a user reads where one is missing."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import cv2
import fake
import numpy as np
import pytest

from gald.data.reading import png
from gald.data.reading.image import open_image, read_image
from gald.data.reading.mask import open_labels, read_labels
from gald.errors import to_sentence
from gald.install.extras import EXTRAS, package
from gald.logger.mlflow import mlflow_logger
from gald.logger.tensorboard import tensorboard_logger

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Hides the modules of extras in a process, as if they were not installed.
BLOCKER = """
from importlib.machinery import PathFinder
NAMES = {"kornia_rs", "pycocotools", "onnx", "gradio", "mlflow", "tensorboard", "wandb_workspaces"}
find = PathFinder.find_spec
def find_others(cls, name, *rest):
    return None if name.partition(".")[0] in NAMES else find(name, *rest)
PathFinder.find_spec = classmethod(find_others)
"""


def names(requirements):
    """Normal names of packages, without their versions."""
    found = (re.match(r"[\w.-]+", line)[0] for line in requirements)
    return {re.sub(r"[-_.]+", "-", name).lower() for name in found}


HARD = names(PROJECT["dependencies"])
SOFT = {extra: names(lines) for extra, lines in PROJECT["optional-dependencies"].items()}


def test_every_extra_has_its_packages_and_a_purpose():
    assert set(EXTRAS) == set(SOFT) - {"dev", "docs"}
    for name, extra in EXTRAS.items():
        assert {package(module) for module in extra.modules} <= SOFT[name]
        assert extra.purpose
    assert not HARD & set().union(*(SOFT[name] for name in EXTRAS))


def test_every_hard_dependency_says_why_every_run_needs_it():
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)[1]
    lines = [line for line in block.splitlines() if line.startswith('  "')]
    assert len(lines) == len(HARD)
    assert all(re.search(r'", # \w{3}', line) for line in lines)


def imports():
    """Pairs (file, module of another project) of the imports when a file of gald is loaded."""
    for path in (ROOT / "src").rglob("*.py"):
        inner = set()
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            only_for_types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
            if isinstance(node, ast.FunctionDef | ast.Try) or only_for_types:
                inner |= set(ast.walk(node))
        for node in ast.walk(tree):
            found = []
            if isinstance(node, ast.ImportFrom):
                found = [node.module]
            elif isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            for name in found:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names | {"gald", "hydra_plugins"}:
                    yield path.name, top, node in inner


@pytest.mark.integration
def test_every_imported_package_is_declared_and_a_soft_one_is_imported_where_it_is_used():
    distributions = packages_distributions()
    soft = set().union(*(SOFT[name] for name in EXTRAS))
    seen = set()
    for file, module, late in imports():
        owners = names(distributions.get(module, [module]))
        assert owners & (HARD | soft), (file, module)
        assert late or owners & HARD, (file, module)
        seen |= owners
    assert {"pyyaml", "packaging", "kornia-rs"} <= seen


@pytest.fixture
def without(monkeypatch):
    """Return a function that hides modules in this process."""

    def hide(*modules):
        for name in modules:
            for loaded in [n for n in sys.modules if n.startswith(f"{name}.")]:
                monkeypatch.delitem(sys.modules, loaded)
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setattr("gald.install.extras.is_of_make", lambda: False)

    return hide


@pytest.mark.parametrize(
    ("arguments", "extra", "message"),
    [
        (("serve", "nowhere"), "serve", "gald serve needs the package gradio"),
        (
            ("wandb", "dashboard", "nowhere", "--entity", "me"),
            "wandb",
            "gald wandb dashboard needs the package wandb-workspaces",
        ),
        (
            ("export", "{run}", "--to", "x.onnx", "--format", "onnx"),
            "export",
            "--format onnx needs the packages onnx, onnxscript and onnxruntime",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_verb_names_the_command(
    arguments, extra, message, without, gald_cli, trained, tmp_path, monkeypatch
):
    without(*EXTRAS[extra].modules)
    monkeypatch.chdir(tmp_path)
    arguments = [str(trained()) if word == "{run}" else word for word in arguments]
    with pytest.raises(ValueError, match=re.escape(f"{message}; run: pip install 'gald[{extra}]'")):
        gald_cli(*arguments)


@pytest.mark.parametrize(
    ("build", "name"), [(tensorboard_logger, "tensorboard"), (mlflow_logger, "mlflow")]
)
def test_a_logger_names_the_command(build, name, without, tmp_path):
    without(name)
    message = f"logger={name} needs the package {name}; run: pip install 'gald[{name}]'"
    with pytest.raises(ValueError, match=re.escape(message)):
        build(str(tmp_path))


@pytest.mark.parametrize(
    "option", [option for extra in EXTRAS.values() for option in extra.options]
)
def test_an_option_of_hydra_names_the_command(option, monkeypatch):
    from hydra.errors import MissingConfigException

    monkeypatch.setattr("gald.install.extras.is_of_make", lambda: False)
    monkeypatch.setattr("gald.install.extras.is_installed", lambda _: False)
    group, _, name = option.partition("=")
    error = MissingConfigException("no", missing_cfg_file=f"{group}/{name}", options=["basic"])
    extra = next(name for name, one in EXTRAS.items() if option in one.options)
    assert to_sentence(error).startswith(f"{option} needs the package hydra-{extra}-")
    assert to_sentence(error).endswith(f"; run: pip install 'gald[{extra}]'")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("kornia_rs.io", "run: pip install 'gald[data]'"),
        ("timm", "gald doctor lists what is missing"),
    ],
)
def test_any_other_missing_module_has_a_remedy(name, remedy, monkeypatch):
    monkeypatch.setattr("gald.install.extras.is_of_make", lambda: False)
    error = ModuleNotFoundError(f"No module named {name!r}", name=name)
    assert to_sentence(error).startswith(f"the module {name} is not installed; {remedy}")


def pictures(folder):
    """A grey and an RGB png with flat and noisy parts."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (37, 53, 3), np.uint8)
    image[5:20, 7:40] = 130
    fake.write_image(folder / "rgb.png", image)
    cv2.imwrite(str(folder / "grey.png"), image[..., 0])


def test_png_is_read_the_same_without_kornia(tmp_path, monkeypatch):
    pictures(tmp_path)
    rgb, grey = tmp_path / "rgb.png", tmp_path / "grey.png"
    cut = (slice(3, 21), slice(6, 50))
    by_kornia = read_image(rgb), read_labels(grey), open_image(rgb)[cut], open_labels(grey)[cut]
    assert isinstance(open_image(rgb), png.PngRows)
    monkeypatch.setattr(png, "decode_image_png_u8", None)
    assert isinstance(open_image(rgb), np.ndarray)
    others = read_image(rgb), read_labels(grey), open_image(rgb)[cut], open_labels(grey)[cut]
    for one, other in zip(by_kornia, others, strict=True):
        assert one.dtype == other.dtype and np.array_equal(one, other)


def test_damage_of_a_png_is_found_without_kornia(tmp_path, monkeypatch):
    pictures(tmp_path)
    file = tmp_path / "rgb.png"
    data = bytearray(file.read_bytes())
    monkeypatch.setattr(png, "decode_image_png_u8", None)
    for place in range(data.find(b"IDAT") + 4, len(data) - 16, 997):
        damaged = bytearray(data)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=re.escape(str(file))):
            read_image(file)


def test_a_jpg_is_refused_without_kornia(tmp_path, without, gald_cli):
    root = fake.camvid(tmp_path / "camvid", ".jpg")
    without("kornia_rs")
    with pytest.raises(ValueError, match=r"\.jpg, a jpg, needs the package kornia-rs; run: pip "):
        gald_cli("data", "verify", "camvid", f"data.root={root}")


def test_the_json_of_pascal_context_is_refused_without_pycocotools(tmp_path, without, gald_cli):
    root = fake.pascal_context(tmp_path / "data", "json")
    without("pycocotools")
    message = r"trainval_merged\.json of .* needs the package pycocotools; run: pip .*gald\[data\]"
    with pytest.raises(ValueError, match=message):
        gald_cli("data", "stats", "pascal_context", f"data.root={root}")


def test_polygons_of_coco_are_refused_without_pycocotools(tmp_path, without, gald_cli, capsys):
    fake.write_image(tmp_path / "coco/a.png", np.zeros((10, 12, 3), np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 12, "height": 10}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 8]]}
        ],
        "categories": [{"id": 1, "name": "road"}],
    }
    (tmp_path / "coco/a.json").write_text(json.dumps(content))
    without("pycocotools")
    with pytest.raises((ValueError, SystemExit)) as error:
        gald_cli("data", "import", "coco", str(tmp_path / "coco"), "--to", str(tmp_path / "out"))
    text = str(error.value) + "".join(capsys.readouterr())
    assert "a polygon, needs the package pycocotools; run: pip install 'gald[data]'" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_wheel_trains_without_any_extra(console, tmp_path):
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "sitecustomize.py").write_text(BLOCKER)
    root = fake.camvid(tmp_path / "camvid")
    tiny = ["trainer.max_epochs=1", "model.channels=16", "model.backbone.name=test_resnet"]
    tiny += [
        "data.num_workers=0",
        "data.global_batch_size=2",
        "data.train_transform.crop_size=[24,32]",
    ]
    command = ["train", "data=camvid", f"data.root={root}", *tiny, "output_dir=run"]
    done = console(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path / "block"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "results.json").is_file()
