"""The metrics of the five papers on cases counted by hand, and what is said where one is not defined."""

import json
import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from ai.datasets.records import Box, Record
from ai.errors import InvalidDataset
from ai.evaluation import coco, overlap
from ai.evaluation.detection import HitRule, ImageDetections, match
from ai.evaluation.labels import Label, count, plain_label, thesis_label
from ai.evaluation.overlap import Overlap
from ai.evaluation.pictures import FALSE, HIT, MISS, draw, draw_all
from ai.evaluation.pipeline import Regions, end_to_end
from ai.evaluation.plots import froc, plot_froc
from ai.evaluation.predictions import Prediction, predict
from ai.evaluation.report import Report, report
from ai.evaluation.size import Extent, Measure, extents, strata
from ai.exam import Exam, Spacing, SpacingRule, ViewImage
from ai.findings import ExamFindings, ImageFindings, LengthUnit, Mass, ModelIdentity, Size
from tests.builders import L_CC, R_MLO

SQUARE: Box = (10, 10, 10, 10)
ELSEWHERE: Box = (40, 60, 10, 10)
SHAPE = (80, 60)
MODEL = ModelIdentity("truth", "1", "0" * 64)


def boxed(*boxes: Box, shape: tuple[int, int] = SHAPE) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    mask = np.zeros(shape, np.bool_)
    for x, y, w, h in boxes:
        mask[int(y) : int(y + h), int(x) : int(x + w)] = True
    return mask


def test_pixels_by_hand() -> None:
    # Ten by ten against the same moved by five, and a false region of its own.
    pixels = overlap.overlap(boxed((10, 10, 10, 10), ELSEWHERE), boxed((15, 10, 10, 10), (0, 70, 4, 4)))
    assert pixels == Overlap(found=200, truth=116, common=50, found_hitting=100, truth_hit=100)
    assert pixels.dice == pytest.approx(100 / 316)
    assert pixels.iou == pytest.approx(50 / 266)
    (true,) = overlap.true_regions([pixels])
    assert true.dice == 0.5
    assert true.iou == pytest.approx(1 / 3)
    nothing = overlap.overlap(boxed(), boxed())
    assert (nothing.dice, nothing.iou) == (1, 1)


def test_pooled_is_not_the_mean() -> None:
    small, large = Overlap(10, 10, 10, 10, 10), Overlap(100, 300, 50, 100, 300)
    assert overlap.pooled_dice([small, large]) == pytest.approx(2 * 60 / 420)
    assert overlap.pooled_iou([small, large]) == pytest.approx(60 / 360)
    assert overlap.mean([small.dice, large.dice]) == pytest.approx((1 + 0.25) / 2)
    assert math.isnan(overlap.pooled_dice([]))


def test_conditional_dice_leaves_misses_out() -> None:
    assert overlap.conditional([0.8, 0.0, 0.6]) == [0.8, 0.6]
    assert overlap.mean(overlap.conditional([0.8, 0.0, 0.6])) == pytest.approx(0.7)
    assert overlap.deviation([0.8, 0.6]) == pytest.approx(0.1)
    assert math.isnan(overlap.mean([]))


@pytest.mark.parametrize(
    ("found", "truth", "common", "label"),
    [
        (0, 0, 0, Label.TN),
        (0, 100, 0, Label.FN),
        (100, 0, 0, Label.FP),
        (100, 100, 40, Label.FP),  # Dice exactly 0.4: a bad hit is an FP, not an FN
        (100, 100, 41, Label.TP),
        (100, 100, 0, Label.FP),
    ],
)
def test_the_thesis_labels_images(found: int, truth: int, common: int, label: Label) -> None:
    assert thesis_label(Overlap(found, truth, common, 0, 0)) is label


def test_the_thesis_figures_follow_from_its_counts() -> None:
    # R22FPN with FT .7 in table 5: TP 58, TN 288, FP 6, FN 38 of 390 images give its .887, .980 and .725.
    rows = [(Label.TP, True)] * 58 + [(Label.TN, False)] * 288 + [(Label.FP, True)] * 6 + [(Label.FN, True)] * 38
    counts = count(rows)
    assert round(counts.accuracy, 3) == 0.887
    assert round(counts.specificity, 3) == 0.980
    assert round(counts.f1, 3) == 0.725
    assert counts.sensitivity == pytest.approx(58 / 102)


