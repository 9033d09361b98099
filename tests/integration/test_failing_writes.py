"""What breaks beneath the node: disk, database, memory and clock; every write is made to fail once, in its turn."""

import errno
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest
from pydicom import Dataset
from sqlalchemy import Engine
from sqlalchemy.engine.default import DefaultDialect

import storage.database
import storage.files
from ai.exam import STANDARD_VIEWS, ViewImage
from ai.findings import ImageFindings
from ai.models import open_model
from config.settings import Dicom
from node.scp import StorageSCP
from node.scu import Item, Sender
from storage.database import open_database, reading
from storage.errors import DatabaseUnavailable
from storage.index import find_instance
from storage.jobs import JobQueue
from storage.states import ExamState, JobState
from tests.chain import PACS, QUIET, REPORTS_ONLY, a_chain, summary_of, text_of
from tests.databases import SQLiteDatabases
from tests.doors import a_destination, a_room, an_image, an_open_door, phantom_images
from tests.records import LEASE, POLICY, SECOND

STRIDE = 1 if os.environ.get("MAMMONODE_TEST_PROFILE") == "long" else 5
"""Each attempt to answer takes a while: in short runs every fifth write fails."""
MODALITY = Dicom(ae_title="MODALITY")


@pytest.fixture
def sqlite(sqlite_databases: SQLiteDatabases) -> Iterator[Engine]:
    opened = open_database(sqlite_databases.fresh())
    yield opened
    opened.dispose()


