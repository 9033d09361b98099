"""The phantom: valid MG images, exact truth, equal arguments give equal exams."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID
from typer.testing import CliRunner

from ai.datasets.registry import open_dataset
from ai.datasets.sources import SOURCES
from ai.datasets.truth import Truth, mass_mask
from ai.exam import STANDARD_VIEWS, Laterality, View, ViewPosition
from ai.phantom.lesions import Lesion
from ai.phantom.margins import Margin
from ai.phantom.vendors import VENDORS
from node.cli import app
from node.phantom import Form, PhantomExam, VoiFunction, phantom_exam
from node.phantom_files import TruthForms, truth_segmentations, write_exam
from node.views import classify
from tests.answers import stored_masks
from tests.builders import A_MASS_IN_EACH, LOSSLESS, compressed, for_processing, monochrome1
from tests.peers import require_program

L_CC = View(Laterality.LEFT, ViewPosition.CC)
L_MLO = View(Laterality.LEFT, ViewPosition.MLO)
R_CC = View(Laterality.RIGHT, ViewPosition.CC)


@pytest.fixture(scope="module")
def an_exam() -> PhantomExam:
    return phantom_exam(7, small=True)


def test_it_has_the_four_standard_views(an_exam: PhantomExam) -> None:
    shown = [(image.ImageLaterality, image.ViewPosition) for image in an_exam.images]
    assert shown == [(view.laterality, view.position) for view in STANDARD_VIEWS]


def test_the_same_seed_gives_the_same_bytes(an_exam: PhantomExam) -> None:
    again = phantom_exam(7, small=True)
    assert again.images == an_exam.images
    assert [mass.box for mass in again.truth] == [mass.box for mass in an_exam.truth]


@pytest.mark.parametrize(
    "other",
    [
        phantom_exam(8, small=True),
        phantom_exam(7, small=True, patient_id="PHANTOM-2"),
        phantom_exam(7, small=True, masses=()),
        phantom_exam(7, small=True, acquired_at=datetime(2026, 1, 11, tzinfo=UTC)),
    ],
    ids=["seed", "patient", "masses", "time"],
)
def test_another_argument_gives_other_uids(an_exam: PhantomExam, other: PhantomExam) -> None:
    def uids(exam: PhantomExam) -> set[str]:
        return {
            uid
            for image in exam.images
            for uid in (image.SOPInstanceUID, image.SeriesInstanceUID, image.StudyInstanceUID)
        }

    assert len(uids(an_exam)) == 9
    assert not uids(an_exam) & uids(other)


def test_every_view_is_a_series_of_its_own_in_one_study(an_exam: PhantomExam) -> None:
    assert len({image.SeriesInstanceUID for image in an_exam.images}) == 4
    assert len({image.StudyInstanceUID for image in an_exam.images}) == 1


def test_the_chest_wall_is_where_patient_orientation_says(an_exam: PhantomExam) -> None:
    for image in an_exam.images:
        left, right = image.pixel_array[:, 0].sum(dtype=int), image.pixel_array[:, -1].sum(dtype=int)
        towards_the_nipple = image.PatientOrientation[0]
        assert (left > right) == (towards_the_nipple == "A")
        assert min(left, right) == 0


def test_masses_brighten_their_masks_and_elsewhere_the_twin_without_masses_is_equal() -> None:
    masses = [*A_MASS_IN_EACH, replace(A_MASS_IN_EACH[1], lateral=0.4, margin=Margin.SPICULATED, radius=5)]
    exam, without = (phantom_exam(7, small=True, masses=chosen) for chosen in (masses, ()))
    for view in STANDARD_VIEWS:
        change = exam.image(view).pixel_array.astype(int) - without.image(view).pixel_array
        near = np.zeros(change.shape, np.bool_)
        y, x = np.indices(change.shape)
        for mass in exam.masses(view):
            assert change[mass.mask].mean() > 50
            # Spicules reach beyond the mask, and the picture is sharpened by what is within a few millimetres.
            reach = 3 * mass.lesion.radius + 6
            near |= np.hypot(y - mass.centre[0], x - mass.centre[1]) * 0.45 < reach
        assert not change[~near].any()


def test_a_lesion_is_in_both_views_of_its_breast_and_nowhere_else() -> None:
    lesion = Lesion(Laterality.LEFT, depth=0.5, lateral=0.3, vertical=-0.2)
    exam = phantom_exam(1, small=True, masses=[lesion])
    assert [(mass.view, mass.lesion) for mass in exam.truth] == [(L_CC, lesion), (L_MLO, lesion)]
    assert not exam.masses(R_CC)


@pytest.mark.parametrize(("side", "offset", "depth"), [(Laterality.LEFT, -0.5, 1.0), (Laterality.RIGHT, 0.5, 0.0)])
def test_lesions_at_the_limits_stay_within_the_image(side: Laterality, offset: float, depth: float) -> None:
    exam = phantom_exam(3, small=True, masses=[Lesion(side, depth, offset, offset, radius=12, irregularity=0)])
    assert len(exam.truth) == 2
    for mass in exam.truth:
        area = mass.mask.sum() * 0.45**2
        assert area == pytest.approx(np.pi * 12**2, rel=0.02)
        assert (exam.image(mass.view).pixel_array[mass.mask] > 0).all()


@pytest.mark.parametrize("change", [{"depth": 1.1}, {"lateral": -0.6}, {"vertical": 0.6}, {"radius": 15.0}])
def test_a_lesion_outside_of_the_breast_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="outside of the breast"):
        replace(Lesion(Laterality.LEFT, 0.5, 0, 0), **change)


def test_the_study_goes_on_past_midnight() -> None:
    exam = phantom_exam(1, small=True, acquired_at=datetime(2026, 1, 10, 23, 58, 30, tzinfo=UTC))
    moments = [(image.AcquisitionDate, image.AcquisitionTime) for image in exam.images]
    assert moments == [
        ("20260110", "235930"),
        ("20260111", "000030"),
        ("20260111", "000130"),
        ("20260111", "000230"),
    ]
    assert {image.StudyDate for image in exam.images} == {"20260110"}


FORMS = {
    "a": Form(for_processing=True),
    "b": Form(VoiFunction.SIGMOID, one_series=True, for_processing=True),
    "c": Form(VoiFunction.LINEAR_EXACT),
}


@pytest.fixture(scope="module")
def exams_of_the_vendors() -> dict[str, PhantomExam]:
    return {name: phantom_exam(2, small=True, vendor=VENDORS[name], form=form) for name, form in FORMS.items()}


@pytest.mark.parametrize("vendor", FORMS)
def test_the_form_is_as_it_was_asked_for(vendor: str, exams_of_the_vendors: dict[str, PhantomExam]) -> None:
    exam, form = exams_of_the_vendors[vendor], FORMS[vendor]
    assert len({image.SeriesInstanceUID for image in exam.images}) == (1 if form.one_series else 4)
    assert {image.get("VOILUTFunction") for image in exam.images} == {
        None if form.voi_function is VoiFunction.NONE else form.voi_function.value
    }
    assert len(exam.twins) == (4 if form.for_processing else 0)
    for image, twin in zip(exam.images, exam.twins, strict=False):
        assert twin.SOPInstanceUID != image.SOPInstanceUID
        assert twin.SeriesInstanceUID not in {other.SeriesInstanceUID for other in exam.images}
        assert (twin.ImageLaterality, twin.ViewPosition) == (image.ImageLaterality, image.ViewPosition)
        assert classify(image).usable
        assert not classify(twin).usable
    for image in (*exam.images, *exam.twins):
        assert "phantom" in image.StudyDescription.lower()
        assert "phantom" in image.SeriesDescription
        assert image.PatientName == "PHANTOM^FOUR VIEWS"


@pytest.mark.interop
def test_dciodvfy_finds_no_error_in_the_command_s_files(
    exams_of_the_vendors: dict[str, PhantomExam], tmp_path: Path
) -> None:
    dciodvfy = require_program("dciodvfy")
    for name, exam in exams_of_the_vendors.items():
        list(write_exam(exam, tmp_path / name, TruthForms(), "PHANTOM-2"))
    files = sorted(tmp_path.rglob("*.dcm"))
    assert len(files) == 3 * 4 + 2 * 4 + sum(
        len({mass.view for mass in exam.truth}) for exam in exams_of_the_vendors.values()
    )
    # All of a kind that the forms do not change say the same: one view each of vendors a and c, all of b.
    for path in (path for path in files if path.parent.name == "b" or path.name.startswith("L-CC")):
        checked = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr, path
        assert checked.stdout + checked.stderr


def test_the_segmentations_hold_the_truth(exams_of_the_vendors: dict[str, PhantomExam]) -> None:
    exam = exams_of_the_vendors["b"]
    made = {each.uid: each.dataset for each in truth_segmentations(exam)}
    assert made
    for view in STANDARD_VIEWS:
        masks = [mass.mask for mass in exam.masses(view)]
        if masks:
            assert np.array_equal(stored_masks(made[str(exam.image(view).SOPInstanceUID)]), np.stack(masks))
    assert all("Phantom truth" in dataset.SeriesDescription for dataset in made.values())


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["phantom", *map(str, arguments)])


def test_the_command_writes_what_evaluate_takes(tmp_path: Path) -> None:
    folder = tmp_path / "exams"
    done = invoke(folder, "--seed", 2, "--small", "--twins", "--truth", "json")
    assert done.exit_code == 0, done.output
    opened = open_dataset(folder)
    records = opened.records
    assert opened.source == SOURCES["phantoms"]
    assert len(records) == 8
    assert {record.patient_id for record in records} == {"PHANTOM-2"}
    exam = phantom_exam(2, small=True)
    for record in records[:4]:
        assert [tuple(map(int, box)) for box in record.boxes] == [mass.box for mass in exam.masses(record.view)]
        pixels = exam.image(record.view).pixel_array
        assert np.array_equal(dcmread(folder / record.path).pixel_array, pixels)
        mask, kind = mass_mask(record, folder, pixels.shape)
        assert kind is (Truth.MASK if record.boxes else Truth.NONE)
        assert np.array_equal(mask, np.any([np.zeros_like(mask), *(m.mask for m in exam.masses(record.view))], axis=0))
    assert any(record.boxes for record in records[:4])
    assert not any(record.boxes or record.masks for record in records[4:])
    truth = json.loads((folder / "phantom-2" / "truth.json").read_text(encoding="utf-8"))
    assert [each["malignant"] for each in truth["lesions"]] == [each.malignant for each in exam.woman.lesions]
    assert not list(folder.rglob("*-truth.dcm"))
    again = invoke(folder, "--small")
    assert again.exit_code != 0
    assert "not empty" in str(again.exception)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--exams", "0"), "greater than or equal to 1"),
        (("--seed", "-1"), "greater than or equal to 0"),
        (("--vendor", "hologic"), "'hologic' is not one of"),
        (("--truth", "yes"), "'yes' is not one of"),
    ],
)
def test_the_command_refuses_what_it_cannot_do(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = invoke(tmp_path / "new", *arguments)
    assert done.exit_code == 2
    assert words in done.output
    assert not (tmp_path / "new").exists()


@pytest.mark.interop
@pytest.mark.parametrize("variant", [for_processing, monochrome1])
def test_variants_stay_valid_and_show_the_inverted_values(
    variant: Callable[[Dataset], Dataset], an_exam: PhantomExam, tmp_path: Path
) -> None:
    image = variant(an_exam.images[0])
    assert np.array_equal(image.pixel_array, 4095 - an_exam.images[0].pixel_array)
    image.save_as(tmp_path / "variant.dcm", enforce_file_format=True)
    dciodvfy = require_program("dciodvfy")
    checked = subprocess.run([dciodvfy, "-new", tmp_path / "variant.dcm"], capture_output=True, text=True, check=False)
    assert "Error" not in checked.stdout + checked.stderr


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_compressed_variants_keep_every_pixel(syntax: UID, an_exam: PhantomExam) -> None:
    image = compressed(an_exam.images[0], syntax)
    assert image.file_meta.TransferSyntaxUID == syntax
    assert image.SOPInstanceUID == an_exam.images[0].SOPInstanceUID
    assert np.array_equal(image.pixel_array, an_exam.images[0].pixel_array)
