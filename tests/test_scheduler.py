"""Learning-rate schedules by step."""

import math
import warnings

import pytest
import torch

from gald import scheduler


def rates(make, steps, **options):
    """The learning rate of each step of a training, at a highest rate of 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = make(optimizer, steps, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_constant_keeps_the_rate_after_the_warm_up():
    assert rates(scheduler.constant, 4) == [1, 1, 1, 1]
    assert rates(scheduler.constant, 6, warmup_steps=3) == [0.25, 0.5, 0.75, 1, 1, 1]


@pytest.mark.parametrize(
    ("shape", "of"),
    [
        ("sqrt", lambda u: 1 - math.sqrt(u)),
        ("linear", lambda u: 1 - u),
        ("cosine", lambda u: (1 + math.cos(math.pi * u)) / 2),
    ],
)
def test_wsd_warms_up_stays_and_decays(shape, of):
    found = rates(scheduler.wsd, 12, warmup_steps=2, decay=0.4, shape=shape)
    expected = [1 / 3, 2 / 3, *[1] * 7, *[of(u) for u in (0.25, 0.5, 0.75)]]
    assert found == pytest.approx(expected)
    assert rates(scheduler.wsd, 5, decay=0.0) == [1] * 5
    assert rates(scheduler.wsd, 4, decay=1.0, shape="linear") == [1, 0.75, 0.5, 0.25]


@pytest.mark.parametrize("steps", [2, 3, 10, 101])
@pytest.mark.parametrize("rise", [0.3, 0.9])
def test_one_cycle_is_that_of_torch_without_its_momentum(steps, rise):
    if steps * rise < 1:
        pytest.skip("torch starts with a rise of less than one step")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, steps, pct_start=rise, cycle_momentum=False
        )
        expected = [optimizer.param_groups[0]["lr"]]
        for _ in range(steps - 1):
            theirs.step()
            expected.append(optimizer.param_groups[0]["lr"])
    assert rates(scheduler.one_cycle, steps, rise=rise) == pytest.approx(expected)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_one_cycle_of_a_short_training_stays_in_its_range(steps):
    assert all(4e-6 <= rate <= 1 for rate in rates(scheduler.one_cycle, steps))


@pytest.mark.parametrize("make", [scheduler.constant, scheduler.wsd, scheduler.cosine])
def test_warm_up_longer_than_the_training_is_refused(make):
    with pytest.raises(ValueError, match=r"warmup_steps \(4\) must be below the 4 steps"):
        rates(make, 4, warmup_steps=4)


def test_unknown_shape_of_the_decay_is_refused():
    with pytest.raises(ValueError, match=r"shape \(square\) must be one of sqrt, linear, cosine"):
        rates(scheduler.wsd, 4, shape="square")
