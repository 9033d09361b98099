"""Every kind of object in every form, of every form of answer, judged by programs of others: dciodvfy, DCMTK, DCMQI."""

import gzip
import json
import subprocess
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from datetime import timedelta, timezone
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from config.mix import FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from node.results.answer import Answer, AnswerStatus
from node.results.edition import Edition
from node.results.encode import ENCODERS, ResultObject, encode, to_bytes
from tests.answers import (
    CREATED_AT,
    FORMS,
    RIGHT,
    an_answer,
    an_edition,
    an_unread_answer,
    encoded,
    phantom_headers,
    stored_masks,
)
from tests.bad import ALL, BAD, FORMER, MIXES, UNREAD, all_objects, assert_all_said, edition
from tests.peers import require_dcmtk, require_program

pytestmark = [
    pytest.mark.interop,
    # The source's own long or malformed texts, which pydicom remarks on.
    pytest.mark.filterwarnings("ignore:The value length"),
    pytest.mark.filterwarnings("ignore:Invalid value for VR"),
]

VARIANTS = MIXES | {
    # The other kinds have one form, which is among the usual ones.
    "label map, older report": replace(MIXES["label map, older report"], objects=(ResultKind.SEG, ResultKind.SR)),
    "SNOMED RT": replace(ALL, objects=(ResultKind.CAD_SR,), finding_codes=FindingCodes.SRT),
}
REPORTS = (ResultKind.SR, ResultKind.CAD_SR)

SELDOM = {
    "findings: forty",
    *(f"findings: image of {size}" for size in ("1x2", "2x1", "2x3", "700x1")),
    # The same header stands under findings too.
    *(case for case in UNREAD if not case.endswith(("is none", "are none", "long texts", "lossy", "size", "UIDs"))),
}
"""Judged by `make test-long` alone."""

NAMELESS = ("header: nobody's", "header: nothing but the UIDs and the size")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a peer's program."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)


def written(made_for: Edition, folder: Path) -> list[tuple[ResultObject, Path]]:
    """Write all objects, those that are sent in another's place too, as files."""
    files: list[tuple[ResultObject, Path]] = []
    for made in all_objects(made_for):
        path = folder / f"{len(files)}-{made.kind}.dcm"
        path.write_bytes(to_bytes(made.dataset))
        files.append((made, path))
    return files


def second(answer: Answer) -> Answer:
    """Return the answer as a second revision, which withdraws an object of the first."""
    return replace(answer, revision=2, superseded=(FORMER,), changes=("Supersedes the answer to revision 1.",))


