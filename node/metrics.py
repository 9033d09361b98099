"""What a monitoring system is told, as Prometheus has it: counted in this process, or looked up when it is asked for.

Nothing here names a patient, and an AE title that nobody knows is `unknown`: strangers must not make series without end.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import Engine

from ai.models import Model
from node.audit.receivers import Telling
from node.echoes import Echoes
from node.intake import Announced, Receipt, Receiver
from node.parts import Parts
from node.patience import Patience
from node.records import Origin
from node.senders import Senders
from node.status import receiving_status
from node.timekeeping import Timekeeping
from node.validity import Validity
from storage import selftests
from storage.database import reading
from storage.errors import StorageError
from storage.figures import Answered, answers_since, exams_by_state, unanswered, undelivered
from storage.senders import Context
from storage.states import DeliveryState
from storage.workers import workers_seen

ANSWER_BUCKETS = (10, 15, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1800, 3600, 14400, 86400)
STAGE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
SCORE_BUCKETS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
RECENTLY = timedelta(minutes=2)
"""A worker that gave no sign of life for longer is not at work."""
LATE = timedelta(minutes=5)
"""How long after the time that it bears an answer may come to be seen: clocks of hosts differ, and a commit takes time."""
UNKNOWN = "unknown"
STRANGERS = 100
"""AE titles at most that have series of their own though no setting names them."""


class Metrics:
    """All metrics of one ``serve``.

    Parameters
    ----------
    parts
        Gives what is looked up, with the settings in force.
    echoes
        Whether destinations answer.
    clock
        Returns the present time, aware.
    model
        By which this ``serve`` judges exams, and has them read.
    validity, timekeeping, telling
        What ends when, how the clock is kept, and who is told the audit trail.
    """

    def __init__(
        self,
        parts: Callable[[], Parts],
        echoes: Echoes,
        clock: Callable[[], datetime],
        model: Model,
        validity: Validity,
        timekeeping: Timekeeping,
        telling: Telling,
    ) -> None:
        self._telling = telling
        self._validity = validity
        self._timekeeping = timekeeping
        self._parts = parts
        self._echoes = echoes
        self._clock = clock
        self._begun = self._looked_at = clock()
        self._seen: set[tuple[int, datetime]] = set()
        self._strangers: set[str] = set()
        self._following = Lock()
        self._patience = Patience()
        self.registry = CollectorRegistry()
        self.associations = Counter(
            "mammonode_associations",
            "Associations asked for, accepted or refused",
            ["calling_ae", "outcome"],
            registry=self.registry,
        )
        self.instances = Counter(
            "mammonode_instances", "Instances received, by status", ["calling_ae", "status"], registry=self.registry
        )
        self.bytes = Counter(
            "mammonode_received_bytes", "Bytes of instances kept", ["calling_ae"], registry=self.registry
        )
        self.answer_seconds = Histogram(
            "mammonode_answer_seconds",
            "From the last image of an exam to its answer in the outbox",
            buckets=ANSWER_BUCKETS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "mammonode_stage_seconds", "Stages of a reading", ["stage"], buckets=STAGE_BUCKETS, registry=self.registry
        )
        self.scores = Histogram(
            "mammonode_exam_score",
            "Suspicion score of exams read, 0 to 100, not a probability",
            ["sender"],
            buckets=SCORE_BUCKETS,
            registry=self.registry,
        )
        self.answers = Counter(
            "mammonode_answers", "Exams answered, by answer", ["sender", "answer"], registry=self.registry
        )
        self.retries = Counter("mammonode_job_retries", "Attempts beyond the first", registry=self.registry)
        info = Info("mammonode_model", "The model of serve", registry=self.registry)
        info.info({"name": model.card.name, "version": model.card.version, "digest": model.digest})
        self.registry.register(self)

    def text(self) -> bytes:
        """Return everything, in Prometheus' text format."""
        self._follow()
        return generate_latest(self.registry)

    def known(self, calling_ae: str) -> str:
        """Return an AE title that the settings name, or ``unknown``; where anybody may call, also the first strangers'."""
        dicom = self._parts().settings.dicom
        if calling_ae in {caller.ae_title.strip() for caller in dicom.callers}:
            return calling_ae
        if dicom.allow_unknown_callers and len(self._strangers | {calling_ae}) <= STRANGERS:
            self._strangers.add(calling_ae)
            return calling_ae
        return UNKNOWN

    def _follow(self) -> None:
        """Count what was answered since the last time."""
        with self._following:
            now = self._clock()
            self._begun = min(self._begun, now)  # the clock was put back
            since = max(self._begun, min(self._looked_at, now) - LATE)
            try:
                found = self._patience.ask(lambda: self._answered(since))
            except StorageError:
                return
            for answered in found:
                if (answered.job, answered.finished_at) in self._seen:
                    continue
                sender = self.known(answered.sender)
                self.answers.labels(sender, answered.answer).inc()
                self.answer_seconds.observe((answered.finished_at - answered.last_image_at).total_seconds())
                self.retries.inc(max(answered.attempts - 1, 0))
                for stage, seconds in answered.timings.items():
                    self.stage_seconds.labels(stage).observe(seconds)
                if answered.score is not None:
                    self.scores.labels(sender).observe(answered.score)
            self._looked_at = now
            self._seen = {(answered.job, answered.finished_at) for answered in found}

    def _answered(self, since: datetime) -> list[Answered]:
        with reading(self._parts().engine) as connection:
            return answers_since(connection, since)

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what ``collect`` yields depends on a database that need not answer yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Look everything up; where the database does not answer, that is all that is told."""
        up = GaugeMetricFamily("mammonode_database_up", "Whether the database answers")
        try:
            found = self._patience.ask(lambda: list(self._looked_up()))
            up.add_metric([], 1)
        except StorageError:
            found = []
            up.add_metric([], 0)
        yield up
        yield from found
        yield from self._disk()
        answers = GaugeMetricFamily(
            "mammonode_destination_up", "Whether a destination answered the last C-ECHO", labels=["destination"]
        )
        for name, echo in self._echoes.last().items():
            answers.add_metric([name], float(echo.result.answered))
        yield answers
        yield from self._time()

    def _time(self) -> Iterator[Metric]:
        state = self._timekeeping.last
        kept = GaugeMetricFamily("mammonode_clock_synchronised", "Whether somebody keeps the clock")
        if state.synchronised is not None:
            kept.add_metric([], float(state.synchronised))
        yield kept
        offset = GaugeMetricFamily("mammonode_clock_offset_seconds", "By which the clock is still to be put right")
        if state.offset is not None:
            offset.add_metric([], state.offset)
        yield offset

    def _looked_up(self) -> Iterator[Metric]:
        parts, now = self._parts(), self._clock()
        with reading(parts.engine) as connection:
            states, waits, lanes = exams_by_state(connection), unanswered(connection), undelivered(connection)
            workers = workers_seen(connection, now, RECENTLY)
            test, passed = selftests.last(connection), selftests.last(connection, passed=True)
        yield _gauge("mammonode_exams", "Exams by state", "state", {str(k): float(v) for k, v in states.items()})
        oldest = (now - waits.oldest).total_seconds() if waits else 0.0
        yield GaugeMetricFamily("mammonode_oldest_unanswered_seconds", "Age of the oldest exam without answer", oldest)
        jobs = parts.queue.counts()
        yield _gauge("mammonode_jobs", "Jobs by state", "state", {str(k): float(v) for k, v in jobs.items()})
        deliveries = GaugeMetricFamily(
            "mammonode_deliveries", "Results by destination and state", labels=["destination", "state"]
        )
        names = [destination.name for destination in parts.settings.places]
        # With zeros: an alert compares with what was, and of the first refusal nothing was.
        nothing = {name: dict.fromkeys(DeliveryState, 0) for name in names}
        for name, counts in (nothing | parts.outbox.counts()).items():
            for state, number in counts.items():
                deliveries.add_metric([name, str(state)], number)
        yield deliveries
        ages = {name: (now - lanes[name].oldest).total_seconds() if name in lanes else 0.0 for name in names}
        yield _gauge("mammonode_backlog_seconds", "Age of the oldest result that waits", "destination", ages)
        ends: dict[str, float] = {}
        for dated in self._validity.all():
            what = f"token {dated.subject}" if dated.what == "token" else dated.what
            ends.setdefault(what, dated.ends.timestamp())
        yield _gauge(
            "mammonode_valid_until_timestamp_seconds", "When what is dated ends, the first of each", "what", ends
        )
        waiting = {name: float(number) for name, number in self._telling.waiting().items()}
        yield _gauge("mammonode_audit_waiting", "Audit messages that a receiver has not taken", "receiver", waiting)
        yield GaugeMetricFamily("mammonode_workers", "Workers that gave a sign of life", len(workers))
        reads = GaugeMetricFamily(
            "mammonode_worker_info", "What each worker reads with", labels=["worker", "model", "digest", "device"]
        )
        for each in workers:
            reads.add_metric([each.owner, each.model, each.model_digest, each.device], 1)
        yield reads
        shares = {each.owner: each.gpu.utilisation for each in workers}
        yield _gauge("mammonode_gpu_utilisation", "Of each worker's GPU, 0 to 1", "worker", shares)
        used = {each.owner: each.gpu.bytes_used for each in workers}
        yield _gauge("mammonode_gpu_used_bytes", "Memory in use on each worker's GPU", "worker", used)
        total = {each.owner: each.gpu.bytes for each in workers}
        yield _gauge("mammonode_gpu_memory_bytes", "Memory of each worker's GPU", "worker", total)
        if test:
            yield GaugeMetricFamily(
                "mammonode_selftest_passed", "Whether the last self-test passed", float(test.passed)
            )
            yield GaugeMetricFamily("mammonode_selftest_seconds", "How long the last self-test took", test.seconds)
        if passed:
            yield GaugeMetricFamily(
                "mammonode_selftest_success_timestamp_seconds",
                "When a self-test passed last",
                passed.started_at.timestamp(),
            )

    def _disk(self) -> Iterator[Metric]:
        try:
            usage = self._parts().store.usage()
        except OSError:  # a share that is gone: all the rest is told
            return
        yield GaugeMetricFamily("mammonode_disk_bytes", "Size of the store's disk", usage.total)
        yield GaugeMetricFamily("mammonode_disk_free_bytes", "Free on the store's disk", usage.free)


class Counted:
    """A receiver whose outcomes are counted; the same for every door.

    Parameters
    ----------
    inner
        Receives.
    metrics
        Counts.
    """

    def __init__(self, inner: Receiver, metrics: Metrics) -> None:
        self._inner = inner
        self._metrics = metrics

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, as the inner receiver does."""
        title = self._metrics.known(origin.calling_ae)
        size = temp.stat().st_size if temp.exists() else 0
        try:
            receipt = self._inner.receive(temp, announced, origin)
        except Exception as error:
            self._metrics.instances.labels(title, f"{receiving_status(error):04X}").inc()
            raise
        self._metrics.instances.labels(title, "0000").inc()
        self._metrics.bytes.labels(title).inc(size)
        return receipt

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""
        self._inner.require_space()


class CountedSenders(Senders):
    """Notes what senders do, and counts their associations.

    Parameters
    ----------
    engine, clock
        As of `Senders`.
    metrics
        Counts.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime], metrics: Metrics) -> None:
        super().__init__(engine, clock)
        self._metrics = metrics

    def associated(self, origin: Origin, contexts: Sequence[Context]) -> None:
        """Note an association that was accepted."""
        self._metrics.associations.labels(self._metrics.known(origin.calling_ae), "accepted").inc()
        super().associated(origin, contexts)

    def rejected(self, origin: Origin, reason: str) -> None:
        """Note an association that was rejected."""
        self._metrics.associations.labels(self._metrics.known(origin.calling_ae), "refused").inc()
        super().rejected(origin, reason)


def _gauge(name: str, help_text: str, label: str, values: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        if value is not None:
            family.add_metric([key], value)
    return family
