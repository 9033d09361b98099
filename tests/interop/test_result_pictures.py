"""Presentation states, pictures and summaries, judged by programs of others: dciodvfy and DCMTK."""

import subprocess
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.pixels import presentation_values
from config.mix import ObjectMix, ResultKind
from node.results.answer import Answer
from node.results.encode import ResultObject, to_bytes
from tests.answers import CREATED_AT, FORMS, an_answer, encoded
from tests.peers import require_dcmtk, require_program
from tests.unit.test_results_gsps import CHANGES, an_image, sigmoid, state_of

pytestmark = pytest.mark.interop

PICTURES = ObjectMix((ResultKind.GSPS, ResultKind.SC, ResultKind.SC_VIEW, ResultKind.PDF))


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a peer's program."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)


def written(answer: Answer, folder: Path, *kinds: ResultKind) -> list[tuple[ResultObject, Path]]:
    """Write an answer's objects of some kinds, or of all, as files."""
    files = []
    for number, made in enumerate(encoded(answer, replace(PICTURES, objects=kinds) if kinds else PICTURES)):
        path = folder / f"{made.kind}{number}.dcm"
        path.write_bytes(to_bytes(made.dataset))
        files.append((made, path))
    return files


def without_what_is_optional(header: Dataset) -> None:
    """Leave out what senders leave out."""
    for keyword in ("PatientOrientation", "ImageLaterality", "ImagerPixelSpacing", "AccessionNumber", "StudyID"):
        header.pop(keyword, None)


@pytest.mark.parametrize("form", FORMS)
def test_dciodvfy_finds_no_error_in_any_form(form: str, tmp_path: Path) -> None:
    for _, path in written(FORMS[form](), tmp_path):
        judged = run(require_program("dciodvfy"), "-new", path)
        assert [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")] == []


@pytest.mark.parametrize("change", [*CHANGES, without_what_is_optional])
def test_dciodvfy_finds_no_error_whatever_the_source_is_like(change: Callable[[Dataset], None], tmp_path: Path) -> None:
    for _, path in written(an_answer(change=change), tmp_path):
        judged = run(require_program("dciodvfy"), "-new", path)
        assert [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")] == []


def checked(answer: Answer, folder: Path) -> None:
    """Let dcmpschk check the presentation states of an answer."""
    # DCMTK 3.6.7 takes +0100 and refuses +0000, which PS3.5 6.2 allows: the test is not in Greenwich.
    elsewhere = replace(answer, created_at=CREATED_AT.astimezone(timezone(timedelta(hours=1))))
    for _, path in written(elsewhere, folder, ResultKind.GSPS):
        judged = run(require_dcmtk("dcmpschk"), path)
        told = (judged.stdout + judged.stderr).splitlines()
        assert [line for line in told if line.startswith(("E:", "F:"))] == []
        # It exits with 0 whatever it finds.
        assert "W: Test passed." in told


@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_finds_nothing_wrong_with_presentation_states(form: str, tmp_path: Path) -> None:
    checked(FORMS[form](), tmp_path)


@pytest.mark.parametrize("change", [*CHANGES, without_what_is_optional])
def test_dcmtk_finds_nothing_wrong_whatever_grey_the_source_has(
    change: Callable[[Dataset], None], tmp_path: Path
) -> None:
    checked(an_answer(change=change), tmp_path)


def test_dcmpschk_is_not_silent_about_a_second_window(tmp_path: Path) -> None:
    [(made, path), *_] = written(an_answer(), tmp_path, ResultKind.GSPS)
    made.dataset.SoftcopyVOILUTSequence[0].WindowCenter = ["1800", "1800"]
    made.dataset.SoftcopyVOILUTSequence[0].WindowWidth = ["3200", "2200"]
    path.write_bytes(to_bytes(made.dataset))
    judged = run(require_dcmtk("dcmpschk"), path)
    assert "W: Test passed." not in (judged.stdout + judged.stderr).splitlines()


@pytest.mark.parametrize("change", [change for change in CHANGES if change is not sigmoid])
def test_dcmtk_shows_the_image_under_its_state_as_grey_as_the_reader_sees_it(
    change: Callable[[Dataset], None], tmp_path: Path
) -> None:
    """All but the sigmoid, which DCMTK 3.6.7 shows as a line."""
    image = deepcopy(an_image())
    change(image)
    source, state, shown = (tmp_path / name for name in ("image.dcm", "state.dcm", "shown.pgm"))
    image.save_as(source, enforce_file_format=True)
    state.write_bytes(to_bytes(state_of(change)))
    rendered = run(require_dcmtk("dcmp2pgm"), "--pstate", state, source, shown)
    assert rendered.returncode == 0, rendered.stderr
    read = cv2.imread(str(shown), cv2.IMREAD_UNCHANGED)
    assert read is not None
    # The reader stretches to the full range, DCMTK does not: the one is a rising line of the other.
    slope, offset = np.polyfit(np.ravel(read).astype(float), np.ravel(presentation_values(image)), 1)
    assert slope > 0
    assert slope * read.astype(float) + offset == pytest.approx(presentation_values(image), abs=0.02)


@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_shows_the_pictures_as_they_were_drawn(form: str, tmp_path: Path) -> None:
    for made, path in written(FORMS[form](), tmp_path, ResultKind.SC, ResultKind.SC_VIEW):
        shown = path.with_suffix(".ppm")
        rendered = run(require_dcmtk("dcm2pnm"), "--write-raw-pnm", path, shown)
        assert rendered.returncode == 0, rendered.stderr
        read = cv2.imread(str(shown))
        assert read is not None
        assert (np.asarray(read)[..., ::-1] == made.dataset.pixel_array).all()


@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_unpacks_the_document(form: str, tmp_path: Path) -> None:
    for made, path in written(FORMS[form](), tmp_path, ResultKind.PDF):
        unpacked = path.with_suffix(".pdf")
        done = run(require_dcmtk("dcm2pdf"), path, unpacked)
        assert done.returncode == 0, done.stderr
        length = made.dataset.EncapsulatedDocumentLength
        assert unpacked.read_bytes()[:length] == bytes(made.dataset.EncapsulatedDocument)[:length]
