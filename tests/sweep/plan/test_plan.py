"""Plans of multiruns: cells, costs and warnings; nothing is written."""

import sys

import numpy as np
import pytest

from gald import cli
from gald.sweep.cells import Sweep, declare
from gald.sweep.plan.plan import plan
from gald.sweep.plan.power import (
    Assumption,
    detectable,
    detectable_by_contrast,
    power_sentence,
    seeds_needed,
)

TINY = (
    "model.channels=8",
    "model.backbone.name=test_resnet",
    "data.size=[32,48]",
    "data.train_transform.crop_size=[32,48]",
    "data.train_count=16",
    "data.val_count=2",
    "data.global_batch_size=4",
    "data.micro_batch_size=2",
)


@pytest.fixture(autouse=True)
def working_directory(tmp_path, monkeypatch):
    """Each test has its own working directory for relative sweep folders."""
    monkeypatch.chdir(tmp_path)


def planned(*words, **options):
    return plan([*TINY, *words], probing=False, **options)


def test_grid_becomes_cells_without_duplicates(capsys, tmp_path):
    entries = planned("model/ga=none,psp", "model/ld=none,mask", "seed=1,1", "name=grid")
    assert len(entries) == 4 and [entry.cell.number for entry in entries] == [0, 1, 2, 3]
    assert dict(entries[-1].values) == {"model/ga": "psp", "model/ld": "mask"}
    shown = capsys.readouterr().out
    assert "sweep runs/grid: 4 cells, 4 of 8 declared are duplicates and skipped" in shown
    assert "model/ga=psp model/ld=mask" in shown and "ga=none ld=none" in shown
    assert list(tmp_path.iterdir()) == []


def test_finished_cells_are_recognised(capsys, tmp_path):
    entries = planned("seed=0,1", "name=known")
    folder = tmp_path / "runs" / "known"
    (cell,) = declare(folder, "known", [], [entries[1].cell.overrides])
    (folder / cell.folder).mkdir()
    (folder / cell.folder / "results.json").write_text('{"val/miou": 0.5}')
    assert [entry.done for entry in planned("seed=0,1", "name=known")] == [False, True]
    assert "2 cells, 1 done already" in capsys.readouterr().out


@pytest.mark.integration
def test_experiment_with_multirun_params_and_globs_are_expanded():
    entries = planned("experiment=ablation_synthetic", "seed=0,1", "model/ld=mask")
    assert len(entries) > 3 and set(entries[0].values) == {"model/ga", "seed"}
    assert len(planned("model/ga=glob(g*)")) == len({"gap", "gc", "glore"})


def test_plan_is_declared_in_a_folder_without_being_run(gald_cli, capsys, tmp_path):
    words = ("sweep", "plan", *TINY, "model/ga=none,psp", "seed=0,1", "--to", "grid")
    gald_cli(*words)
    assert "4 cells in grid; to run them: gald sweep run grid" in capsys.readouterr().out
    sweep = Sweep.load(tmp_path / "grid")
    assert sweep.factors == {"model/ga": ["none", "psp"], "seed": ["0", "1"]}
    assert sweep.command[:3] == ["gald", "train", "-m"]
    assert [path.name for path in sweep.path.iterdir() if path.is_dir()] == []
    gald_cli(*words)  # declares nothing twice
    assert Sweep.load(tmp_path / "grid") == sweep


def test_plan_is_declared_in_the_home_folder_that_a_tilde_stands_for(
    gald_cli, capsys, tmp_path, monkeypatch
):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    gald_cli("sweep", "plan", *TINY, "seed=0,1", "--to=~/grid")
    assert f"2 cells in {home / 'grid'}; to run them" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
    assert len(Sweep.load(home / "grid").cells) == 2


def test_undeclared_differences_give_a_warning(capsys):
    plan(["experiment=demo,camvid_lite0"], probing=False)
    shown = capsys.readouterr().out
    assert "warning: schedule (trainer.max_epochs) differs outside the declared factors" in shown


def test_one_probe_measures_each_architecture(capsys):
    plan([*TINY, "model/ga=none", "seed=0,1", "trainer.max_epochs=3", "name=probe"])
    shown = capsys.readouterr().out
    assert "time: " in shown and "2 cells one after the other" in shown
    assert "memory: " in shown and "MiB on each device for all runs, the largest" in shown


def test_network_that_cannot_be_built_is_reported_by_the_plan(capsys):
    plan([*TINY, "model.channels=7", "model/ga=cgnl"])
    shown = capsys.readouterr().out
    assert "warning: all runs cannot train: " in shown and "7" in shown


@pytest.mark.integration
def test_too_few_seeds_give_a_warning_with_the_formula(capsys):
    planned("model/ga=none,psp", "seed=0,1")
    shown = capsys.readouterr().out
    assert "warning: 2 arms with 2 seeds can detect only" in shown
    assert "Formula: (t[1 - 0.05/2m, f]" in shown
    planned("model/ga=none,psp", "seed=0,1", difference=9.0)
    assert "seeds: 2 arms with 2 seeds can detect" in capsys.readouterr().out
    planned("model/ga=none,psp")
    shown = capsys.readouterr().out
    assert "2 arms with 1 seed can detect no difference, but --difference is 0.5" in shown


