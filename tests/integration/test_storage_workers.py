"""Many workers on one queue, as threads and as processes, on both databases."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier, Event

from sqlalchemy import Engine

from storage.database import open_database
from storage.jobs import JobQueue
from storage.outbox import Outbox
from storage.states import JobState
from tests.records import LEASE, NOON, POLICY, a_closed_exam, a_result

JOBS = 24
WORKERS = 4


def work(engine: Engine, owner: str, wait: Callable[[], object]) -> list[int]:
    """Claim and finish jobs until there are none, and return those that were claimed."""
    queue = JobQueue(engine, POLICY, LEASE)
    claimed = []
    wait()
    while (job := queue.claim(owner, NOON)) is not None:
        claimed.append(job.id)
        result = a_result(f"2.25.{job.id}")
        queue.finish(
            job, owner, answer="findings", results=[result], destinations={result.uid: ["pacs"]}, timings={}, now=NOON
        )
    return claimed


def fill(engine: Engine) -> list[int]:
    return [a_closed_exam(engine, f"1.{number}.1", study=f"1.{number}")[1] for number in range(1, JOBS + 1)]


def url_of(engine: Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def test_threads_never_claim_one_job_twice(engine: Engine) -> None:
    jobs = fill(engine)
    together = threading.Barrier(WORKERS)
    with ThreadPoolExecutor(WORKERS) as threads:
        shares = list(threads.map(lambda n: work(engine, f"thread {n}", together.wait), range(WORKERS)))
    assert sorted(job for share in shares for job in share) == jobs
    assert len(Outbox(engine, POLICY).due("pacs", NOON, 99)) == JOBS


def work_in_process(url: str, together: Barrier, shares: Connection) -> None:
    engine = open_database(url)
    shares.send(work(engine, f"process {os.getpid()}", together.wait))
    engine.dispose()


def test_processes_never_claim_one_job_twice(engine: Engine) -> None:
    jobs = fill(engine)
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(WORKERS)
    pipes = [spawn.Pipe(duplex=False) for _ in range(WORKERS)]
    processes = [spawn.Process(target=work_in_process, args=(url_of(engine), together, sender)) for _, sender in pipes]
    for process in processes:
        process.start()
    claimed = [job for receiver, _ in pipes for job in receiver.recv()]
    for process in processes:
        process.join()
    assert sorted(claimed) == jobs
    assert JobQueue(engine, POLICY, LEASE).counts()[JobState.DONE] == JOBS


def claim_and_hang(url: str, claimed: Event) -> None:
    assert JobQueue(open_database(url), POLICY, timedelta(seconds=1)).claim("victim", datetime.now(UTC))
    claimed.set()
    signal.pause()


def test_the_job_of_a_killed_worker_is_taken_over_when_its_lease_ends(engine: Engine) -> None:
    _, number = a_closed_exam(engine)
    spawn = multiprocessing.get_context("spawn")
    claimed = spawn.Event()
    victim = spawn.Process(target=claim_and_hang, args=(url_of(engine), claimed))
    victim.start()
    assert claimed.wait(60)
    victim.kill()
    victim.join()
    queue = JobQueue(engine, POLICY, LEASE)
    [abandoned] = queue.list_jobs(9)
    assert abandoned.lease_until is not None
    assert queue.claim("heir", abandoned.lease_until - timedelta(microseconds=1)) is None
    heir = queue.claim("heir", abandoned.lease_until)
    assert heir is not None
    assert (heir.id, heir.attempts) == (number, 2)
