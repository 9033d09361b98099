"""Decisions about copies (rule R6) while an image or another copy arrives: what PostgreSQL lets happen at once."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from sqlalchemy import Connection, Engine

from storage.conflicts import accept, list_conflicts, reject
from storage.database import reading, writing
from storage.exams import hold, list_exams, touch
from storage.index import ConflictRecord, add_conflict, add_instance, instances_of_exam
from storage.states import ConflictState, ExamState
from tests.records import ANNE, NOON, an_instance

BETTY = replace(ANNE, patient_id="4712", name="Right^Betty")


@contextmanager
def meanwhile(engine: Engine, decide: Callable[[Connection], object]) -> Iterator[Connection]:
    """Yield a transaction of the door's, in whose middle an operator decides in one of his own."""

    def act() -> None:
        with writing(engine) as connection:
            decide(connection)

    operator = threading.Thread(target=act)
    with writing(engine) as connection:
        yield connection
        operator.start()
        operator.join(0.3)  # long enough to come to where it waits
    operator.join()


def a_copy(connection: Connection, number: int) -> int:
    copy = ConflictRecord(
        "1.2.3.1.1", f"conflicts/{number}", NOON, "M", f"d{number}", identity_changed=True, differences=("PatientID",)
    )
    return add_conflict(connection, copy)


def arrives(connection: Connection, uid: str = "1.2.3.1.1") -> int:
    image = an_instance(uid)
    add_instance(connection, image)
    return touch(connection, image.patient, image.study.uid, NOON).id


def test_an_image_that_arrives_while_the_last_other_one_is_moved_is_read(engine: Engine) -> None:
    with writing(engine) as connection:
        arrives(connection)
        conflict = a_copy(connection, 1)
    copy = an_instance(patient=BETTY, path="conflicts/1")
    with meanwhile(engine, lambda connection: accept(connection, conflict, copy, NOON)) as connection:
        arrives(connection, "1.2.3.1.2")
    with reading(engine) as connection:
        exams = {exam.patient.patient_id: exam for exam in list_exams(connection, 9)}
        assert [image.uid for image in instances_of_exam(connection, exams[ANNE.patient_id].id)] == ["1.2.3.1.2"]
    assert {exam.state for exam in exams.values()} == {ExamState.COLLECTING}


def test_an_exam_stays_held_for_a_copy_that_comes_while_another_is_rejected(engine: Engine) -> None:
    with writing(engine) as connection:
        exam = arrives(connection)
        conflict = a_copy(connection, 1)
        hold(connection, exam, held=True)
    with meanwhile(engine, lambda connection: reject(connection, conflict, NOON)) as connection:
        a_copy(connection, 2)
        hold(connection, exam, held=True)
    with reading(engine) as connection:
        assert [each.state for each in list_conflicts(connection)] == [ConflictState.REJECTED, ConflictState.OPEN]
        [held] = list_exams(connection, 9)
    assert held.held
