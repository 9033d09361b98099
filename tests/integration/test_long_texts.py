"""A header with a text of many kilobytes is indexed on both databases."""

from pathlib import Path

from sqlalchemy import Engine

from config.policy import Watermark
from node.intake import Intake, Outcome
from node.phantom import phantom_exam
from node.records import Origin
from storage.files import FolderStore


def test_an_instance_with_a_garbled_patient_id_of_100_kilobytes_is_stored(engine: Engine, tmp_path: Path) -> None:
    image = phantom_exam(3, small=True).images[0]
    image.PatientID = "".join(chr(0x21 + (i * i * 7 + i) % 90) for i in range(60_000))
    store = FolderStore(tmp_path / "store")
    store.prepare()
    temp = store.incoming / "a.dcm"
    image.save_as(temp, enforce_file_format=True)
    intake = Intake(store, engine, Watermark(1.0, 0))
    receipt = intake.receive(temp, None, Origin("A", "B", "127.0.0.1", "1"))
    assert receipt.outcome is Outcome.STORED
    assert receipt.exam_uid is not None