def test_plain_labels() -> None:
    assert [plain_label(marked=m, positive=p) for m in (True, False) for p in (True, False)] == [
        Label.TP,
        Label.FP,
        Label.FN,
        Label.TN,
    ]


def detected(*found: tuple[float, Box], truth: tuple[Box, ...] = (SQUARE,)) -> ImageDetections:
    return ImageDetections("P", truth, found)


ONE = np.ones(1, int)


def test_average_precision_by_hand() -> None:
    # Two masses: right, wrong, right. Precision 1 up to recall 1/2 (51 of 101 points), then 2/3 (50 points).
    far: Box = (100, 10, 10, 10)
    image = detected((0.9, SQUARE), (0.8, ELSEWHERE), (0.7, far), truth=(SQUARE, far))
    table = coco.Coco([image]).table(ONE)
    expected = (51 * 1 + 50 * 2 / 3) / 101
    assert table["AP50"] == pytest.approx(expected)
    assert table["AP"] == pytest.approx(expected)  # the boxes fit exactly
    assert (table["AR1"], table["AR10"], table["AR100"]) == (0.5, 1, 1)
    assert table["APs"] == pytest.approx(expected)
    assert math.isnan(table["APm"])


def test_average_precision_takes_the_overlap_seriously() -> None:
    # IoU 80 / 100: found at 0.5 to 0.8, seven of ten overlaps.
    table = coco.Coco([detected((0.9, (10, 10, 10, 8)))]).table(ONE)
    assert (table["AP50"], table["AP75"]) == (1, 1)
    assert table["AP"] == pytest.approx(0.7)
    assert table["AR100"] == pytest.approx(0.7)


def test_a_detection_takes_the_mass_that_it_overlaps_most() -> None:
    # By order of the truth the first detection would take the left mass and leave the second detection none.
    left, right = (0.0, 0.0, 10.0, 10.0), (3.0, 0.0, 10.0, 10.0)
    found = coco.match(detected((0.9, right), (0.8, left), truth=(left, right)), 0.5)
    assert found.true.tolist() == [True, True]


def test_what_is_of_another_size_is_neither_right_nor_wrong() -> None:
    large: Box = (100, 100, 100, 100)
    image = detected((0.9, large), (0.8, (10, 10, 10, 10)), (0.7, (300, 300, 99, 99)), truth=(large, SQUARE))
    small = coco.match(image, 0.5, coco.BANDS["s"])
    assert (small.masses, small.true.tolist(), small.ignored.tolist()) == (1, [False, True, False], [True, False, True])


def test_a_hundred_detections_count() -> None:
    image = detected(*[(0.9 - i / 1000, ELSEWHERE) for i in range(100)], (0.1, SQUARE))
    assert coco.Coco([image]).table(ONE)["AR100"] == 0


def test_average_precision_of_drawn_images() -> None:
    images = [detected((0.9, SQUARE)), detected((0.8, ELSEWHERE)), detected(truth=())]
    weighted = coco.Coco(images).table(np.array([1, 2, 0]))
    listed = coco.Coco([images[0], images[1], images[1]]).table(np.ones(3, int))
    assert weighted == pytest.approx(listed, nan_ok=True)
    assert all(math.isnan(v) for v in coco.Coco(images).table(np.array([0, 0, 1])).values())


def test_end_to_end_by_hand() -> None:
    def regions(image: ImageDetections, said: list[float], *, malignant: bool | None) -> Regions:
        return Regions(match(HitRule.IOU50, image), np.array(said), malignant)

    images = [
        regions(detected((0.9, SQUARE), (0.4, SQUARE), (0.3, ELSEWHERE)), [0.8, 0.1, 0.9], malignant=True),
        regions(detected((0.6, SQUARE)), [0.7], malignant=False),
        regions(detected((0.6, SQUARE)), [0.7], malignant=None),
        regions(detected((0.25, SQUARE)), [0.2], malignant=False),
    ]
    told = end_to_end(images, 0.3)
    assert (told.found, told.true, told.judged, told.right, told.masses, told.known) == (5, 3, 2, 1, 4, 3)
    assert (told.localised, told.classified) == (0.75, 0.5)
    assert told.both == pytest.approx(1 / 3)
    assert told.false_share == pytest.approx(0.4)
    assert told.wrong_share == pytest.approx(0.8)


