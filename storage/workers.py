"""Which workers are at work, and how their GPUs do."""

from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select, update

from storage.tables import workers

GONE_AFTER = timedelta(days=1)


@dataclass(frozen=True)
class Gpu:
    """A GPU at a moment.

    Attributes
    ----------
    name
        As its driver calls it; '' when the worker has none.
    bytes_used, bytes
        Of its memory, by whomever; None when that is not known.
    utilisation
        0 to 1, over the last second; None when that is not known.
    """

    name: str = ""
    bytes_used: int | None = None
    bytes: int | None = None
    utilisation: float | None = None


@dataclass(frozen=True)
class WorkerRecord:
    """A worker.

    Attributes
    ----------
    owner
        Its name in leases.
    model, model_digest, device
        What it reads with, and where.
    started_at, seen_at
        Since when, and when it last gave a sign of life.
    gpu
        How its GPU does.
    """

    owner: str
    model: str
    model_digest: str
    device: str
    started_at: datetime
    seen_at: datetime
    gpu: Gpu = field(default_factory=Gpu)


def note_worker(connection: Connection, worker: WorkerRecord) -> None:
    """Note that a worker is at work, and forget those that were not seen for a day."""
    row = _row(worker)
    if not connection.execute(update(workers).where(workers.c.owner == worker.owner).values(row)).rowcount:
        connection.execute(insert(workers).values(row))
    connection.execute(delete(workers).where(workers.c.seen_at < worker.seen_at - GONE_AFTER))


def forget_worker(connection: Connection, owner: str) -> None:
    """Note that a worker has ended."""
    connection.execute(delete(workers).where(workers.c.owner == owner))


def workers_seen(connection: Connection, now: datetime, within: timedelta) -> list[WorkerRecord]:
    """Return the workers that gave a sign of life within a time.

    One from a time to come was given before the clock was put back.
    """
    lately = workers.c.seen_at.between(now - within, now + within)
    query = select(workers).where(lately).order_by(workers.c.owner)
    return [
        WorkerRecord(
            *(row.owner, row.model, row.model_digest, row.device, row.started_at, row.seen_at),
            Gpu(row.gpu, row.gpu_bytes_used, row.gpu_bytes, row.gpu_utilisation),
        )
        for row in connection.execute(query)
    ]


def _row(worker: WorkerRecord) -> dict[str, object]:
    row = asdict(worker)
    gpu = worker.gpu
    return row | {
        "gpu": gpu.name,
        "gpu_bytes_used": gpu.bytes_used,
        "gpu_bytes": gpu.bytes,
        "gpu_utilisation": gpu.utilisation,
    }
