"""Hits and sensitivity against cases counted by hand and against a slow counting of the same definition."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.datasets.records import Box
from ai.evaluation.detection import (
    FPPI,
    Curve,
    HitRule,
    ImageDetections,
    hits,
    match,
    sensitivity,
    threshold_at,
)
from ai.findings import ModelIdentity

SQUARE: Box = (10, 10, 10, 10)
ELSEWHERE: Box = (60, 60, 10, 10)
MODEL = ModelIdentity("truth", "1", "0" * 64)


def image(*detections: tuple[float, Box], truth: tuple[Box, ...] = (SQUARE,), patient: str = "P") -> ImageDetections:
    return ImageDetections(patient, truth, detections)


def sensitivities(images: list[ImageDetections], *fppi: float, rule: HitRule = HitRule.IOU50) -> list[float]:
    return sensitivity([match(rule, i) for i in images], fppi)


@pytest.mark.parametrize(
    ("detection", "iou50", "centre"),
    [
        ((10, 10, 10, 10), True, True),
        ((10, 10, 10, 20), True, True),  # union 200, intersection 100: exactly half; its centre is on the edge
        ((10, 10, 10, 21), False, False),
        ((10, 10, 5, 10), True, True),
        ((10, 10, 4.9, 10), False, True),
        ((15, 15, 10, 10), False, True),
        ((16, 16, 10, 10), False, False),
        ((0, 0, 40, 40), False, True),
        ((20, 10, 10, 10), False, False),
        ((15, 15, 0, 0), False, True),
    ],
)
def test_what_a_hit_is(detection: Box, iou50: bool, centre: bool) -> None:  # noqa: FBT001
    assert hits(HitRule.IOU50, detection, SQUARE) is iou50
    assert hits(HitRule.CENTRE, detection, SQUARE) is centre
    assert hits(HitRule.CENTRE_MASK, detection, SQUARE, on_mask=True) is centre
    assert not hits(HitRule.CENTRE_MASK, detection, SQUARE, on_mask=False)


@pytest.mark.parametrize(
    ("detection", "hit"),
    [
        ((10, 10, 10, 10), True),
        ((10, 10, 10, 2), False),  # 20 of 100: exactly 0.2 is not above it
        ((10, 10, 10, 2.1), True),
        ((10, 10, 25, 20), False),  # 100 of 500
        ((10, 10, 25, 19), True),
        ((20, 10, 10, 10), False),
    ],
)
def test_agarwals_hit_is_above_a_fifth(detection: Box, hit: bool) -> None:  # noqa: FBT001
    assert hits(HitRule.IOU20, detection, SQUARE) is hit


def test_a_centre_beside_the_masks_pixels_is_no_hit() -> None:
    there, beside = ImageDetections("P", (SQUARE,), ((0.9, SQUARE),), (True,)), (False,)
    assert match(HitRule.CENTRE_MASK, there).kinds.tolist() == [1]
    assert match(HitRule.CENTRE_MASK, replace(there, on_mask=beside)).kinds.tolist() == [-1]
    assert match(HitRule.CENTRE, replace(there, on_mask=beside)).kinds.tolist() == [1]


def test_a_mass_counts_once_and_a_second_hit_is_neither_hit_nor_false() -> None:
    events = match(HitRule.IOU50, image((0.5, SQUARE), (0.9, SQUARE), (0.7, ELSEWHERE)))
    assert events.scores.tolist() == [0.9, 0.7, 0.5]
    assert events.kinds.tolist() == [1, -1, 0]


def test_a_detection_takes_a_mass_that_is_still_free() -> None:
    both: Box = (10, 10, 20, 10)
    left, right = (10.0, 10.0, 10.0, 10.0), (20.0, 10.0, 10.0, 10.0)
    events = match(HitRule.IOU50, image((0.9, both), (0.8, left), (0.7, right), truth=(left, right)))
    assert events.kinds.tolist() == [1, 0, 1]


def test_sensitivity_is_counted_over_all_images() -> None:
    images = [
        image((0.9, SQUARE)),
        image((0.8, ELSEWHERE), (0.7, SQUARE)),
        image((0.6, ELSEWHERE), truth=()),
        image(truth=(SQUARE,)),
    ]
    # By falling score: hit (1/3 at 0), false (0.25 per image), hit (2/3), false (0.5 per image).
    assert sensitivities(images, 0, 0.24, 0.25, 0.5, 9) == pytest.approx([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])


def test_images_that_are_drawn_more_often_count_more_often() -> None:
    events = [match(HitRule.IOU50, i) for i in (image((0.9, SQUARE)), image((0.8, ELSEWHERE)), image(truth=()))]
    drawn_list = [events[i] for i in (0, 0, 1)]
    assert Curve(events).sensitivity(FPPI, np.array([2, 1, 0])) == Curve(drawn_list).sensitivity(FPPI)
    assert Curve(events).sensitivity([0], np.array([2, 1, 0])) == [2 / 3]


def test_a_stratum_counts_its_own_masses_and_all_false_positives() -> None:
    left, right = (10.0, 10.0, 10.0, 10.0), (40.0, 10.0, 10.0, 10.0)
    events = match(HitRule.IOU50, image((0.9, left), (0.8, ELSEWHERE), (0.7, right), truth=(left, right)))
    assert events.found.tolist() == [0, -1, 1]
    assert (events.of([1]).kinds.tolist(), events.of([1]).masses) == ([0, -1, 1], 1)
    assert Curve([events.of([1])]).sensitivity([0, 1]) == [0, 1]
    assert Curve([events.of([0])]).sensitivity([0]) == [1]


def test_equal_scores_move_together() -> None:
    images = [image((0.5, SQUARE)), image((0.5, ELSEWHERE))]
    assert sensitivities(images, 0, 0.49, 0.5) == [0, 0, 0.5]


def test_without_masses_or_without_detections_nothing_is_found() -> None:
    assert sensitivities([image(truth=())], 1.0) == [0]
    assert sensitivities([image()], 1.0) == [0]
    assert sensitivities([], 1.0) == [0]


def test_the_threshold_is_the_lowest_that_keeps_the_limit() -> None:
    events = [match(HitRule.CENTRE, image((0.9, SQUARE), (0.6, ELSEWHERE), (0.4, ELSEWHERE), (0.3, SQUARE)))]
    assert threshold_at(events, 0) == 0.9
    assert threshold_at(events, 1) == 0.6
    assert threshold_at(events, 2) == 0.3
    assert threshold_at([match(HitRule.CENTRE, image((0.9, ELSEWHERE)))], 0.5) == 1
    assert threshold_at([], 0.5) == 1


BOXES = st.tuples(*(st.integers(0, 12) for _ in range(2)), *(st.integers(1, 12) for _ in range(2)))
IMAGES = st.builds(
    lambda truth, found: ImageDetections("P", tuple(truth), tuple(found)),
    st.lists(BOXES, max_size=3),
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.4, 0.5]), BOXES), max_size=5),
)


def counted_pixels(a: Box, b: Box) -> tuple[int, int]:
    """Count the pixels in both boxes and in either, one by one."""
    inside = [
        {(x, y) for x in range(int(bx), int(bx + w)) for y in range(int(by), int(by + h))} for bx, by, w, h in (a, b)
    ]
    return len(inside[0] & inside[1]), len(inside[0] | inside[1])


def slow_sensitivity(rule: HitRule, images: list[ImageDetections], limit: float) -> float:
    """Try every threshold, and count anew what stays at it."""

    def hit(box: Box, mass: Box) -> bool:
        if rule in {HitRule.IOU50, HitRule.IOU20}:
            common, either = counted_pixels(box, mass)
            return 2 * common >= either if rule is HitRule.IOU50 else 5 * common > either
        middle = (box[0] + box[2] / 2, box[1] + box[3] / 2)
        return all(mass[k] <= middle[k] <= mass[k] + mass[k + 2] for k in range(2))

    best = 0
    for threshold in {score for i in images for score, _ in i.detections}:
        found = false = 0
        for i in images:
            taken: list[Box] = []
            open_ = list(i.truth)
            for _, box in sorted((d for d in i.detections if d[0] >= threshold), key=lambda d: -d[0]):
                free = next((mass for mass in open_ if hit(box, mass)), None)
                if free is not None:
                    open_.remove(free)
                    taken.append(free)
                elif not any(hit(box, mass) for mass in taken):
                    false += 1
            found += len(taken)
        if false <= limit * len(images):
            best = max(best, found)
    return best / max(sum(len(i.truth) for i in images), 1)


@given(st.lists(IMAGES, min_size=1, max_size=4), st.sampled_from([0, 0.25, 0.5, 1.0, 2.0]), st.sampled_from(HitRule))
def test_sensitivity_is_what_counting_at_every_threshold_gives(
    images: list[ImageDetections], limit: float, rule: HitRule
) -> None:
    assert sensitivities(images, limit, rule=rule)[0] == pytest.approx(slow_sensitivity(rule, images, limit))


@given(st.lists(IMAGES, min_size=1, max_size=4), st.sampled_from([0.25, 0.5, 1.0]))
def test_no_lower_score_would_keep_the_limit(images: list[ImageDetections], limit: float) -> None:
    events = [match(HitRule.CENTRE, i) for i in images]
    threshold = threshold_at(events, limit)
    for score in (0.1, 0.2, 0.3, 0.4, 0.5):
        false = sum(int(((e.kinds == -1) & (e.scores >= score)).sum()) for e in events)
        there = any((e.scores == score).any() for e in events)
        assert not there or (score >= threshold) == (false <= limit * len(images))
