"""Whether the node can do its work now: database, disk, a worker with the model, destinations, the last self-test."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from node.echoes import Echoes
from node.metrics import RECENTLY
from node.parts import Parts
from node.patience import Patience
from node.progress import Progress
from storage import selftests
from storage.database import reading, schema_is_current, takes_writes
from storage.errors import StorageError
from storage.workers import WorkerRecord, workers_seen


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    name
        What.
    ok
        Whether it is as it should be.
    needed
        Whether the node is not ready without it. A destination that is down is told, and no reason to send no images.
    detail
        In words, without addresses.
    """

    name: str
    ok: bool
    needed: bool
    detail: str


class Readiness:
    """Looks whenever it is asked.

    Parameters
    ----------
    parts
        What to look at, with the settings in force.
    model_digest
        The model that a worker must have loaded.
    progress
        The parts that must get on.
    echoes
        What destinations answered last.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        parts: Callable[[], Parts],
        model_digest: str,
        progress: Progress,
        echoes: Echoes,
        clock: Callable[[], datetime],
    ) -> None:
        self._parts = parts
        self._digest = model_digest
        self._progress = progress
        self._echoes = echoes
        self._clock = clock
        self._patience = Patience()

    def checks(self) -> list[Check]:
        """Return all checks."""
        return list(self._checks())

    def _checks(self) -> Iterator[Check]:
        stuck = self._progress.stuck()
        yield Check("parts", not stuck, needed=True, detail="; ".join(stuck) or "all get on")
        yield from self._stored()
        yield self._disk()
        if self._parts().store.far:
            yield self._bucket()
        for name, echo in self._echoes.last().items():
            when = f"{echo.at:%Y-%m-%dT%H:%M:%SZ}"
            answered = echo.result.answered
            yield Check(
                f"destination {name}", answered, needed=False, detail=f"{'answered' if answered else 'silent'} {when}"
            )

    def _stored(self) -> Iterator[Check]:
        try:
            workers, test, current, writes = self._patience.ask(self._looked_up)
        except StorageError:
            yield Check("database", ok=False, needed=True, detail="does not answer")
            return
        answer = "answers" if writes else "takes no writes"
        yield Check("database", current and writes, needed=True, detail=answer if current else "has another schema")
        having = [worker for worker in workers if worker.model_digest == self._digest]
        told = f"{len(having)} with the model, of {len(workers)} at work"
        yield Check("workers", bool(having), needed=True, detail=told)
        if test:
            detail = f"{test.started_at:%Y-%m-%dT%H:%M:%SZ} {test.phase or 'passed'}"
            yield Check("selftest", test.passed, needed=False, detail=detail)

    def _looked_up(self) -> tuple[list[WorkerRecord], selftests.SelfTest | None, bool, bool]:
        engine, now = self._parts().engine, self._clock()
        with reading(engine) as connection:
            workers, test = workers_seen(connection, now, RECENTLY), selftests.last(connection)
        return workers, test, schema_is_current(engine), takes_writes(engine)

    def _bucket(self) -> Check:
        try:
            self._parts().store.reach()
        except StorageError:
            return Check("bucket", ok=False, needed=True, detail="does not answer as it should")
        return Check("bucket", ok=True, needed=True, detail="answers")

    def _disk(self) -> Check:
        parts = self._parts()
        try:
            parts.store.require_space(parts.settings.storage.watermark)
        except (StorageError, OSError):
            return Check("disk", ok=False, needed=True, detail="fuller than its watermark allows, or gone")
        return Check("disk", ok=True, needed=True, detail="has room")
