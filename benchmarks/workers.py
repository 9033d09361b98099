"""How workers share a queue: exams a second with 1 to 8 of them, against so many times one.

Run: python benchmarks/workers.py [--database URL] [--seconds S] [--exams N] [--workers 1 2 4 8]
The workers are processes with the node's own worker, whose reader sleeps: what is measured is claiming, leases, decoding
small images, encoding and the outbox, not a network. Without --database each run has a SQLite file of its own; give it an
empty PostgreSQL database. Every exam must be read once, by whichever worker.
"""

import argparse
import multiprocessing
import tempfile
import time
from datetime import timedelta
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select

from ai.exam import Exam, Laterality
from ai.findings import BreastScore, ExamFindings, ImageFindings, ModelIdentity
from config.policy import CompletionPolicy
from config.settings import Settings, Storage
from node.clock import ExamClock
from node.intake import Intake, Origin, utc_now
from node.logs import configure
from node.parts import open_parts
from node.phantom import phantom_exam
from node.results.encode import to_bytes
from node.worker import Worker
from storage.database import reading
from storage.tables import jobs

if TYPE_CHECKING:
    from multiprocessing.sharedctypes import SynchronizedArray

AT_ONCE: Final = CompletionPolicy(timedelta(0), timedelta(0), timedelta(0))
MODEL: Final = ModelIdentity("sleeps", "1", "0" * 64)


class SleepingReader:
    """Finds nothing, after a while.

    Parameters
    ----------
    seconds
        How long an exam takes.
    """

    model = MODEL
    device = "none"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def read(self, exam: Exam) -> ExamFindings:
        """Sleep, and answer that there is no mass."""
        time.sleep(self._seconds)
        images = tuple(ImageFindings(i.uid, i.view, i.shape, (), 0, 0.0) for i in exam.images)
        sides = {image.view.laterality for image in images}
        return ExamFindings(MODEL, images, tuple(BreastScore(side, 0) for side in Laterality if side in sides), 0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="", help="URL of an empty PostgreSQL database")
    parser.add_argument("--seconds", type=float, default=2.0, help="what a reading takes")
    parser.add_argument("--exams", type=int, default=6, help="for each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    configure("text", "warning")
    alone = 0.0
    print(f"{'workers':>7} {'exams':>6} {'exams/s':>8} {'of linear':>9} {'read by each':>14} {'read twice':>10}")
    for workers in options.workers:
        with tempfile.TemporaryDirectory() as folder:
            settings = _settings(Path(folder), options.database)
            exams = options.exams * workers
            prepare(settings, exams + workers)
            seconds, shares, twice = run(settings, workers, exams, options.seconds)
        rate = exams / seconds
        alone = alone or rate / workers
        print(
            f"{workers:7} {exams:6} {rate:8.2f} {rate / workers / alone:9.2f} "
            f"{f'{min(shares)} to {max(shares)}':>14} {twice:10}"
        )


def prepare(settings: Settings, exams: int) -> None:
    """Receive small exams and queue them."""
    parts = open_parts(settings)
    intake = Intake(parts.store, parts.engine, settings.storage.watermark)
    for number in range(exams):
        exam = phantom_exam(number, patient_id=f"P{number}-{time.time_ns()}", small=True)
        for image in exam.images:
            temp = parts.store.incoming / str(image.SOPInstanceUID)
            temp.write_bytes(to_bytes(image))
            intake.receive(temp, None, Origin("MODALITY", "MAMMONODE", "127.0.0.1", "benchmark"))
    ExamClock(parts.engine, AT_ONCE, MODEL.digest, utc_now).tick()
    parts.engine.dispose()


def run(settings: Settings, workers: int, exams: int, seconds: float) -> tuple[float, list[int], int]:
    """Let workers read everything; return the seconds, how many each has read, and how many were read twice."""
    spawn = multiprocessing.get_context("spawn")
    ready, stop, counts = spawn.Barrier(workers + 1), spawn.Event(), spawn.Array("i", workers)
    started = [
        spawn.Process(target=work, args=(settings.storage, number, seconds, ready, stop, counts))
        for number in range(workers)
    ]
    for process in started:
        process.start()
    parts = open_parts(settings)
    ready.wait()
    begin = time.perf_counter()
    while sum(counts) < exams:
        time.sleep(0.02)
    taken = time.perf_counter() - begin
    stop.set()
    for process in started:
        process.join()
    with reading(parts.engine) as connection:
        twice = connection.execute(select(func.count()).where(jobs.c.attempts > 1)).scalar_one()
    parts.engine.dispose()
    return taken, list(counts), int(twice)


def work(
    storage: Storage, number: int, seconds: float, ready: Barrier, stop: Event, counts: "SynchronizedArray[int]"
) -> None:
    """Be a worker: read one exam to be warm, wait for the others, and count what is read from then on."""
    configure("text", "warning")
    parts = open_parts(Settings(storage=storage))
    worker = Worker(
        *(parts.engine, parts.store, parts.queue, SleepingReader(seconds), ()),
        settings_digest="",
        owner=f"worker {number}",
        heartbeat=15,
        time_limit=900,
        on_hang=lambda: None,
        clock=utc_now,
    )
    worker.work_once()
    ready.wait()
    while not stop.is_set():
        if worker.work_once():
            counts[number] += 1
        else:
            time.sleep(0.05)


def _settings(folder: Path, database: str) -> Settings:
    return Settings(
        storage=Storage(folder=folder, database=database, max_used_percent=100, min_free_gb=0)  # type: ignore[arg-type]  # a secret
    )


if __name__ == "__main__":
    main()
