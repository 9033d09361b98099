"""Masses as pixels, which images are used, what leaks, and what ``mammonode data`` says of it."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from ai.datasets.records import Box, Record
from ai.datasets.registry import open_dataset
from ai.datasets.selection import select
from ai.datasets.survey import survey
from ai.datasets.truth import Truth, boxes_of_mask, fill, inscribe, kind_of, mass_mask, read_mask
from ai.errors import InvalidDataset
from ai.exam import STANDARD_VIEWS, View
from node.cli import app
from tests.builders import L_CC
from tests.datasets import a_mask, a_picture, an_inbreast, write_csv, write_dicom, write_png

A_BOX: Box = (10, 20, 5, 4)


def a_record(file: str = "a.png", patient: str = "P1", view: View = L_CC, **known: object) -> Record:
    return replace(Record(file, patient, view), **known)  # type: ignore[arg-type]


def drawn(*rows: str) -> NDArray[np.bool_]:
    return np.array([[c == "#" for c in row] for row in rows])


def test_masks_are_united(tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", a_mask((10, 20, 5)))
    write_dicom(tmp_path / "2.dcm", a_mask((12, 20, 6)))
    mask, truth = mass_mask(a_record(masks=("1.png", "2.dcm"), boxes=(A_BOX,)), tmp_path, (160, 120))
    assert truth is Truth.MASK
    assert np.array_equal(mask, (a_mask((10, 20, 5)) | a_mask((12, 20, 6))) > 0)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", a_mask(shape=(100, 90)))
    with pytest.raises(InvalidDataset, match=r"1\.png has 90 x 100 pixels, its image a\.png 120 x 160"):
        mass_mask(a_record(masks=("1.png",)), tmp_path, (160, 120))


def test_outlines_stand_before_boxes_and_hold_the_pixels_whose_centres_they_enclose() -> None:
    square, triangle = ((1.0, 0.0), (3.0, 0.0), (3.0, 2.0), (1.0, 2.0)), ((4.4, 0.0), (7.9, 0.0), (4.4, 3.5))
    mask, truth = mass_mask(a_record(outlines=(square, triangle), boxes=(A_BOX,)), Path(), (4, 8))
    assert truth is Truth.OUTLINE
    # The triangle's long side is x + y = 7.9: it encloses x from 4.5 to 7.4, 6.4, 5.4 and, in the last row, 4.4.
    assert np.array_equal(mask, drawn(".##.###.", ".##.##..", "....#...", "........"))


def test_an_outline_that_crosses_itself_follows_the_even_odd_rule_and_is_cut_off_at_the_edge() -> None:
    mask = np.zeros((4, 6), np.bool_)
    fill(mask, ((-2, 0), (9, 0), (9, 4), (-2, 4), (-2, 0), (2, 1), (2, 3), (4, 3), (4, 1), (2, 1)))
    assert np.array_equal(mask, drawn("######", "##..##", "##..##", "######"))


@given(
    *(st.floats(-3, 12, allow_nan=False) for _ in range(2)),
    *(st.floats(0.01, 9, allow_nan=False) for _ in range(2)),
)
def test_a_rectangle_encloses_exactly_the_centres_within(x: float, y: float, width: float, height: float) -> None:
    mask = np.zeros((10, 11), np.bool_)
    fill(mask, ((x, y), (x + width, y), (x + width, y + height), (x, y + height)))
    rows, columns = np.mgrid[:10, :11] + 0.5
    inside = (columns >= x) & (columns < x + width) & (rows >= y) & (rows < y + height)
    assert np.array_equal(mask, inside)


def test_ellipses_are_weak_and_hold_the_centres_within() -> None:
    mask, truth = mass_mask(a_record(boxes=((1, 0, 4, 4), (6, 1, 3, 2))), Path(), (4, 8))
    assert truth is Truth.ELLIPSE
    # The corner centres of the 4 x 4 box are 2.12 from its centre; the second box reaches beyond the image.
    assert np.array_equal(mask, drawn("..##....", ".####.##", ".####.##", "..##...."))


def test_a_box_of_no_area_or_beside_the_image_draws_nothing() -> None:
    mask = np.zeros((4, 4), np.bool_)
    for box in ((1, 1, 0, 3), (9, 9, 2, 2), (-5, -5, 2, 2)):
        inscribe(mask, box)
    assert not mask.any()


def test_no_mass_is_an_empty_mask_and_no_label_is_none() -> None:
    mask, truth = mass_mask(a_record(), Path(), (4, 4))
    assert (truth, mask.shape, mask.any()) == (Truth.NONE, (4, 4), np.False_)
    with pytest.raises(InvalidDataset, match=r"a\.png is not labelled"):
        mass_mask(a_record(labelled=False), Path(), (4, 4))


@pytest.mark.parametrize(
    ("stored", "white"),
    [
        (np.array([[0, 127, 128, 255]], np.uint8), [False, False, True, True]),
        (np.array([[0, 1, 1, 0]], np.uint8), [False, True, True, False]),
        (np.array([[0, 300, 40000, 65535]], np.uint16), [False, False, True, True]),
        (np.array([[0, 0, 0, 0]], np.uint8), [False, False, False, False]),
    ],
)
def test_white_is_above_half_of_the_range(tmp_path: Path, stored: NDArray[np.uint16], white: list[bool]) -> None:
    assert read_mask(write_png(tmp_path / "m.png", stored)).tolist() == [white]


@pytest.mark.parametrize(("highest", "kind"), [(2, np.uint8), (100, np.uint8), (4095, np.uint16)])
def test_a_mask_without_white_is_refused_with_its_highest_value(
    tmp_path: Path, highest: int, kind: type[np.uint8 | np.uint16]
) -> None:
    labels = write_png(tmp_path / "m.png", np.array([[0, 1, highest]], kind))
    with pytest.raises(InvalidDataset, match=rf"m\.png: nothing .* half of its range; its highest value is {highest}$"):
        read_mask(labels)


def test_a_mask_in_colour_is_refused_and_one_of_three_equal_channels_is_not(tmp_path: Path) -> None:
    grey = a_mask((10, 20, 5))
    assert np.array_equal(read_mask(write_png(tmp_path / "g.png", np.stack([grey] * 3, 2))), grey > 0)
    black = np.zeros_like(grey)
    for name, channels in (("red", (black, black, grey)), ("yellow", (black, grey, grey))):
        with pytest.raises(InvalidDataset, match=rf"{name}\.png: is no grey image"):
            read_mask(write_png(tmp_path / f"{name}.png", np.stack(channels, 2)))


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"gone\.png: No such file"):
        read_mask(tmp_path / "gone.png")
    (tmp_path / "text.png").write_text("mask", encoding="utf-8")
    with pytest.raises(InvalidDataset, match=r"text\.png: is no image"):
        read_mask(tmp_path / "text.png")
    broken = write_dicom(tmp_path / "broken.dcm", a_mask(), PixelData=b"12")
    with pytest.raises(InvalidDataset, match=r"broken\.dcm: cannot be decoded"):
        read_mask(broken)


def test_regions_are_connected_across_corners_and_specks_are_dropped() -> None:
    mask = a_mask((5, 5, 4), (9, 9, 2), (50, 50, 4)) > 0
    assert boxes_of_mask(mask) == ((5.0, 5.0, 6.0, 6.0),)


def test_what_a_mass_is_drawn_from_is_told() -> None:
    kinds = [kind_of(a_record(**known)) for known in ({"masks": ("m",)}, {"outlines": ((),)}, {"boxes": (A_BOX,)}, {})]
    assert kinds == [Truth.MASK, Truth.OUTLINE, Truth.ELLIPSE, Truth.NONE]


def test_unlabelled_images_are_refused_by_name_or_left_out() -> None:
    records = [a_record("a.png", boxes=(A_BOX,)), *(a_record(f"{n}.png", labelled=False) for n in range(5))]
    with pytest.raises(InvalidDataset, match=r"5 of 6 .*\(0\.png, 1\.png, 2\.png and 2 more\).*--skip-unlabelled"):
        select(records)
    assert select(records, skip_unlabelled=True) == records[:1]
    with pytest.raises(InvalidDataset, match="no image is labelled"):
        select(records[1:], skip_unlabelled=True)


def test_images_without_a_mass_can_be_left_out() -> None:
    records = [a_record("a.png", boxes=(A_BOX,)), a_record("b.png")]
    assert select(records, masses_only=True) == records[:1]
    with pytest.raises(InvalidDataset, match="no image shows a mass"):
        select(records[1:], masses_only=True)


def test_only_exams_with_all_four_views_are_complete() -> None:
    whole = [a_record(str(v), "P1", v, study="S1", boxes=(A_BOX,)) for v in STANDARD_VIEWS]
    torn = [a_record(f"{v} 2", "P1", v, study="S2") for v in STANDARD_VIEWS[:2]]
    rest = [a_record(f"{v} 3", "P1", v, study="S3") for v in STANDARD_VIEWS[2:]]
    assert select(whole + torn + rest, complete_exams=True) == whole
    with pytest.raises(InvalidDataset, match="no exam has all four views"):
        select(torn + rest, complete_exams=True)
    without_study = [replace(r, study=None) for r in torn + rest]
    assert select(without_study, complete_exams=True) == without_study
    # An exam does not become incomplete because one of its images shows no mass.
    half = [replace(whole[0], boxes=()), *whole[1:]]
    assert select(half, complete_exams=True, masses_only=True) == half[1:]


def test_a_subset_that_is_not_there_is_refused_with_those_that_are() -> None:
    records = [a_record("a.png", subset="train"), a_record("b.png", subset="val"), a_record("c.png")]
    assert select(records, subset="val") == records[1:2]
    with pytest.raises(InvalidDataset, match=r"subset 'test'; there are: \['train', 'val'\]"):
        select(records, subset="test")


def test_a_survey_counts_what_the_set_holds(tmp_path: Path) -> None:
    found = survey(open_dataset(an_inbreast(tmp_path)))
    assert found.counts == {
        "images": 4,
        "patients": 2,
        "complete four-view exams": 0,
        "images with a mass": 2,
        "masses": 2,
        "malignant images": 1,
        "patients with a malignant image": 1,
        "images not labelled": 0,
    }
    assert found.shares == {
        "view": {"L CC": 1, "L MLO": 1, "R CC": 1, "R MLO": 1},
        "density": {"b": 2, "d": 1, "not stated": 1},
        "subset": {"none": 4},
        "truth": {"no mass": 2, "outlines": 2},
        "malignant": {"no": 1, "not stated": 2, "yes": 1},
    }
    assert (found.faults, found.notes) == ((), ())


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def a_manifest(folder: Path, *rows: dict[str, str]) -> Path:
    """Write images of different patients that differ, each with a box."""
    full = []
    for place, row in enumerate(rows):
        file = f"{place}.png"
        picture = a_picture(right=place % 2 == 1)
        picture[30:60, 20 + 20 * place : 36 + 20 * place] = 200
        write_png(folder / file, picture)
        base = {"file": file, "patient_id": f"P{place}", "laterality": "RL"[place % 2], "view": "CC", "subset": ""}
        full.append({**base, "boxes_xywh": "[[20, 30, 16, 20]]", "malignant": str(place % 2), **row})
    return write_csv(folder / "manifest.csv", full)


def test_a_clean_set_is_counted_and_has_status_0(tmp_path: Path) -> None:
    shown = cli(a_manifest(tmp_path, {}, {}, {"boxes_xywh": "[]", "malignant": "0"}))
    assert shown.exit_code == 0, shown.output
    assert "refused" not in shown.output
    told = json.loads(cli(tmp_path, "--json", "--quick").stdout)
    assert (told["counts"]["images"], told["counts"]["masses"], told["faults"]) == (3, 2, [])
    assert told["shares"]["truth"] == {"ellipses inscribed in boxes": 2, "no mass": 1}


@pytest.mark.parametrize(
    ("rows", "options", "reason"),
    [
        ([{}, {"boxes_xywh": ""}], [], "1 image is not labelled: 1.png"),
        (
            [{}, {"file": "gone.png"}],
            [],
            "1 image cannot be used: The file is no DICOM, JPEG or PNG image. gone.png: No such file",
        ),
        ([{}, {"boxes_xywh": "[[100, 30, 40, 20]]"}], [], "1.png: the box [100.0, 30.0, 40.0, 20.0] reaches beyond"),
        ([{"boxes_xywh": "[]"}, {"boxes_xywh": "[]"}], ["--quick"], "no image shows a mass"),
        ([{}, {"patient_id": "P0"}], [], "all images are of one patient"),
    ],
)
def test_what_would_stop_a_run_is_told_with_status_1(
    tmp_path: Path, rows: list[dict[str, str]], options: list[str], reason: str
) -> None:
    shown = cli(a_manifest(tmp_path, *rows), *options)
    assert shown.exit_code == 1
    assert "training would be refused: " in shown.stderr
    assert reason in shown.stderr


def test_a_mask_that_does_not_fit_and_a_copied_picture_are_told(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, {}, {"boxes_xywh": ""}, {})
    write_png(tmp_path / "masks" / "1.png", a_mask((5, 5, 9), shape=(80, 60)))
    mirrored = cv2.imread(str(tmp_path / "0.png"), cv2.IMREAD_GRAYSCALE)
    assert mirrored is not None
    write_png(tmp_path / "2.png", mirrored[:, ::-1])
    shown = cli(manifest)
    assert shown.exit_code == 1
    assert "masks/1.png has 60 x 80 pixels, its image 1.png 120 x 160" in shown.stderr
    assert "1 picture stands under two patients: 0.png (patient P0) = 2.png (patient P2), mirrored" in shown.stderr


def test_what_should_be_known_besides_is_noted_with_status_0(tmp_path: Path) -> None:
    rows = [{"malignant": "1", "subset": "train"}, {"malignant": "1", "subset": "train"}, {"boxes_xywh": ""}]
    shown = cli(a_manifest(tmp_path, *rows), "--skip-unlabelled")
    assert shown.exit_code == 0, shown.output
    text = " ".join(shown.stdout.split())
    assert "note: 1 image is not labelled: 2.png" in text
    assert "note: every labelled image shows a mass" in text
    assert "note: all images are malignant" in text
    assert cli(tmp_path, "--subset", "train", "--quick").exit_code == 0
    assert json.loads(cli(tmp_path, "--where", "subset=train", "--quick", "--json").stdout)["counts"]["images"] == 2


def test_black_masks_of_images_that_should_show_something_are_noted(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, {"malignant": "0"}, {"boxes_xywh": ""}, {"boxes_xywh": "", "malignant": "0"}, {})
    for place in range(3):
        write_png(tmp_path / "masks" / f"{place}.png", a_mask())
    shown = cli(manifest)
    assert shown.exit_code == 0, shown.output
    assert ("note: the masks of 2 images that are malignant or have boxes are all black: 0.png, 1.png") in " ".join(
        shown.stdout.split()
    )


def test_masks_of_0_and_1_are_noted_since_they_may_be_labels_of_something_else(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, {"boxes_xywh": ""}, {"boxes_xywh": ""}, {"boxes_xywh": ""})
    for place, white in enumerate((255, 1, 0)):
        write_png(tmp_path / "masks" / f"{place}.png", (a_mask((60, 40, 9)) > 0) * np.uint8(white))
    shown = cli(manifest)
    assert shown.exit_code == 0, shown.output
    assert "note: the masks of 1 image hold 0 and 1 alone: 1 is taken for a mass, also" in " ".join(
        shown.stdout.split()
    )


def test_a_patient_in_two_of_the_publishers_subsets_is_noted(tmp_path: Path) -> None:
    rows = [{"subset": "train"}, {"subset": "test", "patient_id": "P0"}, {"subset": "test"}]
    assert "1 patient is in more than one subset: P0" in " ".join(cli(a_manifest(tmp_path, *rows)).stdout.split())


def test_options_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, {}, {})
    assert isinstance(cli(manifest, "--subset", "val").exception, InvalidDataset)
    assert isinstance(cli(manifest, "--kind", "inbreast").exception, InvalidDataset)
    assert cli(manifest, "--where", "view").exit_code == 2
