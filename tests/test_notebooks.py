"""Every notebook runs clean, says what its paired script says, and stays small."""

import json
from pathlib import Path

import jupytext
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / "notebooks").glob("*.py"))
# What a test can wait for; the cells are the same.
SMALL = {
    "01_quickstart": "EPOCHS = 1; IMAGES = 8",
    "02_datasets": "DATA += ['data.train_count=6']; IMAGES = 2",
    "03_affinity_maps": "EPOCHS = 1; TRAIN_IMAGES = 8; VAL_IMAGES = 4",
    "04_ablation": "SAMPLES = 200",
}
every_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])


def test_scripts_are_found():
    assert [path.stem for path in SCRIPTS] == sorted(SMALL)


def outputs(notebook):
    return [out for cell in notebook.cells for out in cell.get("outputs", [])]


def has_picture(output):
    return any(kind.startswith("image/") for kind in output.get("data", {}))


@every_notebook
def test_notebook_runs_clean(script, tmp_path, monkeypatch):
    monkeypatch.setenv("GALD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = jupytext.read(script)
    parameters = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    parameters.source += "\n" + SMALL[script.stem]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}})
    client.execute()  # raises what a cell raises
    said = [out["text"] for out in outputs(notebook) if out.get("name") == "stderr"]
    assert not said, said
    assert any(has_picture(out) for out in outputs(notebook))


@every_notebook
def test_notebook_and_script_say_the_same(script):
    paired = [jupytext.read(path).cells for path in (script, script.with_suffix(".ipynb"))]
    ours, theirs = ([(cell.cell_type, cell.source) for cell in cells] for cells in paired)
    assert ours == theirs, "run make notebooks"


@every_notebook
def test_notebook_keeps_figures_small_and_no_places(script):
    text = script.with_suffix(".ipynb").read_text()
    assert len(text) < 500_000
    notebook = json.loads(text)
    shown = [out for cell in notebook["cells"] for out in cell.get("outputs", [])]
    assert any(has_picture(out) for out in shown)
    assert not any(out["output_type"] == "error" for out in shown)
    for place in ("site-packages", "/home/", "/tmp/", str(ROOT)):
        assert place not in text
