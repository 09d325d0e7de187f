"""Metrics run in threads beside the network, and nothing depends on the threads."""

import threading
import time

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import instantiate
from torch import nn

from gald.config import CONF_DIR
from gald.evaluation import evaluator as module
from gald.evaluation.evaluator import Evaluator
from gald.evaluation.last_validation import LastValidation
from gald.evaluation.task import EvaluationTask
from gald.inference import LabelMap
from gald.metrics.base import CountMetric

CLASSES = ["a", "b", "c"]


class Marks(CountMetric):
    """Counts the true pixels of class 1, and calls a function on each image."""

    name, label = "marks", "marks"

    def __init__(self, called=lambda mark: None):
        super().__init__(3, 1)
        self.called = called

    def count_arrays(self, labels, mask, confidence):
        mark = int((mask == 1).sum())
        self.called(mark)
        return np.array([mark])

    def scores(self, counts, class_names):
        return {"marks": float(counts[0])}


@pytest.fixture(params=[1, 3])
def threads(request, monkeypatch):
    monkeypatch.setattr(module, "threads_beside", lambda: request.param)
    return request.param


def image(mark):
    """A batch of one image with so many pixels of class 1."""
    mask = torch.zeros(1, 4, 8, dtype=torch.uint8)
    mask.view(-1)[:mark] = 1
    return LabelMap(torch.zeros_like(mask), None), mask, [f"image{mark:02}"]


def test_images_before_a_computation_do_not_count_in_the_next():
    evaluator = Evaluator([Marks()])
    for mark in (5, 3):
        evaluator.update(*image(mark))
        assert evaluator.compute(CLASSES) == {"marks": mark}


def test_hashes_tell_which_of_images_masks_and_predictions_differ():
    def hashes(mark, label=0, name="a"):
        evaluator = Evaluator([Marks()], per_image=True)
        evaluator.update(LabelMap(image(mark)[0].labels + label, None), image(mark)[1], [name])
        return evaluator.fingerprints()

    def differ(other):
        return {key for key, value in hashes(5).items() if other[key] != value}

    assert not differ(hashes(5))
    assert differ(hashes(6)) == {"ground_truth_sha256"}
    assert differ(hashes(5, label=1)) == {"predictions_sha256"}
    assert differ(hashes(5, name="b")) == {"images_sha256"}


def test_counts_of_threads_are_those_of_metrics_in_turn(threads):
    config = yaml.safe_load((CONF_DIR / "metrics" / "all.yaml").read_text())
    metrics = [make(3) for make in instantiate(config).values()]
    draw = torch.Generator().manual_seed(0)
    evaluators = [Evaluator(metrics, per_image) for per_image in (True, False)]
    expected = {metric.name: [] for metric in metrics}
    for number in range(5):
        labels, mask = torch.randint(0, 3, (2, 2, 20, 24), generator=draw, dtype=torch.uint8)
        batch = LabelMap(labels, torch.rand(2, 20, 24, generator=draw)), mask
        mask[:, :2] = 255
        for evaluator in evaluators:
            evaluator.update(*batch, [f"{number}a", f"{number}b"])
        for metric in metrics:
            for i in range(2):
                one = LabelMap(batch[0].labels[i], batch[0].confidence[i])
                expected[metric.name].append(metric.count(one, mask[i]).numpy())
    one, other = (evaluator.compute(CLASSES) for evaluator in evaluators)
    assert one == pytest.approx(other, rel=0, abs=0, nan_ok=True)
    for name, rows in expected.items():
        assert (evaluators[0].images.dense(name) == np.stack(rows)).all(), name


def test_images_are_kept_in_order_whatever_time_each_takes(threads):
    evaluator = Evaluator([Marks(lambda mark: time.sleep(0.01 * (mark % 3)))], per_image=True)
    for mark in range(10):
        evaluator.update(*image(mark))
    assert list(evaluator.images._rows["marks"]) == [f"image{mark:02}" for mark in range(10)]
    assert evaluator.compute(CLASSES) == {"marks": sum(range(10))}


