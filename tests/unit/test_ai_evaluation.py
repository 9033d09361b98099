"""Figures against cases counted by hand and against a slow counting of the same definition."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.datasets.records import Box, Record
from ai.errors import InvalidDataset, NoBreast
from ai.evaluation.detection import (
    FPPI,
    Curve,
    HitRule,
    ImageDetections,
    at_threshold,
    hits,
    match,
    sensitivity,
    threshold_at,
)
from ai.evaluation.predictions import Prediction, evaluate, exams_of, figures, figures_by_set, predict, to_json
from ai.evaluation.statistics import auc, bootstrap, dice
from ai.exam import Exam, Laterality, View, ViewPosition
from ai.findings import ExamFindings, ImageFindings, LengthUnit, Mass, ModelIdentity, Size
from tests.builders import L_CC

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


def test_what_is_shown_at_a_threshold() -> None:
    events = [
        match(HitRule.CENTRE, image((0.9, SQUARE), (0.8, SQUARE), (0.7, ELSEWHERE), (0.2, ELSEWHERE))),
        match(HitRule.CENTRE, image((0.6, ELSEWHERE), truth=())),
    ]
    shown = at_threshold(events, 0.6)
    assert (shown.detections, shown.hits, shown.false, shown.masses, shown.images) == (4, 1, 2, 1, 2)
    assert (shown.sensitivity, shown.fppi) == (1, 1)
    assert shown.precision == pytest.approx(1 / 3)
    assert math.isnan(at_threshold(events, 0.95).precision)


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


def a_mass(box: tuple[int, int, int, int], detection: float = 0.9, malignancy: float | None = 0.5) -> Mass:
    x, y, width, height = box
    size = Size(float(width * height), width, height, LengthUnit.PIXEL, None)
    contour = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y]], float)
    return Mass(1, (y, x), np.ones((height, width), np.bool_), contour, size, detection, malignancy, 50)


def a_prediction(record: Record, *masses: Mass, malignancy: float = 0.5, dice: float | None = None) -> Prediction:
    findings = ImageFindings(record.file, L_CC, (80, 60), masses, round(100 * malignancy), malignancy)
    return Prediction(record, findings, None, dice)


def a_record(number: int, **changes: object) -> Record:
    fields = {"boxes": (SQUARE,), "malignant": True, "pathologies": ("MALIGNANT",)} | changes
    return Record(f"{number}.png", f"P{number}", L_CC, **fields)  # type: ignore[arg-type]


def test_refused_images_keep_their_misses() -> None:
    read = a_prediction(a_record(1), a_mass((10, 10, 10, 10)), dice=0.8)
    refused = Prediction(a_record(2, masks=("masks/2.png",)), None, "no breast", 0.0)
    result = evaluate([read, refused], repeats=5)
    assert (result.images, result.patients, result.masses, result.refused) == (2, 2, 2, 1)
    assert set(result.detection) == {HitRule.IOU50, HitRule.IOU20, HitRule.CENTRE}
    for sensitivities_of_rule in result.detection.values():
        assert {figure.value for figure in sensitivities_of_rule} == {0.5}
    assert result.dice
    assert result.dice.value == pytest.approx(0.4)
    assert result.dice_found
    assert result.dice_found.value == pytest.approx(0.8)


def test_refused_images_are_in_the_denominator_of_false_positives() -> None:
    false = a_prediction(a_record(1, boxes=()), a_mass((40, 60, 10, 10), 0.9))
    found = a_prediction(a_record(2), a_mass((10, 10, 10, 10), 0.8))
    refused = [Prediction(a_record(n, boxes=()), None, "no breast") for n in (3, 4)]
    at = dict(
        zip(("0.04", "0.1", "0.25"), evaluate([false, found, *refused], 2).detection[HitRule.IOU50], strict=False)
    )
    assert [figure.value for figure in at.values()] == [0, 0, 1]


def test_image_auc_takes_labelled_images_alone() -> None:
    predictions = [
        a_prediction(a_record(1, malignant=True), malignancy=0.9),
        a_prediction(a_record(2, malignant=False), malignancy=0.2),
        a_prediction(a_record(3, malignant=None), malignancy=1.0),
        Prediction(a_record(4, malignant=True), None, "no breast"),
    ]
    result = evaluate(predictions, 5)
    assert result.image_auc
    assert result.image_auc.value == 1
    assert evaluate(predictions[:1], 5).image_auc is None


def test_mass_auc_takes_found_masses_whose_pathologies_agree() -> None:
    malignant, benign = {"pathologies": ("MALIGNANT",)}, {"pathologies": ("BENIGN", "BENIGN_WITHOUT_CALLBACK")}
    found, miss = (10, 10, 10, 10), (40, 60, 10, 10)
    predictions = [
        a_prediction(a_record(1, **malignant), a_mass(found, 0.9, 0.3), a_mass(miss, 0.95, 1.0)),
        a_prediction(a_record(2, **benign), a_mass(found, 0.9, 0.7), a_mass(found, 0.8, 0.0)),
        a_prediction(a_record(3, pathologies=("MALIGNANT", "BENIGN")), a_mass(found, 0.9, 1.0)),
        a_prediction(a_record(4, **malignant), a_mass(found, 0.9, 0.8)),
    ]
    result = evaluate(predictions, 5)
    assert result.mass_auc
    # Malignant 0.3 and 0.8 against benign 0.7: the strongest detection speaks for a mass.
    assert result.mass_auc.value == 0.5


class Oracle:
    """A reader that finds what the picture shows above a grey value, and refuses black pictures."""

    model = MODEL
    device = "cpu"

    def read(self, exam: Exam) -> ExamFindings:
        (view,) = exam.images
        bright = view.pixels > 0.5
        if not bright.any():
            raise NoBreast(view.uid)
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        box = (int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1)
        found = ImageFindings(view.uid, view.view, view.shape, (a_mass(box),), 90, 0.9)
        return ExamFindings(MODEL, (found,), (), 90)


def pictures(folder: Path) -> list[Record]:
    """Write a picture with a bright square, a black one, and one with another mask; and a missing one."""
    (folder / "masks").mkdir()
    for name in ("a.png", "b.png"):
        grey = np.zeros((80, 60), np.uint8)
        grey[10:20, 10:20] = 255
        cv2.imwrite(str(folder / name), grey)
    half = grey.copy()
    half[15:] = 0
    cv2.imwrite(str(folder / "masks" / "a.png"), grey)
    cv2.imwrite(str(folder / "masks" / "b.png"), half)
    cv2.imwrite(str(folder / "black.png"), np.zeros((80, 60), np.uint8))
    cv2.imwrite(str(folder / "masks" / "black.png"), half)
    files = ("a.png", "b.png", "black.png", "gone.png")
    return [
        Record(f, f, L_CC, (SQUARE,), malignant=True, masks=(f"masks/{f}",) if f != "gone.png" else ()) for f in files
    ]


def test_a_data_set_is_read_image_by_image_and_refusals_are_told(tmp_path: Path) -> None:
    seen: list[int] = []
    predictions = predict(Oracle(), tmp_path, pictures(tmp_path), lambda: seen.append(1))
    assert len(seen) == 4
    assert [p.dice for p in predictions] == pytest.approx([1, 2 / 3, 0, None])
    assert [bool(p.refused) for p in predictions] == [False, False, True, True]
    assert "breast" in str(predictions[2].refused)
    assert "gone.png" in str(predictions[3].refused)


def test_a_file_that_is_not_there_or_no_image_is_named_and_not_scored_as_a_refusal(tmp_path: Path) -> None:
    reader, records = Together(), pictures(tmp_path)
    with pytest.raises(InvalidDataset, match=r"1 images are not there: gone\.png"):
        predict(reader, tmp_path, records, scored=True)
    assert reader.asked == []
    (tmp_path / "gone.png").write_text("no picture", encoding="utf-8")
    with pytest.raises(InvalidDataset, match=r"gone\.png: The file is no DICOM, JPEG or PNG image"):
        predict(reader, tmp_path, records, scored=True)
    assert predict(Oracle(), tmp_path, [Record("black.png", "1", L_CC)], scored=True)[0].refused


def test_of_two_images_of_one_name_the_black_one_alone_is_refused(tmp_path: Path) -> None:
    grey = np.zeros((40, 30), np.uint8)
    grey[10:20, 5:15] = 200
    for side, pixels in (("L", grey), ("R", np.zeros_like(grey))):
        (tmp_path / side).mkdir()
        cv2.imwrite(str(tmp_path / side / "CC.png"), pixels)
    records = [Record("L/CC.png", "one", L_CC), Record("R/CC.png", "one", View(Laterality.RIGHT, ViewPosition.CC))]
    assert [bool(p.refused) for p in predict(Together(), tmp_path, records)] == [False, True]


def test_an_image_without_a_mass_has_no_dice_whatever_its_mask(tmp_path: Path) -> None:
    grey = np.zeros((80, 60), np.uint8)
    for name in ("mask", "black"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), grey)
    grey[10:20, 10:20] = 255
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    silent, loud, refused = (
        predict(reader, tmp_path, [Record(file, "1", L_CC, malignant=False, masks=("mask.png",))])[0]
        for reader, file in ((Together(), "a.png"), (Oracle(), "a.png"), (Oracle(), "black.png"))
    )
    assert [p.dice for p in (silent, loud, refused)] == [None] * 3
    assert loud.pixels
    told = evaluate([silent, loud, refused])
    assert (told.dice, told.dice_found) == (None, None)


def test_images_of_one_exam_are_read_together_and_come_back_in_their_order(tmp_path: Path) -> None:
    grey = np.zeros((40, 30), np.uint8)
    grey[10:20, 5:15] = 200
    for name in ("a", "b", "c", "d", "e"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros_like(grey) if name == "b" else grey)
    mlo = View(Laterality.LEFT, ViewPosition.MLO)
    records = [
        Record("a.png", "one", L_CC),
        Record("c.png", "two", L_CC),
        Record("b.png", "one", mlo),
        Record("d.png", "one", L_CC),
        Record("e.png", "one", mlo, study="later"),
    ]
    assert exams_of(records) == [[0, 2], [1], [3], [4]]
    reader = Together()
    predictions = predict(reader, tmp_path, records)
    assert reader.asked == [["a.png", "b.png"], ["a.png"], ["c.png"], ["d.png"], ["e.png"]]
    assert [p.record.file for p in predictions] == ["a.png", "c.png", "b.png", "d.png", "e.png"]
    assert [p.findings.uid if p.findings else None for p in predictions] == ["a.png", "c.png", None, "d.png", "e.png"]
    assert "breast" in str(predictions[2].refused)


class Together:
    """A reader that finds nothing, refuses black pictures, and remembers what it was given together."""

    model = MODEL
    device = "cpu"

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def read(self, exam: Exam) -> ExamFindings:
        self.asked.append([image.uid for image in exam.images])
        for image in exam.images:
            if not image.pixels.any():
                raise NoBreast(image.uid)
        found = tuple(ImageFindings(image.uid, image.view, image.shape, (), 0, 0.0) for image in exam.images)
        return ExamFindings(MODEL, found, (), 0)


def test_what_predict_writes_names_every_image_and_boxes_in_its_pixels(tmp_path: Path) -> None:
    written = json.loads(json.dumps(to_json(predict(Oracle(), tmp_path, pictures(tmp_path)))))
    assert written.keys() == {"images", "detections"}
    assert [i["file"] for i in written["images"]] == ["a.png", "b.png", "black.png", "gone.png"]
    assert written["images"][0] == {"file": "a.png", "malignancy": 0.9}
    assert written["images"][2]["refused"]
    assert written["images"][2]["malignancy"] is None
    assert written["detections"][0] == {"file": "a.png", "bbox": [10, 10, 10, 10], "score": 0.9, "malignancy": 0.5}
    assert [d["file"] for d in written["detections"]] == ["a.png", "b.png"]


def test_figures_are_plain_and_rounded() -> None:
    result = figures(evaluate([a_prediction(a_record(n), a_mass((10, 10, 10, 10))) for n in range(3)], 5))
    assert result == json.loads(json.dumps(result))
    assert result["sensitivity_at_fppi"]["IoU >= 0.5"]["0.5"] == [1, 1, 1]
    assert "image_auc" not in result
    assert (result["images"], result["refused"]) == (3, 0)


def test_a_card_tells_the_figures_of_each_of_several_sets_too() -> None:
    films = [a_prediction(a_record(n), a_mass((10, 10, 10, 10))) for n in range(3)]
    digital = [a_prediction(replace(a_record(n), source="digital"), a_mass((60, 60, 10, 10))) for n in range(3, 5)]
    assert figures_by_set(films).keys() == {"validation"}
    told = figures_by_set([*films, *digital])
    assert {name: each["images"] for name, each in told.items()} == {
        "validation": 5,
        "validation, ": 3,
        "validation, digital": 2,
    }
    found = [each["sensitivity_at_fppi"]["IoU >= 0.5"]["2.0"][0] for each in told.values()]
    assert found == [0.6, 1, 0]


def test_without_a_mass_no_sensitivity_is_told() -> None:
    result = figures(evaluate([a_prediction(replace(a_record(0), boxes=()), a_mass((10, 10, 10, 10)))], 5))
    assert result["masses"] == 0
    assert set(result["sensitivity_at_fppi"]["IoU >= 0.5"].values()) == {None}


def test_sensitivity_never_falls_when_more_false_positives_are_allowed() -> None:
    rng = np.random.default_rng(3)
    predictions = [
        a_prediction(
            a_record(n),
            *(
                a_mass((int(x), int(y), 10, 10), float(s))
                for x, y, s in zip(*rng.integers(0, 25, (2, 4)), rng.random(4), strict=True)
            ),
        )
        for n in range(12)
    ]
    for values in evaluate(predictions, 20).detection.values():
        assert all(a.value <= b.value for a, b in pairwise(values))
        assert all(f.low <= f.value <= f.high for f in values)