@pytest.mark.parametrize(("found", "true", "right", "rate"), [(698, 260, 204, 0.71), (374, 214, 167, 0.55)])
def test_madsens_rate_is_of_regions_not_both_right(found: int, true: int, right: int, rate: float) -> None:
    from ai.evaluation.pipeline import EndToEnd

    told = EndToEnd(found, true, true, right, 378, 378)
    assert round(told.wrong_share, 2) == rate
    assert round(told.false_share, 2) != rate


def test_sizes_are_of_the_truths_pixels() -> None:
    truth = boxed(SQUARE)
    spaced = ViewImage("1", L_CC, np.zeros(SHAPE, np.float32), Spacing(2.0, 1.0, SpacingRule.DETECTOR))
    assert extents((SQUARE,), truth, spaced) == (Extent(2.0, Measure.AREA),)
    assert extents((SQUARE,), truth, None) == ()
    # All of the image where no breast can be told: 100 of 4800 pixels.
    (share,) = extents((SQUARE,), truth, ViewImage("1", L_CC, np.zeros(SHAPE, np.float32)))
    assert share.value == pytest.approx(100 / 48)
    assert share.measure is Measure.BREAST


def test_strata_have_their_borders_in_the_middle_one() -> None:
    values = (0.9, 1.0, 4.0, 4.1)
    found = strata([(i, 0, Extent(v, Measure.AREA)) for i, v in enumerate(values)])
    assert found == {"< 1 cm²": {0: [0]}, "1 to 4 cm²": {1: [0], 2: [0]}, "> 4 cm²": {3: [0]}}


def a_mass(box: tuple[int, int, int, int], detection: float = 0.9, malignancy: float | None = 0.5) -> Mass:
    x, y, width, height = box
    size = Size(float(width * height), width, height, LengthUnit.PIXEL, None)
    contour = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]], float)
    return Mass(1, (y, x), np.ones((height, width), np.bool_), contour, size, detection, malignancy, 50)


class Marker:
    """A reader that marks the same in every image."""

    model = MODEL
    device = "cpu"

    def __init__(self, *masses: Mass) -> None:
        self.masses = masses

    def read(self, exam: Exam) -> ExamFindings:
        (view,) = exam.images
        found = ImageFindings(view.uid, view.view, view.shape, self.masses, 90, None)
        return ExamFindings(MODEL, (found,), (), 90)


def a_set(folder: Path) -> list[Record]:
    """Write three pictures: with a mask, with a mask that is missed, and without a mass."""
    (folder / "masks").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), rng.integers(0, 255, SHAPE).astype(np.uint8))
    cv2.imwrite(str(folder / "masks" / "a.png"), boxed(SQUARE).astype(np.uint8) * 255)
    cv2.imwrite(str(folder / "masks" / "b.png"), boxed((0, 0, 5, 5)).astype(np.uint8) * 255)
    return [
        Record(
            "a.png",
            "A",
            L_CC,
            (SQUARE,),
            malignant=True,
            pathologies=("MALIGNANT",),
            masks=("masks/a.png",),
            density=2,
            subtlety=(4,),
        ),
        Record(
            "b.png",
            "B",
            R_MLO,
            ((0, 0, 5, 5),),
            malignant=False,
            pathologies=("BENIGN",),
            masks=("masks/b.png",),
            density=3,
        ),
        Record("c.png", "C", L_CC),
    ]


READER = Marker(a_mass((10, 10, 10, 10), 0.9, None), a_mass((40, 60, 10, 10), 0.3, None))


def a_report(folder: Path) -> Report:
    return report(predict(READER, folder, a_set(folder), threshold=0.5), 0.5, repeats=20)


