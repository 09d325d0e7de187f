"""Targets of make with another uv, which writes down its arguments and installs nothing."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UV = """#!/bin/sh
echo "$*" >> uv.log
case "$*" in
*--dry-run*torch-backend=cu1*) echo "error: no route" >&2; exit 2 ;;
*--dry-run*--extra\\ unknown*) echo "error: Requested extra not found: unknown" >&2; exit 2 ;;
*freeze*) printf '%s\\n' torch==2.15.0 nvidia-cudnn-cu13==9 triton==3.9 cuda-toolkit==13 numpy==2 ;;
esac
"""


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Return a function that runs make in a clone and returns its result and the calls of uv."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "requirements").mkdir()
    shutil.copy(ROOT / "requirements/lock.txt", tmp_path / "requirements")
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/uv").write_text(UV)
    (tmp_path / ".venv/bin/uv").chmod(0o755)
    (tmp_path / ".venv/.uv").touch()
    for name in ("EXTRAS", "TORCH", "MAKEFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)

    def run(*words, code=0):
        done = subprocess.run(["make", *words], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == code, done.stdout + done.stderr
        log = tmp_path / "uv.log"
        calls = log.read_text().splitlines() if log.is_file() else []
        log.unlink(missing_ok=True)
        return done.stdout + done.stderr, calls

    return run


def extras(call):
    words = call.split()
    return {words[i + 1] for i, word in enumerate(words) if word == "--extra"}


def test_an_installation_has_hashes_and_the_developers_extras(make):
    _, (dry, install, editable) = make("install")
    assert "--dry-run" in dry and "--dry-run" not in install
    assert "--require-hashes -c requirements/lock.txt -r pyproject.toml" in install
    assert {"data", "dev", "docs", "serve"} <= extras(install) == extras(dry)
    assert not extras(install) & {"mlflow"}
    assert "hatchling==" in install and "torch-backend" not in install
    assert editable.endswith("--no-deps --no-build-isolation -e .")
    assert make("install")[1] == []  # complete


def test_extras_of_the_command_line_are_installed_alone_and_then_added(make):
    assert extras(make("install", "EXTRAS=serve lite0")[1][1]) == {"serve", "lite0"}
    assert extras(make("install", "EXTRAS=mlflow,serve")[1][1]) == {"mlflow", "serve"}
    assert make("install")[1] == []
    assert "--extra" not in make("install", "EXTRAS=")[1][1]


def test_targets_of_developers_install_what_they_need(make):
    make("install", "EXTRAS=serve")
    printed, calls = make("-n", "lint")
    assert calls == [] and "--extra dev" in printed
    printed = make("-n", "lint", "EXTRAS=mlflow")[0]
    assert "--extra dev" in printed and "--extra mlflow" in printed


def test_what_cannot_be_installed_leaves_the_environment_complete(make):
    make("install")
    printed, calls = make("install", "EXTRAS=unknown", code=2)
    assert "Requested extra not found: unknown" in printed and len(calls) == 1
    assert make("install")[1] == []


def test_another_torch_replaces_the_present_one_and_stays(make, tmp_path):
    make("install")
    printed, (dry, freeze, uninstall, install, _) = make("install", "TORCH=cpu", "EXTRAS=lite0")
    lock = (tmp_path / ".venv/lock-without-torch.txt").read_text()
    whole = (tmp_path / "requirements/lock.txt").read_text()
    pins = [line.split()[0] for line in whole.splitlines() if line.startswith("torch")]
    for call in (dry, install):
        assert "--torch-backend=cpu" in call and "--require-hashes" not in call
        assert "-c .venv/lock-without-torch.txt" in call
    assert "freeze" in freeze and "uninstall" in uninstall
    removed = (tmp_path / ".venv/.other").read_text().split()
    assert removed == ["torch", "nvidia-cudnn-cu13", "triton", "cuda-toolkit"]
    assert "://" not in printed
    # the same pins, with hashes but for torch, and nothing of CUDA
    names = [line for line in lock.splitlines() if line[:1].isalnum()]
    assert [line for line in names if not line.endswith("\\")] == [
        pin for pin in pins if pin.startswith(("torch==", "torchvision=="))
    ]
    assert not [line for line in names if line.startswith(("nvidia", "cuda", "triton"))]
    kept = [line for line in whole.splitlines() if line[:1].isalnum()]
    gone = [line for line in kept if line not in names]
    assert all(line.startswith(("nvidia-", "cuda-", "triton==", "torch")) for line in gone)
    # later calls keep the choice
    assert make("install")[1] == []
    later = make("install", "EXTRAS=serve")[1]
    assert len(later) == 3 and all("--torch-backend=cpu" in call for call in later[:2])
    back = make("install", "TORCH=")[1]
    assert "uninstall" in back[2] and "--require-hashes" in back[3]


def test_a_torch_that_cannot_be_had_is_said_with_the_remedy_and_nothing_is_removed(make):
    make("install")
    printed, calls = make("demo", "TORCH=cu118", code=2)
    assert "TORCH=cu118 cannot be installed" in printed and "make demo TORCH=" in printed
    assert len(calls) == 1
    assert make("install")[1] == []


def test_the_environment_may_set_what_to_install(make, monkeypatch):
    monkeypatch.setenv("TORCH", "cpu")
    monkeypatch.setenv("EXTRAS", "lite0")
    assert any("--torch-backend=cpu" in call for call in make("install")[1])
