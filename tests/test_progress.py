import os
import threading
import time

import pytest

from gald.progress import in_order, say


def test_results_come_in_order_whatever_each_takes():
    def work(index):
        time.sleep(0.002 * (index % 3))
        return 10 * index

    assert list(in_order(work, range(3, 40), "work")) == [10 * i for i in range(3, 40)]


def test_it_uses_several_threads(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    meet = threading.Barrier(2, timeout=5)
    assert len(list(in_order(lambda _: meet.wait(), range(2), "work"))) == 2


def test_no_more_is_begun_than_is_asked_for(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    begun = []
    results = in_order(begun.append, range(100), "work")
    next(results)
    time.sleep(0.05)
    assert len(begun) <= 4
    results.close()
    assert len(begun) <= 4


def test_an_error_comes_after_the_results_before_it():
    def work(index):
        if index == 5:
            raise KeyError("five")
        return index

    seen = []
    with pytest.raises(KeyError, match="five"):
        for result in in_order(work, range(100), "work"):
            seen.append(result)
    assert seen == [0, 1, 2, 3, 4]


def test_the_bar_ends_at_all_of_it(capsys):
    list(in_order(lambda index: index, range(5, 8), "work through"))
    said = capsys.readouterr().err
    assert "work through" in said and "100%" in said


@pytest.mark.parametrize("rank", ["1", "7"])
def test_other_ranks_are_silent(capsys, monkeypatch, rank):
    monkeypatch.setenv("LOCAL_RANK", rank)
    say("a line")
    list(in_order(lambda index: index, range(3), "work"))
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_line_stays_one_line_and_as_it_is(capsys):
    line = "[bold] " + "/a/long/path " * 30
    say(line)
    assert capsys.readouterr().err == line + "\n"
