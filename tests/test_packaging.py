"""Lock file, sdist and wheel, make targets, workflow and citation."""

import importlib.metadata
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import gald

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pins():
    """Each pinned requirement of the lock file, with continuation lines joined."""
    text = (ROOT / "requirements" / "lock.txt").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_lock_names_no_host_and_hashes_every_line():
    assert "://" not in (ROOT / "requirements" / "lock.txt").read_text()
    for line in pins():
        assert re.match(r"[A-Za-z0-9._-]+==\S+", line), line
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", line), line


def test_lock_covers_every_declared_dependency():
    extras = PROJECT["optional-dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    installed = re.search(r"^DEVELOPMENT := (.*)$", makefile, re.MULTILINE).group(1).split()
    assert set(extras) - set(installed) == {"mlflow"}, "too large for the default"
    requirements = [*PROJECT["dependencies"]]
    for packages in extras.values():
        requirements += packages
    names = {normal(re.match(r"[A-Za-z0-9._-]+", line).group()) for line in requirements}
    locked = {normal(line.split("==")[0]) for line in pins()}
    assert names <= locked, "run make lock"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Names of the files in the sdist and in the wheel."""
    out = tmp_path_factory.mktemp("dist")
    build = "import sys; from hatchling import build; build.build_{0}(sys.argv[1])"
    for kind in ("sdist", "wheel"):
        command = [sys.executable, "-c", build.format(kind), str(out)]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        wheel = set(archive.namelist())
    return sdist, wheel


def tracked(folder):
    return {
        file.relative_to(ROOT / folder).as_posix()
        for file in (ROOT / folder).rglob("*.yaml")
        if "local" not in file.parts
    }


def test_wheel_ships_every_configuration_file_and_the_type_marker(built):
    _, wheel = built
    assert {"gald/conf/train.yaml", "gald/py.typed"} <= wheel
    assert {f"gald/prediction/serve_view.{kind}" for kind in ("js", "css")} <= wheel
    shipped = {n.removeprefix("gald/conf/") for n in wheel if n.startswith("gald/conf/")}
    assert tracked("conf") <= shipped


def test_sdist_has_the_sources_of_the_wheel(built):
    sdist, _ = built
    assert {"pyproject.toml", "LICENSE", "README.md", "src/gald/py.typed"} <= sdist
    assert {f"conf/{name}" for name in tracked("conf")} <= sdist


def test_the_zoo_is_in_the_repository_alone(built):
    assert (ROOT / "zoo" / "demo" / "model.safetensors").is_file()
    assert not [name for kind in built for name in kind if name.split("/")[0] == "zoo"]
    assert not [name for kind in built for name in kind if name.endswith(".safetensors")]


def test_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == gald.__version__ == importlib.metadata.version("gald")


def test_citation_names_both_papers():
    references = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    identifiers = {entry["value"] for paper in references for entry in paper["identifiers"]}
    assert identifiers == {"arXiv:2107.13154", "arXiv:1909.07229"}


def test_make_without_a_target_lists_every_target_with_help():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    out = subprocess.run(["make"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    listed = dict(re.findall(r"^make (\S+) +(\S.*)$", out, re.MULTILINE))
    assert set(listed) == set(phony)


def test_unsupported_python_is_refused_in_one_sentence(tmp_path):
    old = tmp_path / "python3.8"
    # A fake interpreter of another version: it runs the given code with a false version number.
    pretend = "import sys; sys.version_info = (3, 8, 0); exec(sys.argv[1])"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}' \"$2\"\n")
    old.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={old}", ".venv/.uv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0
    first = done.stderr.splitlines()[0]
    assert first.startswith("gald needs Python 3.11, 3.12 or 3.13, but")
    assert "is 3.8; choose another: make PYTHON=" in first
    assert not (tmp_path / ".venv").exists()


def test_workflow_and_ci_run_only_call_make():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [step["run"] for step in steps if "run" in step]
    assert sorted(commands) == ["make ci", "make demo", "make docs"]
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert script[-2:] == ["make test", "make test-integration"]
    assert (ROOT / ".ci/run").stat().st_mode & 0o111
