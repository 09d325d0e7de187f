"""`gald doctor` on a working machine and on broken ones."""

import re
import tomllib
import types
from pathlib import Path

import pytest

from gald.config import CONF_DIR
from gald.doctor import command as module
from gald.doctor import machine
from gald.doctor.command import main as doctor
from gald.doctor.machine import Driver, find_driver, free_disk, memory
from gald.install.extras import EXTRAS


@pytest.fixture
def conf(tmp_path, monkeypatch):
    """A configuration folder with two datasets, one of them on disk."""
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "train.yaml").write_text("data_dir: ${oc.env:GALD_DATA,data}\n")
    options = {
        "present": "root: ${data_dir}/present",
        "missing": "root: ${data_dir}/missing",
        "generated": "size: 3",
    }
    for name, text in options.items():
        (tmp_path / "conf" / "data" / f"{name}.yaml").write_text(text + "\n")
    (tmp_path / "sets" / "present").mkdir(parents=True)
    monkeypatch.setenv("GALD_DATA", str(tmp_path / "sets"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setattr(module, "_conf_dir", lambda: tmp_path / "conf")
    monkeypatch.setattr(module, "is_of_make", lambda: False)
    monkeypatch.setattr("gald.install.extras.is_of_make", lambda: False)
    return tmp_path / "conf"


@pytest.fixture
def versions(monkeypatch):
    """Versions that a test pretends to be installed (None: not installed)."""
    fake_versions = {}
    installed = module._version
    monkeypatch.setattr(
        module,
        "_version",
        lambda name: fake_versions[name] if name in fake_versions else installed(name),
    )
    return fake_versions


@pytest.fixture
def no_imports(monkeypatch):
    """Skip imports and hardware in tests that only need metadata."""
    monkeypatch.setattr(module.importlib, "import_module", types.ModuleType)
    monkeypatch.setattr(module, "_report_hardware", lambda report, torch: None)


def problems(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem: ")]


def test_working_machine_is_ready_and_every_section_is_printed(conf, capsys):
    assert doctor() == 0
    out = capsys.readouterr().out
    for word in ("python", "torchvision", "cpu", "cores", "32-true", "ddp", "offline", "is ready"):
        assert word in out
    assert str(conf) in out


def test_every_hard_dependency_is_checked():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    names = {re.match(r"[\w-]+", line)[0] for line in project["dependencies"]}
    assert names == {*module._NEEDED, *module._OPTIONAL}


def test_data_roots_are_resolved_and_checked(conf, no_imports, capsys):
    doctor()
    out = capsys.readouterr().out
    assert f"{conf.parent / 'sets' / 'present'} (found)" in out
    assert f"{conf.parent / 'sets' / 'missing'} (not found)" in out
    assert "data=generated" not in out


def test_every_dataset_on_disk_is_searched_below_gald_data(monkeypatch, tmp_path):
    monkeypatch.setenv("GALD_DATA", str(tmp_path))
    (tmp_path / "cityscapes").mkdir()
    (tmp_path / "camvid").write_bytes(b"a zip is a valid root too")
    files = (CONF_DIR / "data").glob("*.yaml")
    existing = {"cityscapes": "found", "camvid": "found"}
    assert module._data_roots(CONF_DIR) == {
        file.stem: f"{tmp_path / file.stem} ({existing.get(file.stem, 'not found')})"
        for file in files
        if not file.stem.startswith("synthetic")  # drawn by code
    }


def test_a_root_that_cannot_be_resolved_does_not_hide_the_others(conf, no_imports, capsys):
    (conf / "data" / "missing.yaml").write_text("root: ${nowhere}/missing\n")
    assert doctor() == 0
    out = capsys.readouterr().out
    assert "unknown: " in out
    assert "(found)" in out


def test_wandb_mode_follows_the_environment(conf, no_imports, monkeypatch, capsys):
    monkeypatch.setenv("WANDB_MODE", "online")
    doctor()
    assert "online (WANDB_MODE)" in capsys.readouterr().out


def test_missing_package_is_reported_with_the_remedy(conf, no_imports, versions, capsys):
    versions["timm"] = None
    assert doctor() == 1
    assert problems(capsys) == ["problem: timm is not installed; run: pip install timm"]


def test_a_clone_is_told_to_install_anew(conf, no_imports, versions, monkeypatch, capsys):
    monkeypatch.setattr(module, "is_of_make", lambda: True)
    versions["timm"] = None
    assert doctor() == 1
    (problem,) = problems(capsys)
    assert "timm is not installed; run: make " in problem and problem.endswith("-B install")


def test_extras_are_listed_with_what_they_are_for(conf, no_imports, monkeypatch, capsys):
    absent = "mlflow"
    monkeypatch.setattr(module, "missing_packages", lambda name: ["x"] * (name == absent))
    assert doctor() == 0
    out = capsys.readouterr().out
    for name, extra in EXTRAS.items():
        state = f"not installed; run: pip install 'gald[{name}]'" if name == absent else "installed"
        assert f"{name} " in out and f"{extra.purpose}: {state}" in out


def test_package_of_an_extra_that_is_too_old_is_a_problem(
    conf, no_imports, versions, monkeypatch, capsys
):
    wanted = ['kornia-rs>=0.2; extra == "data"', 'gradio>=99; extra == "none"', "timm>=0.1"]
    monkeypatch.setattr(module.metadata, "requires", lambda name: wanted if name == "gald" else [])
    versions["kornia-rs"] = "0.1.9"
    assert doctor() == 1
    assert problems(capsys) == [
        "problem: kornia-rs is 0.1.9, but gald[data] needs >=0.2; run: pip install 'gald[data]'"
    ]


def test_missing_optional_package_is_not_a_problem(conf, no_imports, versions, capsys):
    versions["wandb"] = None
    assert doctor() == 0
    assert "logger=csv works" in capsys.readouterr().out


def test_package_that_is_too_old_is_named_with_both_versions(conf, no_imports, versions, capsys):
    versions["timm"] = "0.9.1"
    assert doctor() == 1
    (problem,) = problems(capsys)
    assert "timm is 0.9.1, but gald needs >=" in problem
    assert "pip install 'timm>=" in problem


@pytest.mark.parametrize(
    ("torch", "required", "compatible"),
    [
        ("2.13.0", "torch==2.15.0", False),
        ("2.13.0", "torch (>=2.14.0)", False),
        ("2.15.0", "torch (>=2.14.0)", True),
        ("2.15.0+cpu", "torch==2.15.0", True),
    ],
)
def test_torch_is_compared_with_the_requirement_of_torchvision(
    conf, no_imports, versions, monkeypatch, capsys, torch, required, compatible
):
    versions["torch"] = torch
    requires = module.metadata.requires
    monkeypatch.setattr(
        module.metadata,
        "requires",
        lambda name: [required] if name == "torchvision" else requires(name),
    )
    assert doctor() == (0 if compatible else 1)
    printed = problems(capsys)
    assert len(printed) == (0 if compatible else 1)
    assert all(f"but torch is {torch}; run: pip install" in problem for problem in printed)


def test_torchvision_built_for_another_torch_is_reported_once(
    conf, no_imports, monkeypatch, capsys
):
    def broken(name):
        if name in ("torchvision", "timm", "torchmetrics"):
            raise RuntimeError("operator torchvision::nms does not exist\nand further lines")
        return types.ModuleType(name)

    monkeypatch.setattr(module.importlib, "import_module", broken)
    assert doctor() == 1
    (problem,) = problems(capsys)
    assert "was not built for torch" in problem
    assert "operator torchvision::nms does not exist" in problem
    assert "further lines" not in problem


def test_package_that_does_not_import_is_reported_in_one_sentence(
    conf, no_imports, monkeypatch, capsys
):
    def broken(name):
        if name == "cv2":
            raise ImportError("libGL.so.1: cannot open shared object file")
        return types.ModuleType(name)

    monkeypatch.setattr(module.importlib, "import_module", broken)
    assert doctor() == 1
    (problem,) = problems(capsys)
    assert "opencv-python-headless" in problem
    assert "libGL.so.1" in problem


def test_configuration_without_train_yaml_is_a_problem(conf, no_imports, capsys):
    (conf / "train.yaml").unlink()
    assert doctor() == 1
    assert problems(capsys) == [f"problem: {conf} has no train.yaml; reinstall gald"]


def test_half_precision_and_memory_are_listed_if_there_is_a_gpu():
    gpu = types.SimpleNamespace(name="Some GPU", total_memory=24 * 2**30)
    torch = types.SimpleNamespace(
        get_num_threads=lambda: 1,
        cuda=types.SimpleNamespace(
            is_available=lambda: True,
            device_count=lambda: 1,
            get_device_properties=lambda index: gpu,
        ),
        backends=types.SimpleNamespace(mps=types.SimpleNamespace(is_available=lambda: False)),
        distributed=types.SimpleNamespace(is_available=lambda: False),
    )
    report = module._Report()
    module._report_hardware(report, torch)
    rows = {name: value for _, name, value in report.rows}
    assert rows["cuda:0"] == "Some GPU, 24.0 GiB"
    assert rows["precision"] == "32-true, bf16-mixed, 16-mixed"
    assert rows["strategy"] == "auto"


def report_on(built, driver):
    report = module._Report()
    version = types.SimpleNamespace(cuda=built)
    module._report_driver(report, types.SimpleNamespace(version=version), driver)
    ((_, name, value),) = report.rows
    assert name == "nvidia driver"
    return value, report.problems


@pytest.mark.parametrize("built", ["13.2", "12.6", None])
def test_without_a_driver_nothing_is_compared(built):
    assert report_on(built, None) == ("none", [])


@pytest.mark.parametrize("built", ["13.2", "13.0", "12.8"])
def test_a_driver_runs_older_cuda_and_newer_with_the_same_first_number(built):
    row, found = report_on(built, Driver("580.65.06", (13, 0)))
    assert row == f"580.65.06 runs CUDA up to 13.0; torch is built for CUDA {built}"
    assert not found


def test_a_driver_that_is_too_old_for_torch_is_a_problem(versions, monkeypatch):
    versions["torch"] = "2.15.0"
    monkeypatch.setattr(module, "is_of_make", lambda: True)
    _, (problem,) = report_on("13.2", Driver("535.104.05", (12, 2)))
    assert problem.startswith("NVIDIA's driver 535.104.05 runs CUDA up to 12.2, but torch 2.15.0 ")
    assert "built for CUDA 13.2; update the driver, or" in problem
    assert problem.endswith(" install TORCH=auto")
    monkeypatch.setattr(module, "is_of_make", lambda: False)
    _, (problem,) = report_on("13.2", Driver("", (12, 2)))
    assert problem.startswith("NVIDIA's driver runs") and "--torch-backend=auto" in problem


def test_a_gpu_that_torch_cannot_use_is_shown(monkeypatch):
    row, found = report_on(None, Driver("580.65.06", (13, 0)))
    assert "but torch has no CUDA; run: " in row and not found


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (
            "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |",
            Driver("535.104.05", (12, 2)),
        ),
        (
            "| NVIDIA-SMI 595.10   Driver Version: 595.10.02   CUDA UMD Version: 13.2 |",
            Driver("595.10.02", (13, 2)),
        ),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", None),
    ],
)
def test_the_driver_is_read_from_nvidia_smi(header, expected, tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{header}\nEND\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.setattr(machine.ctypes, "CDLL", no_library)
    assert find_driver() == expected


def no_library(name):
    raise OSError(f"{name}: cannot open shared object file")


def test_the_driver_is_read_from_its_library_where_there_is_no_program(tmp_path, monkeypatch):
    def get_version(pointer):
        pointer._obj.value = 12040
        return 0

    library = types.SimpleNamespace(cuDriverGetVersion=get_version)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.ctypes, "CDLL", lambda name: library)
    assert find_driver() == Driver("", (12, 4))
    monkeypatch.setattr(machine.ctypes, "CDLL", no_library)
    assert find_driver() is None


def test_memory_is_that_of_the_container(tmp_path):
    (tmp_path / "proc").mkdir()
    text = "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:   8192 kB\n"
    (tmp_path / "proc/meminfo").write_text(text)
    assert memory(tmp_path) == (8192 * 1024, 16384 * 1024)
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.current").write_text("1048576\n")
    for limit, expected in (("max", (8 << 20, 16 << 20)), (4 << 20, (3 << 20, 4 << 20))):
        (group / "memory.max").write_text(f"{limit}\n")
        assert memory(tmp_path) == expected
    (tmp_path / "proc/meminfo").unlink()
    assert memory(tmp_path)[0] is None  # macOS


def test_disk_is_that_of_the_folder_that_will_be_created(tmp_path, monkeypatch):
    asked = []
    disk = types.SimpleNamespace(free=7)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: asked.append(path) or disk)
    assert free_disk(tmp_path / "not" / "there") == 7
    assert asked == [tmp_path]


def test_memory_and_disk_are_shown_and_a_full_disk_is_a_problem(
    conf, no_imports, monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "memory", lambda: (3 << 30, 5 << 30))
    monkeypatch.setattr(module, "free_disk", lambda path: 2 << 30)
    assert doctor() == 0
    out = capsys.readouterr().out
    assert "3.0 GiB free of 5.0 GiB" in out
    assert (
        f"{tmp_path / 'runs'}, 2.0 GiB free" in out and f"{tmp_path / 'sets'}, 2.0 GiB free" in out
    )
    monkeypatch.setattr(module, "free_disk", lambda path: 5 << 20)
    assert doctor() == 1
    (problem,) = problems(capsys)
    assert f"{Path('runs').absolute()} has 5 MiB free" in problem and "output_dir=FOLDER" in problem


def test_windows_is_a_problem_with_a_way_out(monkeypatch):
    report = module._Report()
    monkeypatch.setattr(module.os, "name", "nt")
    monkeypatch.setattr(module.platform, "system", lambda: "Windows")
    module._report_versions(report)
    assert any("this is Windows; run it in the Windows Subsystem" in p for p in report.problems)
