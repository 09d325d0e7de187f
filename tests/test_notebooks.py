"""Every notebook runs without errors, equals its paired script, and stays small."""

import json
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
# Parameters that make the notebooks fast enough for a test; the cells are the same.
SMALL = {
    "01_quickstart": "EPOCHS = 1; IMAGES = 8",
    "02_datasets": "DATA += ['data.train_count=6']; IMAGES = 2",
    "03_affinity_maps": "VAL_IMAGES = 4",
    "04_ablation": "SAMPLES = 200",
}
every_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])


def test_scripts_are_found():
    assert [path.stem for path in SCRIPTS] == sorted(SMALL)


def outputs(notebook):
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def has_image(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


@pytest.mark.slow
@every_notebook
def test_notebook_runs_without_errors(script, tmp_path, monkeypatch):
    monkeypatch.setenv("GALD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = jupytext.read(script)
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += "\n" + SMALL[script.stem]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()  # raises what a cell raises
    printed = [out["text"] for out in outputs(notebook) if out.get("name") == "stderr"]
    assert not printed, printed
    assert any(has_image(out) for out in outputs(notebook))


@every_notebook
def test_notebook_and_script_have_the_same_cells(script):
    pair = [jupytext.read(path).cells for path in (script, script.with_suffix(".ipynb"))]
    expected, actual = ([(cell.cell_type, cell.source) for cell in cells] for cells in pair)
    assert expected == actual, "run make notebooks"


@every_notebook
def test_notebook_has_small_figures_and_no_machine_paths(script):
    text = script.with_suffix(".ipynb").read_text()
    assert len(text) < 500_000
    notebook = json.loads(text)
    stored = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    assert any(has_image(out) for out in stored)
    assert not any(out["output_type"] == "error" for out in stored)
    for path in ("site-packages", "/home/", "/tmp/", str(ROOT)):
        assert path not in text