class Writes:
    """All that is written to the disk, in order; one of them fails as on a full disk.

    Attributes
    ----------
    done
        What was done, by name.
    full_at
        Which of them fails, counted from 0; None when all succeed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.full_at: int | None = None
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        places: list[tuple[Any, str, str, Exception]] = [
            (storage.files, "_flush", "fsync", full),
            (os, "link", "link", full),
            (os, "mkdir", "mkdir", full),
            (Path, "replace", "rename", full),
            (tempfile, "mkstemp", "create", full),
            (DefaultDialect, "do_commit", "commit", sqlite3.OperationalError("database or disk is full")),
        ]
        for owner, attribute, name, error in places:
            monkeypatch.setattr(owner, attribute, self._recorded(getattr(owner, attribute), name, error))

    def _recorded(self, original: Callable[..., Any], name: str, error: Exception) -> Callable[..., Any]:
        def write(*arguments: Any, **named: Any) -> Any:
            if name == "mkdir" and Path(arguments[0]).is_dir():
                return original(*arguments, **named)  # which changes nothing
            if len(self.done) == self.full_at:
                self.done.append(f"{name} failed")
                raise error
            self.done.append(name + (f" {_area(arguments[0])}" if name == "fsync" else ""))
            return original(*arguments, **named)

        return write

    def begin(self, full_at: int | None = None) -> None:
        """Forget what was done; from now on this one fails."""
        self.done, self.full_at = [], full_at

    @property
    def failed(self) -> bool:
        """Whether one has failed since."""
        return self.full_at is not None and len(self.done) > self.full_at


def _area(path: Path) -> str:
    return "file" if path.is_file() else "folder"


def send(door: StorageSCP, folder: Path, image: Dataset) -> int | None:
    file = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(file, enforce_file_format=True)
    [response] = Sender(MODALITY).send(a_destination(door.port, ae_title="MAMMONODE"), [Item.of(file)])
    return response.status


def test_a_disk_that_is_full_at_any_step_of_receiving_is_told_and_the_next_attempt_succeeds(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, image = a_room(tmp_path, sqlite), an_image()
    with an_open_door(room) as door:
        writes = Writes(monkeypatch)
        for step in range(100):
            image.StudyInstanceUID = f"1.2.3.{step}"  # whose folders no attempt before has made
            writes.begin(full_at=step)
            status = send(door, tmp_path, image)
            if not writes.failed:
                break
            assert status == 0xA700, writes.done
            writes.begin()
            assert list(room.store.incoming.iterdir()) == []
            assert room.rows() == (0, 0, 0)
        writes.begin()
    assert step >= 8
    assert status == 0x0000
    assert room.rows() == (1, 1, 0)
    assert len([path for path in room.files() if f"/1.2.3.{step}/" in path]) == 1


def test_what_is_acknowledged_was_written_in_this_order(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, image = a_room(tmp_path, sqlite), an_image()
    writes = Writes(monkeypatch)
    send_rsp = StorageSCP._store  # noqa: SLF001 (the moment at which the response is given out of our hands)

    def answered(self: StorageSCP, event: Any) -> Dataset:
        answer = send_rsp(self, event)
        writes.done.append("response")
        return answer

    monkeypatch.setattr(StorageSCP, "_store", answered)
    with an_open_door(room) as door:
        writes.begin()
        assert send(door, tmp_path, image) == 0x0000
    order = [step for step in writes.done if step != "mkdir"]
    # The folders above the series' lead to it, which are new.
    assert order[: order.index("response") + 1] == [
        "fsync file",
        "fsync folder",
        "fsync folder",
        "link",
        "fsync folder",
        "commit",
        "response",
    ]


def test_a_disk_that_is_full_at_any_step_of_answering_costs_another_attempt_and_nothing_is_sent_twice(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = a_chain(tmp_path, sqlite)
    chain.queue = JobQueue(sqlite, POLICY.__class__(0, SECOND, SECOND, timedelta(days=1)), LEASE)
    chain.close([an_image()])
    worker = chain.worker(destinations=[REPORTS_ONLY])
    monkeypatch.setattr("node.worker.draw_previews", lambda *_: ())  # no answer waits for pictures, see below
    writes, causes = Writes(monkeypatch), []
    for step in range(0, 200, STRIDE):
        writes.begin(full_at=step)
        with suppress(DatabaseUnavailable):  # told by whoever claims; the service logs it and goes on
            worker.work_once()
        failed, done = writes.failed, writes.done
        writes.begin()
        if not failed:
            break
        assert chain.job.state is JobState.QUEUED, done
        assert chain.outbox.of_exam(chain.exam.id) == []
        causes.append(chain.job.error or "")
        chain.clock.forward(2 * SECOND)
    assert step >= 20
    assert any("No space left on device" in cause for cause in causes)
    assert chain.exam.state is ExamState.ANSWERED
    assert [delivery.kind for delivery in chain.outbox.of_exam(chain.exam.id)] == ["SR"]
    # Whatever was left by an attempt that failed was taken up by the next: its bytes are the same (rule R1).
    results = chain.room.store.root / "results"
    written = {str(path.relative_to(chain.room.store.root)) for path in results.rglob("*") if path.is_file()}
    assert written == {issued.record.path for issued in chain.issued()}
    assert list((tmp_path / "store" / "outgoing").iterdir()) == []


def test_a_disk_that_has_no_room_for_pictures_keeps_no_answer_back(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = a_chain(tmp_path, sqlite)
    chain.close([an_image()])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("node.worker.write_previews", full)
    chain.worker(destinations=[REPORTS_ONLY]).work_once()
    assert chain.job.state is JobState.DONE
    assert [delivery.kind for delivery in chain.outbox.of_exam(chain.exam.id)] == ["SR"]


def test_a_locked_database_is_told_as_out_of_resources_and_the_next_attempt_succeeds(
    tmp_path: Path, sqlite_databases: SQLiteDatabases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage.database, "_BUSY_SECONDS", 0.2)
    url = sqlite_databases.fresh()
    engine = open_database(url)
    room, image = a_room(tmp_path, engine), an_image()
    with an_open_door(room) as door, locked(Path(url.removeprefix("sqlite:///"))) as release:
        assert send(door, tmp_path, image) == 0xA700
        assert room.files() == set()
        release()
        assert send(door, tmp_path, image) == 0x0000
    assert room.rows() == (1, 1, 0)
    engine.dispose()


@contextmanager
def locked(database: Path) -> Iterator[Callable[[], object]]:
    """Hold the only place for a writer, as a backup or another program may."""
    holder = sqlite3.connect(database, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield lambda: holder.execute("ROLLBACK")
    finally:
        holder.close()


def no_memory(*_: object) -> NoReturn:
    raise MemoryError


def test_a_reading_without_memory_is_answered_with_failed_and_the_worker_goes_on(
    tmp_path: Path, sqlite: Engine
) -> None:
    chain = a_chain(tmp_path, sqlite)
    chain.close([an_image()])
    chain.reader.meanwhile = no_memory
    worker = chain.worker()
    while worker.work_once():
        chain.clock.forward(POLICY.slow)
    assert (chain.exam.state, chain.exam.status) == (ExamState.FAILED, "failed")
    assert summary_of(chain.report) == "111245"
    assert "The reading failed 3 times." in text_of(chain.report)
    assert "MemoryError" in (chain.job.error or "")
    chain.reader.meanwhile = lambda _: None
    chain.queue.retry(chain.job.id, chain.clock())
    assert worker.work_once()
    assert chain.exam.state is ExamState.ANSWERED


def test_an_image_that_cannot_be_decoded_for_want_of_memory_fails_the_attempt_and_not_the_worker(
    tmp_path: Path, sqlite: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = a_chain(tmp_path, sqlite)
    chain.close([an_image()])
    with monkeypatch.context() as patch:
        patch.setattr("node.analysis.view_image", no_memory)
        assert chain.worker().work_once()
    assert chain.job.state is JobState.QUEUED
    chain.clock.forward(POLICY.slow)
    assert chain.worker().work_once()
    assert chain.exam.state is ExamState.ANSWERED


def test_a_gpu_without_memory_leaves_the_exam_to_the_cpu_and_the_answer_says_so(tmp_path: Path, sqlite: Engine) -> None:
    import torch

    from ai.readers.exams import ViewReader
    from ai.readers.memory import Economy, Memory

    class Starved(ViewReader):
        def _read_image(self, image: ViewImage) -> ImageFindings:
            if self._memory.economy is not Economy.CPU:
                raise torch.OutOfMemoryError
            return chain.reader.found(image)

    chain = a_chain(tmp_path, sqlite)
    chain.close(phantom_images())
    assert chain.worker(reader=Starved(chain.reader.model, Memory(torch.device("meta")))).work_once()
    assert chain.exam.status == "findings"
    words = "memory did not suffice at first: read one picture at a time, on the CPU"
    assert [line for line in text_of(chain.report).splitlines() if words in line] == [
        f"{view}: {words}" for view in STANDARD_VIEWS
    ]
    assert [image["warnings"] for image in chain.facts()[0]["images"]] == [[words]] * 4


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_a_model_whose_folder_vanishes_goes_on_reading(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader
    from node.analysis import Source, analyse

    folder = tmp_path / "model"
    shutil.copytree(open_model("mass-fpn-boxes").folder, folder)
    reader = load_reader(open_model(str(folder)), "cpu", 1)
    shutil.rmtree(folder)
    files = []
    for image, view in zip(phantom_images(), STANDARD_VIEWS, strict=True):
        path = tmp_path / f"{image.SOPInstanceUID}.dcm"
        image.save_as(path, enforce_file_format=True)
        files.append(Source(str(image.SOPInstanceUID), path, view))
    found = analyse(reader, files[:1])
    assert found.findings
    assert found.not_read == {}


@pytest.mark.parametrize("jump", [timedelta(minutes=-2), timedelta(days=-400)])
def test_a_clock_that_jumps_back_loses_repeats_and_holds_up_nothing(
    tmp_path: Path, sqlite: Engine, jump: timedelta
) -> None:
    chain = a_chain(tmp_path, sqlite)
    chain.receive(phantom_images())
    clock, worker = chain.exam_clock(), chain.worker()
    chain.clock.forward(jump)
    assert clock.tick() == 0
    chain.clock.forward(QUIET.complete_quiet)
    assert clock.tick() == 1
    chain.clock.forward(jump)
    chain.reader.meanwhile = no_memory
    assert worker.work_once()
    chain.clock.forward(jump)
    chain.reader.meanwhile = lambda _: None
    chain.clock.forward(POLICY.slow)
    assert worker.work_once()
    assert chain.exam.state is ExamState.ANSWERED
    assert len({delivery.result_uid for delivery in chain.outbox.of_exam(chain.exam.id)}) == 6
    chain.clock.forward(jump)
    assert len(chain.outbox.due(PACS.name, chain.clock(), 9)) == 5
    with reading(sqlite) as connection:
        assert all(find_instance(connection, image.SOPInstanceUID) for image in phantom_images())
