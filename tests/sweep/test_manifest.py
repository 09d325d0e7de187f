import json

import pytest

from gald.config import compose
from gald.sweep.manifest import Cell, Manifest, cell_hash, edit


def composed(*overrides):
    return compose("train", list(overrides))


@pytest.fixture
def manifest(tmp_path):
    cells = {
        f"{ga}{seed}": Cell([f"model/ga={ga}", "model/ld=mask", f"seed={seed}"], f"{ga}-{seed}")
        for ga in ("none", "psp")
        for seed in (0, 1)
    }
    manifest = Manifest(tmp_path / "sweep", "sweep", ["gald", "train", "-m"], cells)
    manifest.save()
    return manifest


def test_saved_manifest_loads_unchanged(manifest):
    manifest.cells["psp1"].state = "failed"
    manifest.cells["psp1"].reason = "out of memory"
    manifest.save()
    assert Manifest.load(manifest.path) == manifest
    assert manifest.count() == {"pending": 3, "running": 0, "done": 0, "failed": 1}
    assert [path.name for path in manifest.path.iterdir()] == ["manifest.json"]


def test_factors_are_keys_that_differ_between_cells(manifest):
    assert manifest.factors == {"model/ga": ["none", "psp"], "seed": ["0", "1"]}
    content = json.loads((manifest.path / "manifest.json").read_text())
    assert content["factors"] == manifest.factors and content["version"] == 1


def test_earlier_edits_are_kept(manifest):
    with edit(manifest.path) as first:
        first.cells["none0"].state = "done"
    with edit(manifest.path) as second:
        assert second.cells["none0"].state == "done"


def test_folder_without_a_sweep_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no sweep .* name the folder"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("damage", ["{", "[]", '{"version": 1}'])
def test_damaged_manifest_is_named(manifest, damage):
    (manifest.path / "manifest.json").write_text(damage)
    with pytest.raises(
        ValueError, match=r"manifest\.json .*delete it and repeat the sweep's command"
    ):
        Manifest.load(manifest.path)


def test_hash_depends_only_on_settings_that_decide_the_outcome():
    base = cell_hash(composed("seed=1"))
    assert len(base) == 12
    for other in ("output_dir=/a/b", "name=x", "logger=csv", "data.num_workers=7", "ckpt_path=a"):
        assert cell_hash(composed("seed=1", other)) == base, other
    for change in ("seed=2", "model/ga=psp", "optimizer.lr=0.5", "data.global_batch_size=4"):
        assert cell_hash(composed("seed=1", change)) != base, change


def test_hash_uses_the_resolved_config():
    assert cell_hash(composed("data.seed=${seed}")) == cell_hash(composed())