def test_a_report_has_every_figure(tmp_path: Path) -> None:
    told = json.loads(json.dumps(a_report(tmp_path).plain()))
    assert told["threshold"] == 0.5
    # Shown at 0.5: the first mark alone; a hit in a, and false in b and c.
    marks = {name: value and value[0] for name, value in told["marks"].items()}
    assert marks["sensitivity, IoU >= 0.5"] == 0.5
    assert marks["sensitivity, centre in mask"] == 0.5
    assert marks["false positives per image, centre in box"] == 0.667
    assert marks["precision, centre in box"] == 0.333
    assert marks["false positives per image without a mass, IoU > 0.2"] == 1
    pixels = {name: value and value[0] for name, value in told["pixels"].items()}
    assert pixels["Dice, images with a mass, misses 0"] == 0.5
    assert pixels["Dice, images with a mass, misses 0, standard deviation"] == 0.5
    assert pixels["Dice, images with overlap"] == 1
    assert pixels["Dice, pooled"] == round(200 / (300 + 125), 3)
    assert pixels["IoU, pooled, true regions only"] == 1
    assert [pixels[f"thesis {name}"] for name in ("accuracy", "specificity", "F1")] == [0.333, 0, 0.5]
    assert told["image_labels"]["specificity"][0] == 0
    assert told["image_labels"]["AUC, a mass or none, by the strongest candidate"][0] == 0.5
    assert told["end_to_end"]["localised, confidence 0.2"][0] == 0.5
    assert told["end_to_end"]["both, confidence 0.2"] is None
    assert "does not classify" in told["not_defined"]["end_to_end: both, confidence 0.2"]
    assert told["strata"]["density 2, at 1 per image"][0] == 1
    assert told["strata"]["subtlety 4, at 1 per image"][0] == 1
    assert told["strata"]["view MLO, at 1 per image"][0] == 0


def test_dice_on_ellipses_is_told_when_it_is_asked_for_and_called_weak(tmp_path: Path) -> None:
    records = [Record(r.file, r.patient_id, r.view, r.boxes) for r in a_set(tmp_path)]
    plain = report(predict(READER, tmp_path, records, threshold=0.5), 0.5, 5).plain()
    assert set(plain["pixels"].values()) == {None}
    assert "only boxes are known" in plain["not_defined"]["pixels: Dice, pooled"]
    assert "centre in mask" not in plain["sensitivity_at_fppi"]
    weak = report(predict(READER, tmp_path, records, threshold=0.5, weak=True), 0.5, 5, weak=True)
    told = weak.plain()
    assert "pixels" not in told
    # A square against its inscribed ellipse: 2 * 80 / (100 + 80), counted pixel by pixel; the other one is missed.
    assert told["pixels_weak"]["Dice, images with overlap"][0] == pytest.approx(
        2 * np.pi / 4 / (1 + np.pi / 4), abs=0.02
    )
    assert any("weak" in group.title for group in weak.groups)


def test_without_a_mass_figures_say_why_they_are_missing(tmp_path: Path) -> None:
    told = report(predict(READER, tmp_path, [a_set(tmp_path)[2]], threshold=0.5), 0.5, 5).plain()
    assert told["not_defined"]["marks: sensitivity, IoU >= 0.5"] == "no mass"
    assert told["marks"]["false positives per image, IoU >= 0.5"] == [1, 1, 1]
    assert told["image_labels"]["specificity"] == [0, 0, 0]
    assert told["not_defined"]["coco: AP"] == "no mass"


def test_how_many_of_the_images_without_a_mass_were_refused_is_told_beside_the_specificity(tmp_path: Path) -> None:
    *others, negative = predict(READER, tmp_path, a_set(tmp_path), threshold=0.5)
    refused = replace(negative, findings=None, refused="no breast")
    told = report([*others, negative, refused], 0.5, 5).plain()
    for group in ("marks", "image_labels"):
        assert told[group]["refused, of the images without a mass"][0] == 0.5
    assert told["image_labels"]["specificity"][0] == 0.5
    of_masses = report(others, 0.5, 5).plain()
    assert of_masses["not_defined"]["image_labels: refused, of the images without a mass"] == "every image has a mass"


