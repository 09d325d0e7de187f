"""Ablations in conf/experiment: their factors, and that each cell composes."""

import itertools
import json

import pytest
from omegaconf import OmegaConf

from gald.config import CONF_DIR, compose
from gald.sweep.table.consistency import without_irrelevant

EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "experiment").glob("ablation_*.yaml"))


@pytest.mark.integration
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_cell_of_an_ablation_is_a_different_run(experiment):
    whole = compose("train", [f"experiment={experiment}"], hydra=True)
    assert whole.hydra.mode.name == "MULTIRUN" and whole.name == experiment
    params = {key: values.split(",") for key, values in whole.hydra.sweeper.params.items()}
    assert "seed" in params and len(params) > 1
    levels = [[f"{key}={value}" for value in values] for key, values in params.items()]
    cells = [
        compose("train", [f"experiment={experiment}", *cell]) for cell in itertools.product(*levels)
    ]
    resolved = [OmegaConf.to_container(cell, resolve=True) for cell in cells]
    assert len({json.dumps(without_irrelevant(config)) for config in resolved}) == len(cells)
