"""Hostile data sets: each is stored, and its exam answered, or refused with a status of rule R9; nothing else happens.

The changed files come from a seed; MAMMONODE_FUZZ_SEED takes another. A failure names the file: ``odd_file(seed, number)``.
"""

import os
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from structlog.testing import capture_logs
from typer.testing import CliRunner

from node.cli import app
from node.faults import KNOWN_FAULTS
from node.status import STATUSES, receiving_status
from storage.database import open_database, reading
from storage.exams import list_exams
from storage.states import ExamState
from tests.chain import Chain, FakeReader, a_chain
from tests.databases import SQLiteDatabases
from tests.doors import ORIGIN
from tests.odd_files import CLASSICS, OddFile, classic, odd_file

SEED = int(os.environ.get("MAMMONODE_FUZZ_SEED", "1"))
R9 = {0xA900, 0x0117, 0xC000}
"""A700H is for the node's own troubles."""
FORESEEN = tuple(kind for kind, _ in STATUSES)
SECONDS = 20
TEXTS = [name for name in CLASSICS if "NUL" in name or "text" in name or "surrogates" in name or "60,000" in name]
ANSWERED = [
    "a NUL within the name",
    "a text as a sequence",
    "no rows",
    "half of the pixels",
    "a spacing below nothing",
]

# pydicom tells of every odd value that it can still read.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


@pytest.fixture
def sqlite(sqlite_databases: SQLiteDatabases) -> Iterator[Engine]:
    opened = open_database(sqlite_databases.fresh())
    yield opened
    opened.dispose()


@pytest.fixture
def chain(tmp_path: Path, sqlite: Engine) -> Chain:
    return a_chain(tmp_path, sqlite)


def receive(chain: Chain, odd: OddFile) -> int:
    """Let a file come in and return its status; anything that rule R9 does not know fails."""
    path = chain.room.store.incoming / "odd.dcm"
    path.write_bytes(odd.content)
    began = time.process_time()
    status, told = 0, ""
    try:
        chain.room.intake.receive(path, None, ORIGIN)
    except FORESEEN as error:
        status, told = receiving_status(error), repr(error)
    assert status in {0, *R9}, f"{odd.name}: {told}"
    assert time.process_time() - began < SECONDS, odd.name
    assert not path.exists(), odd.name
    return status


def answer_all(chain: Chain) -> None:
    """Close and answer every exam, as time goes by."""
    chain.clock.forward(timedelta(hours=3))
    while chain.exam_clock().tick():
        pass
    worker = chain.worker()
    for _ in range(4):  # a job is tried three times, then answered without reading
        began = time.process_time()
        while worker.work_once():
            assert time.process_time() - began < SECONDS
            began = time.process_time()
        chain.clock.forward(timedelta(hours=1))
    with reading(chain.room.engine) as connection:
        exams = list_exams(connection, 10_000)
    unanswered = [exam.uid for exam in exams if exam.state is not ExamState.ANSWERED or not exam.status]
    assert unanswered == [], [job.error for job in chain.queue.list_jobs(10_000) if job.error]


def receive_all(chain: Chain, files: Iterable[OddFile]) -> int:
    """Let files come in and return how many were kept; no other file may stay, and none outside the store."""
    with capture_logs() as lines:
        statuses = [receive(chain, odd) for odd in files]
    kept, _, aside = chain.room.rows()
    assert len(chain.room.files()) == kept + aside
    assert [line["event"] for line in lines].count("instance refused") == sum(status != 0 for status in statuses)
    assert not any("exc_info" in line for line in lines)
    return statuses.count(0)


def test_the_classics_are_stored_or_refused(chain: Chain) -> None:
    assert receive_all(chain, map(classic, CLASSICS)) > 20


def test_files_with_changed_bytes_are_stored_or_refused(chain: Chain) -> None:
    assert receive_all(chain, (odd_file(SEED, number) for number in range(100))) > 20


@pytest.mark.parametrize("name", ["a sequence that does not end", "a bomb of 300 MB", "a sequence 10,000 deep"])
def test_what_cannot_be_read_is_the_senders_fault_and_not_the_disks(chain: Chain, name: str) -> None:
    assert receive(chain, classic(name)) == 0xC000


def test_odd_texts_fit_into_both_databases(tmp_path: Path, engine: Engine) -> None:
    receive_all(a_chain(tmp_path, engine), map(classic, TEXTS))


def test_exams_of_hostile_images_are_answered(chain: Chain) -> None:
    assert receive_all(chain, map(classic, ANSWERED)) == len(ANSWERED)
    answer_all(chain)


@pytest.mark.parametrize(
    ("seed", "number"),
    [(1, 66), (1, 302), (1, 313), (1, 562), (1, 595), (3, 285), (8, 240), (10, 291), (10, 301)],
    ids=[
        *("no size", "a spacing with a NUL", "spacings as text", "class as text", "many rows", "no VR"),
        *("an implant without VR", "a spacing without VR", "a LUT shape without VR"),
    ],
)
def test_an_image_that_was_answered_with_nothing_once_is_answered(chain: Chain, seed: int, number: int) -> None:
    receive_all(chain, [odd_file(seed, number)])
    answer_all(chain)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_hostile_images_are_answered(chain: Chain) -> None:
    receive_all(chain, map(classic, CLASSICS))
    receive_all(chain, (odd_file(SEED, number) for number in range(600)))
    answer_all(chain)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICS)
def test_the_command_line_answers_or_says_what_is_wrong(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ai.readers.registry.load_reader", lambda *_: FakeReader())
    path = tmp_path / "odd.dcm"
    path.write_bytes(classic(name).content)
    result = CliRunner().invoke(app, ["read", str(path), "-o", str(tmp_path / "out")])
    assert result.exception is None or isinstance(result.exception, KNOWN_FAULTS), repr(result.exception)
