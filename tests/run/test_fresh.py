"""A folder that a new start may use: nothing in it is worth more than the start."""

import pytest
import torch

from gald.run.fresh import may_start_afresh


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def save(folder, name="best", epoch=0, callbacks=("last",)):
    about = {"config": {"callbacks": {name: {} for name in callbacks}}}
    content = {"state_dict": {}, "epoch": epoch, "gald": about}
    torch.save(content, folder / "checkpoints" / f"{name}.ckpt")


def test_a_folder_without_checkpoints_and_results_may_be_used(folder):
    assert may_start_afresh(folder, began=False) and may_start_afresh(folder, began=True)
    (folder / "results.json").write_text("{}")
    assert not may_start_afresh(folder, began=True)


def test_the_best_network_of_a_first_epoch_that_was_interrupted_is_worth_no_more(folder):
    save(folder)
    assert may_start_afresh(folder, began=True)
    assert not may_start_afresh(folder, began=False)  # it is somebody else's
    save(folder, "last")
    assert not may_start_afresh(folder, began=True)


def test_later_epochs_and_all_that_a_run_without_last_checkpoints_has_are_kept(folder):
    save(folder, epoch=1)
    assert not may_start_afresh(folder, began=True)
    save(folder, callbacks=())
    assert not may_start_afresh(folder, began=True)
    (folder / "checkpoints" / "best.ckpt").write_text("damaged")
    assert not may_start_afresh(folder, began=True)
