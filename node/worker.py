"""The worker: claims a job, reads the exam, encodes the answer and hands it to the outbox, its lease renewed meanwhile."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from pydicom import Dataset
from sqlalchemy import Engine
from structlog.contextvars import bound_contextvars

from ai.readers.base import Reader
from ai.words import counted
from config.mix import ObjectMix
from config.policy import ScorePolicy
from config.settings import Destination
from node.analysis import Analysis, Source, analyse, header_of
from node.answering import NO_SCORE_POLICY, answer_of
from node.exams import assemble, outcome
from node.faults import described
from node.headers import differing_identity
from node.judging import Rules
from node.material import Material, material_of
from node.obtaining import obtain
from node.previews import draw_previews, write_previews
from node.reply import Replies
from node.rereading import judged_again
from node.results.answer import Answer
from node.results.source import names_alone
from node.telemetry import logger
from node.views import kinds_of
from storage.database import installation_id, reading, require_schema, writing
from storage.errors import BucketUnavailable, LeaseLost, StorageError
from storage.files import InstanceStore
from storage.index import InstanceRecord
from storage.jobs import Job, JobQueue
from storage.previews import announce_previews
from storage.states import Plan

log = logger("worker")


class Worker:
    """Reads one exam after the other.

    Parameters
    ----------
    engine, store, queue
        Where exams come from and answers go.
    reader
        Reads.
    destinations
        Who gets which objects.
    settings_digest
        Digest of every setting that changes the objects' content (rule R1).
    owner
        Name of this worker in leases.
    heartbeat
        Seconds between renewals of the lease.
    time_limit
        Seconds after which a job is taken to hang.
    on_hang
        Called then, from another thread: must end the process, for nothing else stops a decoder or a GPU that hangs.
    clock
        Gives the aware time.
    scoring
        What the site makes of scores.
    one_breast_suffices
        The site's setting, see ``node.exams.assemble``.
    stopping
        Tells whether the process is to end.
    drain
        Seconds that the exam at hand gets from then on; afterwards its job is given back.
    on_drained
        Called then, from another thread: must end the process.
    at_work
        Told what goes on, every heartbeat.
    threads
        How many views are decoded at once.
    """

    def __init__(
        self,
        engine: Engine,
        store: InstanceStore,
        queue: JobQueue,
        reader: Reader,
        destinations: Sequence[Destination],
        *,
        settings_digest: str,
        owner: str,
        heartbeat: float,
        time_limit: float,
        on_hang: Callable[[], object],
        clock: Callable[[], datetime],
        scoring: ScorePolicy = NO_SCORE_POLICY,
        one_breast_suffices: bool = False,
        stopping: Callable[[], bool] = lambda: False,
        drain: float = 60,
        on_drained: Callable[[], object] = lambda: None,
        at_work: Callable[[str], object] = lambda _: None,
        threads: int = 1,
    ) -> None:
        self._engine = engine
        self._store = store
        self._queue = queue
        self._reader = reader
        self._destinations = tuple(destinations)
        self._settings_digest = settings_digest
        self._owner = owner
        self._heartbeat = heartbeat
        self._time_limit = time_limit
        self._on_hang = on_hang
        self._clock = clock
        self._scoring = scoring
        self._one_breast_suffices = one_breast_suffices
        self._stopping = stopping
        self._drain = drain
        self._on_drained = on_drained
        self._at_work = at_work
        self._threads = threads
        self._bereft = False
        self._since = clock()
        self._tried: set[int] = set()
        """Jobs of a former model that this worker has tried."""

    def work_once(self) -> bool:
        """Do one job; False when none is due.

        Raises
        ------
        BucketUnavailable
            When the store cannot be had; the job waits for it.
        SchemaUnknown
            When another version has the database by now: its jobs are its own workers' to do.
        """
        require_schema(self._engine)
        if self._bereft:
            self._store.reach()
            self._bereft = False
        job = self._queue.claim(self._owner, self._clock())
        if job is None:
            return False
        with bound_contextvars(**job.log_context()):
            try:
                with self._renewed(job):
                    self._do(job)
            except LeaseLost:
                log.warning(
                    "job lost", check="another worker took over after the lease ended; is this machine overloaded?"
                )
            except BucketUnavailable as error:
                self._without_bucket(job, error)
            except Exception as error:  # noqa: BLE001 (see below)
                # Whatever a reader, a decoder or a file does must not end the worker; the policy decides what follows.
                self._fail(job, error)
        return True

    def _do(self, job: Job) -> None:
        another = job.model_digest != self._reader.model.digest
        if another and self._is_of_a_former_model(job):
            if job.last_resorts > 1:
                # The first of these was a reading, as below: it counts among those that failed.
                job = replace(job, last_resorts=job.last_resorts - 1)
            elif job.id not in self._tried:
                if self._judged_again(job):
                    return
                self._tried.add(job.id)
                # Others may have used its attempts up: once this model tries, too, before the answer says that it failed.
                job = replace(job, last_resorts=0)
        log.info("job started", plan=job.plan, **({"last_resort": True} if job.exhausted else {}))
        begin = time.perf_counter()
        with reading(self._engine) as connection:
            material = material_of(connection, job, kinds_of(self._reader.model.accepts))
        reads = job.plan is Plan.READ and not job.exhausted
        last = self._queue.is_last(job, self._clock())
        sources = self._sources(material) if reads else ()
        analysis = analyse(self._reader, sources, last=last, threads=self._threads) if reads else Analysis()
        read = time.perf_counter()
        for uid, why in analysis.not_read.items():
            log.warning("image not read", instance=uid, why=why, check="the image, where it comes from")
        destinations = tuple(each for each in self._destinations if each.test == material.test)
        # Without a destination the results stay in the store, in the usual form.
        mixes = tuple(dict.fromkeys(destination.mix for destination in destinations)) or (ObjectMix(),)
        replies = Replies(self._store, installation_id(self._engine), self._settings_digest)
        reply = replies.reply(
            self._answer(job, material, analysis, last=last),
            mixes,
            former=material.former,
            again=material.again,
            pictures=analysis.pictures,
            distances=analysis.distances,
        )
        encoded = time.perf_counter()
        records = replies.keep(reply)
        if reads:
            self._show(job, reply.answer, analysis)
        timings = {
            **analysis.seconds,
            "encode": encoded - read,
            "write": time.perf_counter() - encoded,
            "total": time.perf_counter() - begin,
        }
        found = reply.answer.findings
        self._queue.finish(
            job,
            self._owner,
            answer=reply.answer.status,
            results=records,
            destinations=reply.addressed(destinations),
            timings={stage: round(seconds, 3) for stage, seconds in timings.items()},
            now=self._clock(),
            suspicion=found.score if found else None,
            model_digest=self._reader.model.digest,
            error=(job.error or "the worker ended without a word") if job.exhausted else None,
        )
        log.info(
            "job finished",
            model=f"{self._reader.model.name} {self._reader.model.version}",
            answer=reply.answer.status,
            objects=dict(Counter(str(record.kind) for record in records)),
            seconds=round(timings["total"], 2),
            **({"score": found.score, "masses": found.count} if found else {}),
        )

    def _is_of_a_former_model(self, job: Job) -> bool:
        """Tell whether a job for another model was queued before this worker was there; it may be that `serve` has another."""
        meant = {"meant_for": job.model_digest[:12], "read_by": self._reader.model.digest[:12]}
        former = job.created_at < self._since
        if former:
            log.info("job of a former model", **meant)
        else:
            log.warning("job was meant for another model", **meant, check="do serve and work have the same settings?")
        return former

    def _judged_again(self, job: Job) -> bool:
        model = self._reader.model
        rules = Rules(kinds_of(model.accepts), self._one_breast_suffices)
        again = judged_again(self._engine, self._queue, rules, model.digest, job, self._owner, self._clock())
        if again is None:
            return False
        log.info("judged again for another model", next_job=again.job, next_revision=again.revision)
        return True

    def _show(self, job: Job, answer: Answer, analysis: Analysis) -> None:
        """Keep pictures for the pages; the answer does not wait for them, and does without them."""
        try:
            drawn = list(draw_previews(job.id, answer, analysis))
            # Indexed before they are written: a file without a row would be there for ever.
            with writing(self._engine) as connection:
                # In the transaction: those that it forgets are gone, or else still known, and go with their exam's images.
                for former in announce_previews(connection, job.id, [each.preview for each in drawn]):
                    self._store.remove(former)
            write_previews(self._store, drawn)
        except Exception as error:  # noqa: BLE001 (see above)
            log.warning("no pictures of this reading", cause=described(error), check="is the disk full?")

    def _sources(self, material: Material) -> list[Source]:
        records = {record.uid: record for _, record in material.images}
        assembly = assemble(material.candidates, one_breast_suffices=self._one_breast_suffices)
        return [Source(uid, self._path(records[uid]), view) for view, uid in assembly.in_order]

    def _answer(self, job: Job, material: Material, analysis: Analysis, *, last: bool) -> Answer:
        may_be_lost = None if last or job.exhausted else frozenset(analysis.not_read)
        headers, lost = self._headers(material.shown, may_be_lost)
        if differing := differing_identity(headers.values()):
            log.warning("images state different patients", attributes=differing)
        reasons = list(job.reasons)
        if job.exhausted:
            reasons.append(f"The reading failed {counted(job.attempts - job.last_resorts, 'time')}.")
            # Whatever else stands in them may be why the attempts before failed.
            headers = {uid: names_alone(header) for uid, header in headers.items()}
        return answer_of(
            headers,
            outcome(material.candidates, analysis.not_read, one_breast_suffices=self._one_breast_suffices),
            analysis,
            exam=job.exam_uid,
            revision=job.revision,
            created_at=job.created_at,
            model=self._reader.model,
            reasons=reasons,
            lost=lost,
            failed=job.exhausted,
            scoring=self._scoring,
            sender=material.sender,
        )

    def _headers(
        self, records: Sequence[InstanceRecord], may_be_lost: Collection[str] | None
    ) -> tuple[dict[str, Dataset], dict[str, str]]:
        """Return the headers of images by UID, and why the files of the others cannot be read.

        Parameters
        ----------
        may_be_lost
            UIDs of those that the answer can do without; None: all but one.
        """
        headers: dict[str, Dataset] = {}
        lost: dict[str, Exception] = {}
        for record in records:
            try:
                headers[record.uid] = header_of(self._path(record))
            except StorageError:
                raise
            except Exception as error:
                if may_be_lost is not None and record.uid not in may_be_lost:
                    raise
                lost[record.uid] = error
                log.error("file cannot be read", instance=record.uid, cause=described(error))  # noqa: TRY400 (rule R14)
        if lost and not headers:
            raise next(iter(lost.values()))
        return headers, {uid: described(error) for uid, error in lost.items()}

    def _path(self, record: InstanceRecord) -> Path:
        return obtain(self._store, record.path)

    def _without_bucket(self, job: Job, error: BucketUnavailable) -> None:
        try:
            self._store.reach()
        except BucketUnavailable:
            # No fault of the exam's: its tries are not used up, and nothing is claimed before the bucket answers.
            self._bereft = True
            self._queue.give_back(job, self._owner, self._clock())
            raise
        self._fail(job, error)

    def _fail(self, job: Job, error: Exception) -> None:
        # A traceback's message may hold a name.
        log.error("job failed", error=described(error))
        try:
            state = self._queue.fail(job, self._owner, described(error), self._clock())
        except LeaseLost:
            return
        log.warning("job will be tried again" if state == "queued" else "job is dead", state=state)

    @contextmanager
    def _renewed(self, job: Job) -> Iterator[None]:
        """Renew the lease in the background; a lost one shows when the job is finished."""
        done = threading.Event()
        begin = time.monotonic()
        context = job.log_context()

        def renew() -> None:
            mine, stopped = True, 0.0
            while not done.wait(self._heartbeat):
                now = time.monotonic()
                try:
                    self._at_work(f"reads exam {job.exam_uid}, for {now - begin:.0f} s")
                    if self._stopping():
                        stopped = stopped or now
                        if now - stopped >= self._drain and self._queue.give_back(job, self._owner, self._clock()):
                            log.warning("job given back", **context)
                            self._on_drained()
                            return
                    mine = mine and self._queue.renew(job, self._owner, self._clock())
                except StorageError as error:
                    log.error("lease not renewed", cause=str(error))  # noqa: TRY400 (the cause says it)
                except Exception:
                    log.exception("lease not renewed")

        def end() -> None:
            log.critical("job hangs; this worker ends", **context, check="another attempt follows after the lease")
            self._on_hang()

        # Apart: a database, a service manager or a GPU's driver that hangs may keep the other for ever.
        limit = threading.Timer(self._time_limit, end)
        thread = threading.Thread(target=renew, name="heartbeat", daemon=True)
        limit.daemon = True
        limit.start()
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            limit.cancel()