def test_a_mask_of_another_size_is_named(tmp_path: Path) -> None:
    records = a_set(tmp_path)
    cv2.imwrite(str(tmp_path / "masks" / "a.png"), np.zeros((8, 6), np.uint8))
    with pytest.raises(InvalidDataset, match=r"masks/a\.png has 6 x 8 pixels, its image a\.png 60 x 80"):
        predict(READER, tmp_path, records)


def test_an_unreadable_image_keeps_its_truth(tmp_path: Path) -> None:
    records = a_set(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    found = predict(READER, tmp_path, records, threshold=0.5)[0]
    assert found.refused
    assert found.pixels == Overlap(0, 100, 0, 0, 0)
    boxes = Record("a.png", "A", L_CC, (SQUARE,))
    (weak,) = predict(READER, tmp_path, [boxes], weak=True)
    assert weak.pixels is not None
    assert weak.pixels.truth == pytest.approx(25 * np.pi, abs=4)


def test_unlabelled_images_are_read_and_not_scored(tmp_path: Path) -> None:
    record = Record("a.png", "A", L_CC, labelled=False)
    a_set(tmp_path)
    (found,) = predict(READER, tmp_path, [record])
    assert (found.findings is not None, found.pixels, found.dice) == (True, None, None)


def colours(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], box: Box) -> "tuple[int, ...]":
    """Return which of blue, green and red the middle of a box gained."""
    x, y, w, h = (int(v) for v in box)
    return tuple(int(v) for v in picture[y + h // 2, x + w // 2])


def test_pictures_show_hits_green_misses_red_and_false_marks_white(tmp_path: Path) -> None:
    records = a_set(tmp_path)
    for record in records:
        cv2.imwrite(str(tmp_path / record.file), np.zeros(SHAPE, np.uint8))
    cv2.imwrite(str(tmp_path / records[0].file), np.pad(np.full((1, 1), 255, np.uint8), ((0, 79), (0, 59))))
    predictions = predict(READER, tmp_path, records)
    found = draw(predictions[0], tmp_path, 0.0)
    assert colours(found, SQUARE) == tuple(round(0.45 * c) for c in HIT)
    assert colours(found, ELSEWHERE) == tuple(round(0.45 * c) for c in FALSE)
    missed = draw(predictions[1], tmp_path, 0.5)
    assert colours(missed, (0, 0, 5, 5)) == tuple(round(0.45 * c) for c in MISS)
    assert colours(missed, ELSEWHERE) == (0, 0, 0)  # below the threshold
    boxes = Prediction(Record("b.png", "B", L_CC, (SQUARE, (25, 30, 10, 10))), predictions[1].findings)
    drawn = draw(boxes, tmp_path, 0.0)
    assert tuple(drawn[15, 10]) == HIT
    assert tuple(drawn[35, 25]) == MISS


def test_pictures_of_a_set_come_with_a_sheet(tmp_path: Path) -> None:
    records = a_set(tmp_path)
    (tmp_path / "b.png").write_bytes(b"")
    written = draw_all(predict(READER, tmp_path, records), tmp_path, tmp_path / "out", 0.5)
    assert [p.name for p in written] == ["a.png", "b.png", "c.png", "index.png"]
    sheet = cv2.imread(str(written[-1]))
    assert sheet is not None
    assert sheet.shape == (260, 6 * 240, 3)


def test_curves_are_drawn(tmp_path: Path) -> None:
    events = [match(HitRule.CENTRE, detected((0.9, SQUARE))), match(HitRule.CENTRE, detected((0.5, ELSEWHERE)))]
    curve = froc("ours", events, {0.5: 0.9})
    assert curve.fppi.tolist() == [0, 0.5]
    assert curve.sensitivity.tolist() == [0.5, 0.5]
    for suffix in (".png", ".svg"):
        path = plot_froc([curve, froc("nothing", [])], tmp_path / f"froc{suffix}", "test")
        assert path.stat().st_size > 5000