def test_deviation_of_a_pilot_is_the_paired_one(toy_sweep, capsys):
    # The mIoU of all arms rises by about 5 points from seed to seed, which no comparison sees.
    folder = toy_sweep(lambda ga, ld, seed: 0.6 + 0.05 * seed)
    planned("model/ga=none,psp", deviation=str(folder))
    shown = capsys.readouterr().out
    points = float(shown.split(" points between paired seeds")[0].rpartition("(")[2])
    assert 0.2 < points < 1.5
    assert f"measured in {folder} with 6 degrees of freedom, 95% interval " in shown


@pytest.mark.integration
def test_a_plan_without_a_deviation_says_that_it_assumes_one(capsys):
    planned("model/ga=none,psp", "seed=0,1,2")
    shown = capsys.readouterr().out
    assert "(0.54 points between paired seeds, assumed, from experiment=ablation_camvid;" in shown
    planned("model/ga=none,psp", "seed=0,1,2", deviation="0.3")
    assert "(0.3 points between paired seeds, given by --sd;" in capsys.readouterr().out


def test_pilot_without_seed_noise_is_refused(toy_sweep):
    folder = toy_sweep(seeds=(0,))
    with pytest.raises(ValueError, match="has no arm with two seeds of different mIoU; set --sd"):
        planned("model/ga=none,psp", deviation=str(folder))


PRIMARY = "hydra.sweeper.primary='ld=mask given ga != none on "


@pytest.mark.integration
def test_plan_says_what_the_primary_contrast_can_detect(capsys):
    grid = ("model/ga=none,psp", "model/ld=none,mask", "seed=0,1,2")
    planned(*grid, f"{PRIMARY}mIoU'", deviation="0.54")
    # One arm with mask minus one without: 3 x 2 degrees of freedom.
    expected = (2.4469 + 0.9057) * 0.54 * (2 / 3) ** 0.5
    line = "primary: ld=mask given ga != none on mIoU: can detect "
    assert f"{line}{expected:.2f} points or more" in capsys.readouterr().out
    planned(*grid, f"{PRIMARY}boundary F'")
    assert "is unknown, because the deviation of boundary F" in capsys.readouterr().out


def test_a_score_that_is_equal_in_all_runs_of_a_pilot_has_no_deviation(toy_sweep, capsys):
    pilot = str(toy_sweep())  # boundary F depends on the skill alone, and that is constant
    planned("model/ga=none,psp", "model/ld=none,mask", f"{PRIMARY}boundary F'", deviation=pilot)
    assert "is unknown, because the deviation of boundary F" in capsys.readouterr().out


def test_power_matches_the_textbook_formula():
    # Two arms, n seeds each: paired t with n - 1 degrees of freedom and deviation sqrt(2) sd.
    assert detectable(2, 10, 1.0) == pytest.approx((2.262 + 0.883) * (2 / 10) ** 0.5, rel=1e-3)
    # Each of three arms is compared at 0.05/3 at first, with 3 x 4 degrees of freedom.
    assert detectable(4, 5, 1.0) == pytest.approx((2.7795 + 0.8726) * (2 / 5) ** 0.5, rel=1e-3)
    assert detectable(2, 1, 1.0) == float("inf")
    needed = seeds_needed(4, 0.5, 0.4)
    assert needed and detectable(4, needed, 0.4) <= 0.5 < detectable(4, needed - 1, 0.4)
    assert f"take {needed} seeds" in power_sentence(4, 3, 0.5, Assumption(0.4, "given"))
    one = detectable_by_contrast(2, 10, 1.0, np.array([-1.0, 1]))
    assert one == pytest.approx(detectable(2, 10, 1.0))
    assert seeds_needed(4, 0.001, 10.0) is None
    assert (
        power_sentence(1, 3, 0.5, Assumption.default()) == "seeds: one arm only, nothing to compare"
    )


def test_command_reports_errors_in_one_sentence(monkeypatch, capsys):
    def run(*words):
        monkeypatch.setattr(sys, "argv", ["gald", "sweep", "plan", *words])
        with pytest.raises(SystemExit):
            cli.main()
        return capsys.readouterr().err

    assert "ga has no option 'pspp'" in run("model/ga=none,pspp")
    assert "--difference is 0" in run("seed=0,1", "--difference", "0")
    assert "holds no sweep" in run("seed=0,1", "--sd", "nowhere")
    for empty in ("", " "):
        assert "--sd is empty; set it to a number of points" in run("seed=0,1", "--sd", empty)
    error = run("--baseline", "ga=gc", "model/ga=none,psp")
    assert "0 arms match --baseline 'ga=gc'; choose one of 'model/ga=none', 'model/ga=psp'" in error
