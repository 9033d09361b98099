"""The phantom: valid MG images, exact truth, equal arguments give equal exams."""

import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from ai.exam import STANDARD_VIEWS, Laterality, View, ViewPosition
from node.phantom import PhantomExam, phantom_exam
from node.phantom_pixels import Lesion
from tests.builders import LOSSLESS, compressed, for_processing, monochrome1
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


def test_every_mass_brightens_exactly_its_mask(an_exam: PhantomExam) -> None:
    """Without masses the same seed gives the same tissue and noise, so that the difference is the masses."""
    without = phantom_exam(7, small=True, masses=())
    assert an_exam.truth
    for view in STANDARD_VIEWS:
        change = an_exam.image(view).pixel_array.astype(int) - without.image(view).pixel_array
        everywhere = np.zeros(change.shape, np.bool_)
        for mass in an_exam.masses(view):
            assert change[mass.mask].mean() > 50
            everywhere |= mass.mask
        # The edge is blurred by half a millimetre, so look three pixels (1.35 mm) away from it.
        near = np.pad(everywhere, 3)
        shifts = [np.roll(near, (dy, dx), (0, 1))[3:-3, 3:-3] for dy in range(-3, 4) for dx in range(-3, 4)]
        far = ~np.any(shifts, axis=0)
        assert np.abs(change[far]).max(initial=0) <= 2


def test_a_lesion_is_in_both_views_of_its_breast_and_nowhere_else() -> None:
    lesion = Lesion(Laterality.LEFT, depth=0.5, lateral=0.3, vertical=-0.2)
    exam = phantom_exam(1, small=True, masses=[lesion])
    assert [(mass.view, mass.lesion) for mass in exam.truth] == [(L_CC, lesion), (L_MLO, lesion)]
    assert not exam.masses(R_CC)


@pytest.mark.parametrize("side", [Laterality.LEFT, Laterality.RIGHT])
@pytest.mark.parametrize("offset", [-0.5, 0.5])
@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_lesions_at_the_limits_stay_within_the_image(side: Laterality, offset: float, depth: float) -> None:
    exam = phantom_exam(3, small=True, masses=[Lesion(side, depth, offset, offset, radius=12, irregularity=0)])
    assert len(exam.truth) == 2
    for mass in exam.truth:
        area = mass.mask.sum() * 0.45**2
        assert area == pytest.approx(np.pi * 12**2, rel=0.02)
        assert (exam.image(mass.view).pixel_array[mass.mask] > 0).all()


@pytest.mark.parametrize("change", [{"depth": 1.1}, {"lateral": -0.6}, {"vertical": 0.6}, {"radius": 13.0}])
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


@pytest.mark.interop
@pytest.mark.parametrize("small", [True, False])
def test_dciodvfy_finds_no_error(tmp_path: Path, *, small: bool) -> None:
    dciodvfy = require_program("dciodvfy")
    started = time.process_time()
    exam = phantom_exam(2, small=small)
    assert time.process_time() - started < (5 if small else 30)
    for number, image in enumerate(exam.images):
        path = tmp_path / f"{number}.dcm"
        image.save_as(path, enforce_file_format=True)
        assert dcmread(path) == image
        checked = subprocess.run([dciodvfy, "-new", path], capture_output=True, text=True, check=False)
        assert "Error" not in checked.stdout + checked.stderr
        assert "MammographyImageForPresentation" in checked.stderr + checked.stdout


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
