"""Reading and encoding run beside the network, in order and with bounded memory."""

import threading
import time

import pytest

from gald.prediction import pipeline as module
from gald.prediction.pipeline import pipeline


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    monkeypatch.setattr(module, "threads_beside", lambda: 2)


def test_results_are_in_order_and_the_network_stays_in_the_thread_of_the_caller():
    seen = {"read": set(), "predict": set(), "encode": set()}

    def step(name, change):
        def run(value):
            seen[name].add(threading.current_thread().name)
            time.sleep(0.002 * (value % 3))
            return change(value)

        return run

    found = pipeline(
        range(12),
        step("read", lambda x: x + 100),
        step("predict", lambda x: 2 * x),
        step("encode", lambda x: -x),
    )
    assert list(found) == [-2 * (x + 100) for x in range(12)]
    own = threading.current_thread().name
    assert seen["predict"] == {own}
    assert own not in seen["read"] | seen["encode"]


@pytest.mark.parametrize("step", ["read", "predict", "encode"])
def test_error_is_raised_after_the_results_before_it(step):
    def run(name):
        def call(value):
            if name == step and value == 4:
                raise KeyError("four")
            return value

        return call

    results = []
    with pytest.raises(KeyError, match="four"):
        for result in pipeline(range(9), run("read"), run("predict"), run("encode")):
            results.append(result)
    assert results == [0, 1, 2, 3]


def test_few_items_are_read_and_predicted_ahead_of_the_caller():
    read, predicted = [], []
    results = pipeline(
        range(50),
        lambda x: read.append(x) or x,
        lambda x: predicted.append(x) or x,
        lambda x: time.sleep(0.05) or x,
    )
    next(results)
    time.sleep(0.1)
    assert len(predicted) <= 6 and len(read) <= 9
    results.close()
    assert threading.active_count() < 20 and len(read) <= 9
