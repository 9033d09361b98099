"""A header with texts of many kilobytes is indexed on both databases."""

from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine

from config.policy import Watermark
from node.intake import Intake, Outcome
from node.phantom import phantom_exam
from node.records import Origin
from storage.files import FolderStore


@pytest.mark.filterwarnings("ignore:.*exceeds the maximum")
def test_an_instance_with_garbled_identifiers_of_60_kilobytes_is_stored(engine: Engine, tmp_path: Path) -> None:
    image = phantom_exam(3, small=True).images[0]
    image.SpecificCharacterSet = "ISO_IR 192"
    # Ideographs of four bytes in UTF-8, in no order that an index could compress.
    letters = Random(3)  # noqa: S311 - nothing secret
    for keyword in ("PatientID", "IssuerOfPatientID", "PatientName", "AccessionNumber", "StudyID", "StudyDescription"):
        setattr(image, keyword, "".join(chr(letters.randrange(0x20000, 0x2A6D0)) for _ in range(15_000)))
    store = FolderStore(tmp_path / "store")
    store.prepare()
    temp = store.incoming / "a.dcm"
    image.save_as(temp, enforce_file_format=True)
    intake = Intake(store, engine, Watermark(1.0, 0))
    receipt = intake.receive(temp, None, Origin("A", "B", "127.0.0.1", "1"))
    assert receipt.outcome is Outcome.STORED
    assert receipt.exam_uid is not None
