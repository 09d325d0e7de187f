"""`gald doctor` on a working machine and on broken ones."""

import types

import pytest

from gald.config import CONF_DIR
from gald.doctor import command as module
from gald.doctor.command import main as doctor


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
        if file.stem != "synthetic"
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
