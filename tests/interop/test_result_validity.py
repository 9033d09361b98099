"""Every form of answer, judged by programs of others: dciodvfy, DCMTK and DCMQI."""

import json
import subprocess
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest

from config.mix import ResultKind
from node.results.answer import AnswerStatus
from node.results.encode import to_bytes
from node.results.seg import stored_masks
from tests.answers import FORMS, RIGHT, an_answer, an_unread_answer, encoded, phantom_headers
from tests.peers import require_dcmtk, require_program

pytestmark = pytest.mark.interop


def run(*command: object) -> subprocess.CompletedProcess[str]:
    """Run a peer's program."""
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=120)


def written(form: str, folder: Path) -> list[tuple[ResultKind, Path]]:
    """Write the objects of a form of answer as files."""
    files = []
    for number, made in enumerate(encoded(FORMS[form]())):
        path = folder / f"{number}.dcm"
        path.write_bytes(to_bytes(made.dataset))
        files.append((made.kind, path))
    return files


def errors(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a file."""
    judged = run(require_program("dciodvfy"), "-new", path)
    return [line for line in (judged.stdout + judged.stderr).splitlines() if line.startswith("Error")]


@pytest.mark.parametrize("form", FORMS)
def test_dciodvfy_finds_no_error(form: str, tmp_path: Path) -> None:
    for _, path in written(form, tmp_path):
        assert errors(path) == []


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
    path = tmp_path / "sr.dcm"
    path.write_bytes(
        to_bytes(encoded(an_unread_answer(AnswerStatus.NOT_ANALYSED, header, reason="tomosynthesis"))[-1].dataset)
    )
    assert errors(path) == []


@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_renders_the_report_without_complaint(form: str, tmp_path: Path) -> None:
    dsrdump = require_dcmtk("dsrdump")
    for kind, path in written(form, tmp_path):
        if kind is ResultKind.SR:
            shown = run(dsrdump, path)
            assert shown.returncode == 0
            complaints = [line for line in shown.stderr.splitlines() if "VR checker does not support" not in line]
            assert complaints == []
            assert "Research use only" in shown.stdout


@pytest.mark.parametrize("form", FORMS)
def test_dcmqi_reads_every_group_of_the_report(form: str, tmp_path: Path) -> None:
    reader = require_program("tid1500reader")
    for kind, path in written(form, tmp_path):
        if kind is ResultKind.SR:
            told = tmp_path / "sr.json"
            read = run(reader, "--inputDICOM", path, "--outputMetadata", told)
            assert read.returncode == 0, read.stderr
            assert "rror" not in read.stderr
            answer = FORMS[form]()
            masses = answer.findings.count if answer.findings else 0
            assert len(json.loads(told.read_text())["Measurements"]) == len(answer.images) + masses


def test_dcmqi_reads_the_masks_of_a_segmentation(tmp_path: Path) -> None:
    reader = require_program("segimage2itkimage")
    made = encoded(an_answer())[0]
    assert made.kind is ResultKind.SEG
    path = tmp_path / "seg.dcm"
    path.write_bytes(to_bytes(made.dataset))
    read = run(reader, "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd", "-p", "seg")
    assert read.returncode == 0, read.stderr
    for number, mask in enumerate(stored_masks(made.dataset), start=1):
        assert nrrd_sum(tmp_path / f"seg-{number}.nrrd", number) == int(mask.sum())


def nrrd_sum(path: Path, label: int) -> int:
    """Return how many voxels of an NRRD file have the label."""
    import gzip

    header, _, data = path.read_bytes().partition(b"\n\n")
    values = np.frombuffer(gzip.decompress(data) if b"encoding: gzip" in header else data, _nrrd_type(header))
    return int((values == label).sum())


def _nrrd_type(header: bytes) -> str:
    kinds = {b"short": "<i2", b"unsigned char": "u1", b"unsigned short": "<u2"}
    name = next(line for line in header.splitlines() if line.startswith(b"type:")).partition(b": ")[2]
    return kinds[name]
