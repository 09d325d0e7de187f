import os
import re
import threading
import time

import pytest

import gald
from gald.progress import in_order, say


def test_results_are_in_order_whatever_time_each_takes():
    def work(index):
        time.sleep(0.002 * (index % 3))
        return 10 * index

    assert list(in_order(work, range(3, 40), "work")) == [10 * i for i in range(3, 40)]


def test_work_runs_on_several_threads(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    barrier = threading.Barrier(2, timeout=5)
    assert len(list(in_order(lambda _: barrier.wait(), range(2), "work"))) == 2


def test_only_a_few_calls_run_ahead_of_the_consumer(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    started = []
    results = in_order(started.append, range(100), "work")
    next(results)
    time.sleep(0.05)
    assert len(started) <= 4
    results.close()
    assert len(started) <= 4


def test_error_is_raised_after_the_results_before_it():
    def work(index):
        if index == 5:
            raise KeyError("five")
        return index

    results = []
    with pytest.raises(KeyError, match="five"):
        for result in in_order(work, range(100), "work"):
            results.append(result)
    assert results == [0, 1, 2, 3, 4]


def test_bar_ends_at_100_percent(capsys):
    list(in_order(lambda index: index, range(5, 8), "some title"))
    printed = capsys.readouterr().err
    assert "some title" in printed and "100%" in printed


@pytest.mark.parametrize("rank", ["1", "7"])
def test_other_ranks_are_silent(capsys, monkeypatch, rank):
    monkeypatch.setenv("LOCAL_RANK", rank)
    say("a line")
    list(in_order(lambda index: index, range(3), "work"))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_line_is_printed_unchanged_and_unwrapped(capsys):
    line = "[bold] " + "/a/long/path " * 30
    say(line)
    assert capsys.readouterr().err == line + "\n"


def test_a_log_file_gets_a_line_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr("gald.progress.EVERY", 0.0)
    list(in_order(lambda index: index, range(20), "reading"))
    printed = capsys.readouterr().err
    assert re.search(r"^reading: \d+ of 20$", printed, flags=re.MULTILINE)


@pytest.mark.integration
def test_a_training_and_its_evaluation_print_a_line_now_and_then(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("gald.callbacks.progress.EVERY", 0.0)
    words = ["data.size=[48,64]", "data.train_transform.crop_size=[48,64]", "data.train_count=8"]
    words += ["data.val_count=4", "data.test_count=4", "data.num_workers=0", "metrics=miou"]
    words += ["data.global_batch_size=4", "data.eval_batch_size=2", "model.channels=16"]
    words += ["model.backbone.name=test_resnet", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    gald.train(*words, "logger=csv", f"output_dir={tmp_path}/run")
    printed = capsys.readouterr().out
    assert re.search(r"^epoch 1/1  step 1  of 2  .*s left$", printed, flags=re.MULTILINE)
    assert "validation: 1 of 2 batches" in printed and "test: 2 of 2 batches" in printed
