"""What is predicted for a data set, and its figures."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from ai.datasets.records import Record
from ai.errors import InvalidDataset, NoBreast
from ai.evaluation.detection import HitRule
from ai.evaluation.predictions import Prediction, evaluate, exams_of, figures, figures_by_set, predict, to_json
from ai.exam import Exam, Laterality, View, ViewPosition
from ai.findings import ExamFindings, ImageFindings
from tests.builders import L_CC
from tests.predictions import MODEL, SQUARE, a_mass, a_prediction, a_record


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
    with pytest.raises(InvalidDataset, match=r"1 image is not there: gone\.png"):
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
