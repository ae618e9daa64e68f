"""Lengths of steps, by scripted errors."""

import numpy as np
import pytest

from bloodseg.ode._control import Interval, StepControl


def control(n=1, *, t0=0.0, t1=1.0, order=3, max_steps=100, smallest=1e-6, n_steps=None):
    interval = Interval(t0, t1, 1e-3, 1e-3, max_steps, n_steps=n_steps)
    return StepControl(interval, n, order, smallest)


def attempt(control, *ratios):
    """Take the next step of the first samples, with these errors; return steps and verdicts."""
    rows = np.arange(len(ratios))
    steps = control.next_steps(rows)
    return steps.tolist(), control.judge(rows, steps, np.array(ratios, float)).tolist()


def wanted(ratio, order=3):
    return 0.9 * ratio ** (-1 / order)


def test_the_first_step_is_the_whole_interval():
    steering = control(t0=2.0, t1=5.0)
    assert attempt(steering, 1.0) == ([3.0], [True])
    assert steering.finished(np.array([0])).all()
    assert steering.times(np.array([0])) == 5.0


def test_steps_point_back_in_time():
    steering = control(t0=1.0, t1=-1.0)
    assert attempt(steering, 8.0) == ([-2.0], [False])
    assert steering.times(np.array([0])) == 1.0
    attempt(steering, 0.5)
    assert steering.times(np.array([0])) == 1 - 2 / 3


@pytest.mark.parametrize("order", [2, 3, 5, 8])
@pytest.mark.parametrize("ratio", [1.01, 2.0, 5.0])
def test_a_rejected_step_shrinks_by_its_error(order, ratio):
    steering = control(order=order)
    attempt(steering, ratio)
    assert steering.wanted[0] == pytest.approx(wanted(ratio, order))
    assert steering.wanted[0] < 1


@pytest.mark.parametrize("ratio", [1e6, 1e300])
def test_a_step_shrinks_fivefold_at_most(ratio):
    steering = control()
    attempt(steering, ratio)
    assert steering.wanted[0] == pytest.approx(0.2)


@pytest.mark.parametrize("ratio", [np.inf, np.nan])
def test_a_step_that_overflows_shrinks_tenfold(ratio):
    steering = control()
    assert attempt(steering, ratio) == ([1.0], [False])
    assert steering.wanted[0] == pytest.approx(0.1)


@pytest.mark.parametrize(("ratio", "growth"), [(0.5, wanted(0.5)), (1e-9, 10), (0.0, 10)])
def test_an_accepted_step_grows_by_its_error_tenfold_at_most(ratio, growth):
    steering = control()
    steering.wanted[:] = 0.01
    (step,), verdict = attempt(steering, ratio)
    assert verdict == [True]
    assert steering.wanted[0] == pytest.approx(step * growth)


def test_an_accepted_step_may_shrink():
    steering = control()
    steering.wanted[:] = 0.1
    (step,), verdict = attempt(steering, 1.0)
    assert verdict == [True]
    assert steering.wanted[0] == pytest.approx(0.9 * step)


def test_no_growth_right_after_a_rejection():
    steering = control()
    attempt(steering, np.nan)
    (first,), _ = attempt(steering, 1e-9)
    assert steering.wanted[0] == pytest.approx(first)
    (second,), _ = attempt(steering, 1e-9)
    assert second == pytest.approx(first)
    assert steering.wanted[0] == pytest.approx(10 * second)


@pytest.mark.parametrize("ratio", [1 + 1e-12, 1.001])
def test_a_barely_rejected_step_is_not_tried_again_unchanged(ratio):
    steering = control()
    attempt(steering, ratio)
    (step,), _ = attempt(steering, 1.0)
    assert step <= 0.9


@pytest.mark.parametrize("wanted", [0.3, 0.26, 0.21, 0.5, 0.99, 1 / 3, 1.0, 7.0])
def test_what_is_left_is_cut_in_equal_parts(wanted):
    steering = control()
    steering.wanted[:] = wanted
    parts = max(1, int(np.ceil(1 / wanted - 1e-6)))
    assert steering.next_steps(np.array([0])) == pytest.approx(1 / parts)


@pytest.mark.parametrize("t1", [1.0, 0.1, 1 / 3, -1e-5, 12345.678])
@pytest.mark.parametrize("ratio", [0.4, 0.7, 0.73])
def test_the_last_step_ends_on_t1_exactly(t1, ratio):
    steering = control(t1=t1, max_steps=10**6)
    attempt(steering, np.nan)
    rows = np.array([0])
    while not steering.finished(rows):
        attempt(steering, ratio)
    assert steering.times(rows) == t1
    assert steering.n_accepted[0] > 2


def test_attempts_are_counted_for_the_sample():
    steering = control(3, max_steps=3)
    attempt(steering, 0.5, 2.0, np.nan)
    assert steering.n_accepted.tolist() == [1, 0, 0]
    assert steering.n_rejected.tolist() == [0, 1, 1]
    everyone = np.arange(3)
    assert steering.finished(everyone).tolist() == [True, False, False]
    assert not steering.too_many(everyone).any()
    for rows, ratio in (([1, 2], 2.0), ([2], 0.5)):
        rows = np.array(rows)
        steering.judge(rows, steering.next_steps(rows), np.full(len(rows), ratio))
    assert steering.n_accepted.tolist() == [1, 0, 1]
    assert steering.n_rejected.tolist() == [0, 2, 2]
    assert steering.too_many(everyone).tolist() == [False, False, True]


@pytest.mark.parametrize("length", [1.0, 1e-3, 1e3])
def test_a_step_too_small_is_one_in_relation_to_the_interval(length):
    steering = control(2, t1=length, smallest=1e-6)
    steering.wanted[:] = [1.01e-6 * length, 0.99e-6 * length]
    assert steering.too_small(np.arange(2)).tolist() == [False, True]


@pytest.mark.parametrize("n_steps", [1, 4, 7, 1000])
def test_fixed_steps_are_equal_ones(n_steps):
    steering = control(t0=1.0, t1=3.0, order=None, n_steps=n_steps)
    for _ in range(n_steps):
        assert not steering.finished(np.array([0])).any()
        assert attempt(steering, 0.0) == ([pytest.approx(2 / n_steps, rel=1e-9)], [True])
    assert steering.finished(np.array([0])).all()
