"""The launchers of joblib and submitit run the same cells, two processes each, where installed."""

import pytest

from gald.sweep.manifest import Manifest

from .test_traps import TINY, processes, start


@pytest.mark.slow
@pytest.mark.parametrize("name", ["joblib", "submitit_local"])
def test_cells_of_two_processes_run_under_another_launcher(tmp_path, name):
    pytest.importorskip(f"hydra_plugins.hydra_{name.partition('_')[0]}_launcher")
    process = start(tmp_path, *TINY, "trainer=ddp_cpu", "seed=0,1", f"hydra/launcher={name}")
    assert process.wait(timeout=580) == 0, (tmp_path / "launcher.log").read_text()
    manifest = Manifest.load(tmp_path / "runs" / "train")
    assert manifest.count()["done"] == 2 and sorted(manifest.factors["seed"]) == ["0", "1"]
    assert processes(tmp_path) == []
