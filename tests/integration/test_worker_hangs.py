"""A reading that hangs ends its worker, and the job goes to the next one."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from config.policy import RetryPolicy
from storage.database import migrate, open_database, writing
from storage.exams import close, touch
from storage.index import add_instance
from storage.jobs import JobQueue
from storage.patients import PatientRecord
from storage.states import JobState, Plan
from tests.records import an_instance

HANGING_WORKER = """
import os, sys, threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from ai.findings import ModelIdentity
from config.policy import RetryPolicy
from node.worker import Worker
from storage.database import open_database
from storage.files import FolderStore
from storage.jobs import JobQueue

class Hanging(Worker):
    def _do(self, job):
        print("hangs", flush=True)
        threading.Event().wait()

class Reader:
    model = ModelIdentity("m", "1", "d")

engine = open_database(sys.argv[1])
policy = RetryPolicy(3, timedelta(seconds=1), timedelta(seconds=1), timedelta(days=1), attempts=3)
worker = Hanging(engine, FolderStore(Path(sys.argv[2])), JobQueue(engine, policy, timedelta(seconds=1)), Reader(), (),
    settings_digest="", owner="hanging", heartbeat=0.2, time_limit=0.6, on_hang=lambda: os._exit(os.EX_SOFTWARE),
    clock=lambda: datetime.now(UTC))
worker.work_once()
"""


def a_queued_job(folder: Path) -> str:
    """Return the URL of a database with one job that waits."""
    url = f"sqlite:///{folder / 'index.sqlite'}"
    engine = open_database(url)
    migrate(engine)
    now = datetime.now(UTC)
    with writing(engine) as connection:
        record = an_instance()
        add_instance(connection, record)
        patient = PatientRecord(record.patient.issuer, record.patient.patient_id)
        exam = touch(connection, patient, record.study.uid, now)
        close(connection, exam, chosen={}, rejected={}, plan=Plan.READ, reasons=(), model_digest="d", now=now)
    return url


def the_queue(url: str) -> JobQueue:
    policy = RetryPolicy(3, timedelta(seconds=1), timedelta(seconds=1), timedelta(days=1), attempts=3)
    return JobQueue(open_database(url), policy, timedelta(seconds=1))


@pytest.mark.parametrize("more", ["", "at_work=lambda _: threading.Event().wait(),"])
def test_a_hanging_reading_ends_its_process_and_another_worker_gets_the_job(tmp_path: Path, more: str) -> None:
    """Also where what is told of it every heartbeat hangs too, as the driver of a GPU that is gone may."""
    url = a_queued_job(tmp_path)
    program = HANGING_WORKER.replace("on_hang=", f"{more} on_hang=")
    done = subprocess.run(
        [sys.executable, "-c", program, url, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert "hangs" in done.stdout
    assert done.returncode == 70
    again = the_queue(url).claim("next", datetime.now(UTC) + timedelta(seconds=2))
    assert again is not None
    assert (again.state, again.attempts) == (JobState.RUNNING, 2)


def test_a_worker_that_is_to_stop_gives_back_the_job_that_takes_too_long(tmp_path: Path) -> None:
    url = a_queued_job(tmp_path)
    program = HANGING_WORKER.replace("time_limit=0.6", "time_limit=60, drain=0.5, on_drained=lambda: os._exit(0)")
    program = program.replace("threading.Event().wait()", "self._stopping = lambda: True; threading.Event().wait()")
    done = subprocess.run(
        [sys.executable, "-c", program, url, str(tmp_path)], capture_output=True, text=True, timeout=250, check=False
    )
    told = done.stdout + done.stderr
    assert (done.returncode, "job given back" in told) == (0, True), told
    again = the_queue(url).claim("next", datetime.now(UTC))
    assert again is not None
    assert (again.state, again.attempts) == (JobState.RUNNING, 1)
