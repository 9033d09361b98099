"""Removes files after their time: never before their exam has ended and its results are where they belong."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import Engine

from ai.words import counted
from config.policy import RetentionPolicy
from config.settings import Destination, Proof
from node.audit.notes import NOTHING, Notes
from node.identity import TEST_ISSUER
from node.results.answer import AnswerStatus
from node.telemetry import logger
from storage.database import reading, writing
from storage.exams import get_exam
from storage.files import InstanceStore
from storage.removals import Due, left_over, not_unlinked, note_unlinked, removable_exams, remove_files, remove_strays

log = logger("retention")

BATCH = 20
"""Exams that are looked for at a time."""


def what_is_due(destinations: Iterable[Destination], before: datetime, *, results_too: bool, unproven: bool) -> Due:
    """Return which exams may lose files on a node with these destinations."""
    destinations = tuple(destinations)
    negatives = [destination.mix.negatives for destination in destinations if not destination.test]
    silent = bool(negatives) and not any(negatives)
    return Due(
        before,
        results_too,
        destinations=bool(negatives),
        unproven=unproven,
        kept_back=frozenset({AnswerStatus.NO_FINDINGS} if silent else ()),
        not_asked=frozenset(each.name for each in destinations if each.proof is Proof.NONE),
    )


class Retention:
    """Removes sources and results whose time has come.

    Parameters
    ----------
    engine, store
        Where files are known, and lie.
    policy
        When.
    destinations
        Whom answers go to: without one for patients' no result is ever proven to be kept elsewhere.
    clock
        Returns the present time, aware.
    tests
        Age at which exams of self-tests are removed, sources and results; None: as all others.
    notes
        Is told what was removed.
    is_doubtful
        Tells whether the clock may be ahead: nothing is old then.
    """

    def __init__(
        self,
        engine: Engine,
        store: InstanceStore,
        policy: RetentionPolicy,
        clock: Callable[[], datetime],
        *,
        destinations: Iterable[Destination],
        tests: timedelta | None = None,
        notes: Notes = NOTHING,
        is_doubtful: Callable[[], bool] = lambda: False,
    ) -> None:
        self._notes = notes
        self._is_doubtful = is_doubtful
        self._engine = engine
        self._store = store
        self._policy = policy
        self._clock = clock
        self._destinations = tuple(destinations)
        self._tests = tests

    def tick(self) -> int:
        """Remove what is due, finish what a crash has left, and return the number of files that are gone now."""
        gone = self._unlink()
        if not self._is_doubtful():
            self._remove_old()
        gone += self._unlink()
        if self._policy.max_used_fraction is not None:
            gone += self._make_room(self._policy.max_used_fraction)
        return gone

    def _remove_old(self) -> None:
        policy, now = self._policy, self._clock()
        if policy.sources is not None:
            with writing(self._engine) as connection:
                strays = remove_strays(connection, now - policy.sources, now)
            if strays:
                log.info("files removed", exam=None, what="sources", files=len(strays), why=_older(policy.sources))
            due = self._due(policy.sources)
            for exam_id, exam in self._exams(due):
                self._remove(exam_id, exam, due, _older(policy.sources))
        self._remove_tests(now)
        if policy.results is not None:
            due = self._due(policy.results, results_too=True)
            for exam_id, exam in self._exams(due):
                self._remove(exam_id, exam, due, _older(policy.results))

    def _make_room(self, max_used_fraction: float) -> int:
        gone, due = 0, self._due(timedelta(0))
        for exam_id, exam in self._exams(due):
            if self._used() <= max_used_fraction:
                break
            marked = self._remove(exam_id, exam, due, "the disk is fuller than retention.watermark_percent")
            freed = self._unlink()
            gone += freed
            if marked and not freed:
                break  # or all exams would be marked while the disk stays as full
        return gone

    def _remove_tests(self, now: datetime) -> None:
        if self._tests is None:
            return
        for results_too in (False, True):
            due = Due(now - self._tests, results_too, destinations=True, unproven=True, issuer=TEST_ISSUER)
            for exam_id, exam in self._exams(due):
                self._remove(exam_id, exam, due, "a self-test")

    def _due(self, age: timedelta, *, results_too: bool = False) -> Due:
        return what_is_due(
            self._destinations, self._clock() - age, results_too=results_too, unproven=self._policy.unproven
        )

    def _exams(self, due: Due) -> Iterator[tuple[int, str]]:
        """Yield the exams that are due, each once, looking again whenever a batch is done."""
        tried: set[int] = set()
        while True:
            with reading(self._engine) as connection:
                found = removable_exams(connection, due, BATCH + len(tried))
            fresh = [each for each in found if each[0] not in tried]
            if not fresh:
                return
            tried |= {exam_id for exam_id, _ in fresh}
            yield from fresh

    def _remove(self, exam_id: int, exam: str, due: Due, why: str) -> int:
        # Listed before: to ask a bucket takes time, in which others wait for the transaction.
        lying = self._lying(exam_id) if due.results_too else []
        with writing(self._engine) as connection:
            left = left_over(connection, exam_id, lying) if lying else []
            paths = remove_files(connection, exam_id, due, self._clock(), left)
        what = "results" if due.results_too else "sources"
        if paths:
            level = log.warning if due.unproven and due.issuer is None else log.info
            self._notes.note("removed", exam=exam, what=what, why=why)
            unnamed = {"unindexed": len(left)} if left else {}
            level("files removed", exam=exam, what=what, files=len(paths), why=why, proven=not due.unproven, **unnamed)
        return len(paths)

    def _lying(self, exam_id: int) -> list[str]:
        with reading(self._engine) as connection:
            study = get_exam(connection, exam_id).study_uid
        return self._store.results_of(study)

    def _unlink(self) -> int:
        """Unlink what is marked as removed, and return how many files are gone; one that stays keeps no other."""
        with reading(self._engine) as connection:
            paths = not_unlinked(connection)
        stay: list[tuple[str, str | None]] = []
        for path in paths:
            try:
                self._store.remove(path)
            except PermissionError as error:
                stay.append((path, error.strerror))
                continue
            with writing(self._engine) as connection:
                note_unlinked(connection, path)
        if stay:
            path, cause = stay[0]
            log.error("files cannot be removed", number=len(stay), path=path, cause=cause)
        return len(paths) - len(stay)

    def _used(self) -> float:
        usage = self._store.usage()
        return 1 - usage.free / usage.total


def _older(age: timedelta) -> str:
    return f"older than {counted(age / timedelta(days=1), 'day')}"
