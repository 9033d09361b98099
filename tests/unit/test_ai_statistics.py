"""Areas, overlaps and intervals against cases counted by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.evaluation.statistics import auc, bootstrap, dice


def test_the_area_under_the_curve_by_hand() -> None:
    assert auc([0.9, 0.8, 0.2, 0.1], [True, True, False, False]) == 1
    assert auc([0.1, 0.9], [True, False]) == 0
    assert auc([0.5, 0.5, 0.5], [True, False, False]) == 0.5
    # Of six pairs four are right and one is a tie.
    assert auc([0.9, 0.4, 0.4, 0.1, 0.7], [True, True, False, False, False]) == pytest.approx(4.5 / 6)
    assert math.isnan(auc([0.3, 0.4], [True, True]))
    assert math.isnan(auc([], []))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=20))
def test_the_area_under_the_curve_is_the_share_of_right_pairs(cases: list[tuple[int, bool]]) -> None:
    yes, no = [s for s, y in cases if y], [s for s, y in cases if not y]
    found = auc([s for s, _ in cases], [y for _, y in cases])
    if not yes or not no:
        assert math.isnan(found)
    else:
        right = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in yes for b in no)
        assert found == pytest.approx(right / (len(yes) * len(no)))


def test_dice_by_hand() -> None:
    a, b = np.zeros((4, 4), np.bool_), np.zeros((4, 4), np.bool_)
    assert dice(a, b) == 1
    a[:2] = True
    assert dice(a, b) == 0
    b[1:2, :2] = True
    assert dice(a, b) == pytest.approx(2 * 2 / (8 + 2))
    assert dice(a, a) == 1


def test_one_patient_has_an_interval_of_no_width() -> None:
    values = [0.0, 1.0, 0.5]
    (figure,) = bootstrap(["P"] * 3, lambda idx: [float(np.mean([values[i] for i in idx]))], 50)
    assert (figure.value, figure.low, figure.high) == (0.5, 0.5, 0.5)


def test_patients_are_drawn_with_all_their_images() -> None:
    draws: list[list[int]] = []

    def remember(idx: list[int]) -> list[float]:
        draws.append(idx)
        return [0.0]

    bootstrap(["A", "B", "A", "C"], remember, 100)
    assert draws[0] == [0, 1, 2, 3]
    for draw in draws[1:]:
        assert draw.count(0) == draw.count(2)
        assert draw.count(0) + draw.count(1) + draw.count(3) == 3
    assert len({tuple(draw) for draw in draws}) > 5


def test_the_interval_widens_when_patients_and_not_images_are_the_unit() -> None:
    rng = np.random.default_rng(0)
    patients = [f"P{i // 8}" for i in range(160)]
    level = rng.random(20)
    values = [float(level[i // 8]) for i in range(160)]

    def mean(idx: list[int]) -> list[float]:
        return [float(np.mean([values[i] for i in idx]))]

    (grouped,), (single,) = bootstrap(patients, mean, 400), bootstrap([str(i) for i in range(160)], mean, 400)
    assert grouped.low < grouped.value < grouped.high
    assert grouped.high - grouped.low > 2 * (single.high - single.low)


def test_the_interval_is_that_of_the_mean_of_independent_patients() -> None:
    values = np.random.default_rng(1).standard_normal(100)
    (figure,) = bootstrap([str(i) for i in range(100)], lambda idx: [float(values[idx].mean())], 1000)
    half = 1.96 * values.std() / 10
    assert figure.high - figure.value == pytest.approx(half, rel=0.15)
    assert figure.value - figure.low == pytest.approx(half, rel=0.15)


def test_draws_of_one_class_are_left_out_of_an_auc() -> None:
    scores, labels = [0.9, 0.1], [True, False]
    (figure,) = bootstrap(["A", "B"], lambda idx: [auc([scores[i] for i in idx], [labels[i] for i in idx])], 50)
    assert (figure.value, figure.low, figure.high) == (1, 1, 1)
    (undefined,) = bootstrap(["A"], lambda _: [math.nan], 5)
    assert math.isnan(undefined.low)