def errors(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a file."""
    judged = run(require_program("dciodvfy"), "-new", path)
    assert judged.stdout + judged.stderr, "dciodvfy names at least the IOD"
    return [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")]


def all_errors(paths: Iterable[Path]) -> dict[str, list[str]]:
    """Return the errors of files that have any, by file name."""
    with ThreadPoolExecutor(2) as pool:
        listed = list(paths)
        return {path.name: found for path, found in zip(listed, pool.map(errors, listed), strict=True) if found}


def test_no_kind_of_object_is_left_out() -> None:
    assert set(ALL.objects) == set(ENCODERS) == set(ResultKind)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("form", FORMS)
def test_dciodvfy_finds_no_error(form: str, variant: str, tmp_path: Path) -> None:
    files = written(an_edition(second(FORMS[form]()), VARIANTS[variant]), tmp_path)
    kinds = {made.kind for made, _ in files}
    assert {ResultKind.SR, ResultKind.CAD_SR} & set(VARIANTS[variant].objects) <= kinds
    assert all_errors(path for _, path in files) == {}


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow if case in SELDOM else []) for case in BAD])
def test_the_answer_to_odd_findings_or_headers_says_all_and_dciodvfy_finds_no_error(case: str, tmp_path: Path) -> None:
    mix = replace(ALL, segmentation=SegmentationType.LABELMAP)  # with the BINARY ones in its place
    made_for = edition(BAD[case](), mix)
    files = written(made_for, tmp_path)
    assert_all_said(made_for, [(made, dcmread(path)) for made, path in files])
    assert all_errors(path for _, path in files) == {}


def test_dciodvfy_is_not_silent_about_a_broken_report(tmp_path: Path) -> None:
    report = encoded(an_answer())[-1].dataset
    del report.CompletionFlag
    path = tmp_path / "broken.dcm"
    path.write_bytes(to_bytes(report))
    assert errors(path) != []


@pytest.mark.parametrize(
    "sop_class", ["1.2.840.10008.5.1.4.1.1.13.1.3", "1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.1.2.1"]
)
def test_dciodvfy_finds_no_error_in_the_answer_to_images_that_are_no_mammograms(sop_class: str, tmp_path: Path) -> None:
    header = deepcopy(phantom_headers()[RIGHT[0]])
    header.SOPClassUID = sop_class
    answer = an_unread_answer(AnswerStatus.NOT_ANALYSED, header, reason="tomosynthesis")
    assert all_errors(path for _, path in written(an_edition(answer, ALL), tmp_path)) == {}


@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_renders_the_reports_without_complaint(form: str, tmp_path: Path) -> None:
    dsrdump = require_dcmtk("dsrdump")
    files = written(an_edition(FORMS[form](), replace(ALL, objects=REPORTS)), tmp_path)
    assert [made.kind for made, _ in files] == [ResultKind.SR, ResultKind.SR, ResultKind.CAD_SR]
    for _, path in files:
        shown = run(dsrdump, path)
        assert shown.returncode == 0, shown.stderr
        known = ("VR checker does not support", "Check for template constraints not yet supported")
        complaints = [line for line in shown.stderr.splitlines() if not any(words in line for words in known)]
        assert complaints == []
        assert "Research use only" in shown.stdout


@pytest.mark.parametrize("case", [case for case in BAD if case not in UNREAD])
def test_dcmtk_applies_the_presentation_states_of_odd_findings_and_headers(case: str, tmp_path: Path) -> None:
    dcmpschk = require_dcmtk("dcmpschk")
    # DCMTK 3.6.7 takes +0100 and refuses +0000, which PS3.5 6.2 allows: the test is not in Greenwich.
    answer = replace(BAD[case](), created_at=CREATED_AT.astimezone(timezone(timedelta(hours=1))))
    for _, path in written(edition(answer, replace(ALL, objects=(ResultKind.GSPS,))), tmp_path):
        told = run(dcmpschk, path).stderr.splitlines()
        # It asks for a patient's name, which may be empty (Type 2, PS3.3 C.7.1.1), and ends with 0 whatever it finds.
        faults = [line for line in told if not line.startswith("W: Test") and "patientName absent or empty" not in line]
        assert faults == []
        assert "W: Test passed." in told or case in NAMELESS


@pytest.mark.parametrize("report", ReportClass)
@pytest.mark.parametrize("form", FORMS)
def test_dcmqi_reads_every_group_of_the_report(form: str, report: ReportClass, tmp_path: Path) -> None:
    reader = require_program("tid1500reader")
    answer = FORMS[form]()
    masses = answer.findings.count if answer.findings else 0
    (made,) = encoded(answer, ObjectMix((ResultKind.SR,), report=report))
    path, told = tmp_path / "sr.dcm", tmp_path / "sr.json"
    path.write_bytes(to_bytes(made.dataset))
    read = run(reader, "--inputDICOM", path, "--outputMetadata", told)
    assert read.returncode == 0, read.stderr
    assert "rror" not in read.stderr
    assert len(json.loads(told.read_text())["Measurements"]) == len(answer.images) + masses


@pytest.mark.parametrize("case", ["findings: one over the other", "findings: along every border", "header: no spacing"])
@pytest.mark.parametrize("form", SegmentationType)
def test_dcmqi_reads_the_masks_of_a_segmentation(form: SegmentationType, case: str, tmp_path: Path) -> None:
    reader = require_program("segimage2itkimage")
    mix = replace(ALL, objects=(ResultKind.SEG,), segmentation=form)
    path, target = tmp_path / "seg.dcm", encode(edition(BAD[case](), mix))[0].dataset
    path.write_bytes(to_bytes(target))
    read = run(reader, "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd", "-p", "seg")
    assert read.returncode == 0, read.stderr
    expected = stored_masks(target)
    if form is SegmentationType.LABELMAP:
        labels = nrrd(tmp_path / "seg-1.nrrd")
        found = [labels == number for number in range(1, len(expected) + 1)]
    else:
        found = [nrrd(tmp_path / f"seg-{number}.nrrd") > 0 for number in range(1, len(expected) + 1)]
    np.testing.assert_array_equal(np.stack(found), expected)


def test_dcmqi_reads_the_map_with_its_place_and_its_meaning(tmp_path: Path) -> None:
    reader = require_program("paramap2itkimage")
    target = encoded(an_answer(), replace(ALL, objects=(ResultKind.PMAP,)))[0].dataset
    path = tmp_path / "map.dcm"
    path.write_bytes(to_bytes(target))
    read = run(reader, "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd", "-n", "map")
    assert read.returncode == 0, read.stderr
    expected = np.frombuffer(target.FloatPixelData, "<f4").reshape(target.Rows, target.Columns)
    np.testing.assert_array_equal(nrrd(tmp_path / "map-pmap.nrrd"), expected)
    told = "".join(each.read_text() for each in tmp_path.glob("*.json"))
    assert "not a calibrated probability" in told


def nrrd(path: Path) -> NDArray[np.float64]:
    """Return the one slice of an NRRD file."""
    header, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(b": ", 1) for line in header.splitlines() if b": " in line)
    kinds = {b"short": "<i2", b"unsigned char": "u1", b"unsigned short": "<u2", b"float": "<f4"}
    columns, rows, _ = map(int, fields[b"sizes"].split())
    unpack = gzip.decompress if fields[b"encoding"] == b"gzip" else partial(bytes)
    return np.frombuffer(unpack(data), kinds[fields[b"type"]]).reshape(rows, columns).astype(np.float64)