def test_several_images_are_counted_at_once(monkeypatch):
    monkeypatch.setattr(module, "threads_beside", lambda: 2)
    barrier = threading.Barrier(2, timeout=10)
    evaluator = Evaluator([Marks(lambda mark: barrier.wait())])
    for mark in range(4):
        evaluator.update(*image(mark))
    assert evaluator.compute(CLASSES) == {"marks": 6}


def test_few_images_wait_to_be_counted(threads):
    go, given = threading.Event(), []
    evaluator = Evaluator([Marks(lambda mark: go.wait(10))])

    def feed():
        for mark in range(20):
            given.append(mark)
            evaluator.update(*image(mark))

    feeder = threading.Thread(target=feed)
    feeder.start()
    time.sleep(0.2)
    waiting = len(given)
    go.set()
    feeder.join(10)
    assert waiting == 2 * threads + 1
    assert evaluator.compute(CLASSES) == {"marks": sum(range(20))}


@pytest.mark.parametrize("bad", [0, 9])
def test_error_of_a_metric_is_raised_as_itself(threads, bad):
    class OddError(Exception):
        pass

    def fail(mark):
        if mark == bad:
            raise OddError(f"image {mark}")

    evaluator = Evaluator([Marks(fail)], per_image=True)
    with pytest.raises(OddError, match=f"image {bad}"):
        for mark in range(10):
            evaluator.update(*image(mark))
        evaluator.compute(CLASSES)
    assert evaluator._calls is None


def test_wrong_label_is_reported_with_its_number(threads):
    evaluator = Evaluator([Marks()])
    prediction, mask, names = image(3)
    mask[0, 0, 0] = 7
    evaluator.update(prediction, mask, names)
    with pytest.raises(ValueError, match="label 7 of the mask is neither one of the 3 classes"):
        evaluator.compute(CLASSES)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_threads_end_when_the_network_is_interrupted(threads, error):
    class Interrupted:
        def predict(self, model, image, confidence):
            if float(image.max()) == 3:
                raise error("now")
            return LabelMap(torch.zeros(1, 4, 8, dtype=torch.uint8), None)

    counted = []
    evaluator = Evaluator([Marks(counted.append)])
    task = EvaluationTask(nn.Identity(), Interrupted(), evaluator, CLASSES)
    with pytest.raises(error, match="now"):
        for mark in range(5):
            _, mask, name = image(mark)
            part = {"image": torch.full((1, 3, 4, 8), mark), "mask": mask, "name": name}
            task.validation_step([part], mark)
    assert evaluator._calls is None and threading.active_count() < 20
    assert set(counted) <= {0, 1, 2}


class Alone:
    """A trainer of one process."""

    class strategy:
        reduce_boolean_decision = staticmethod(lambda decision: decision)
        broadcast = staticmethod(lambda value: value)


def validated(model, called=lambda mark: None):
    last = LastValidation([Marks(called)])
    for mark in range(3):
        last.update(model, *image(mark))
    last.compute(tuple(CLASSES), Alone)
    return last


def test_last_validation_is_used_only_for_the_weights_that_it_saw():
    model = nn.BatchNorm2d(2)
    last = validated(model)
    assert last.of(model, Alone).scores == {"marks": 3}
    copy = nn.BatchNorm2d(2)
    assert last.of(copy, Alone) is not None  # the same numbers in another object
    copy.weight.data[0] += 1e-6
    assert last.of(copy, Alone) is None
    model.running_mean[1] = 1e-6
    assert last.of(model, Alone) is None


def test_a_metric_that_fails_in_the_last_validation_ends_no_training():
    def fail(mark):
        if mark == 1:
            raise ValueError("bad metric")

    model = nn.BatchNorm2d(2)
    last = validated(model, fail)
    assert last.of(model, Alone) is None
