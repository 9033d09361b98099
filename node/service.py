"""Composition root: settings → running parts; start, drain, stop."""

import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import structlog
from sqlalchemy import Engine

from ai.models import Model, open_model, ready_model
from config.settings import Settings
from node.catalogue import Cataloguer
from node.clock import ExamClock
from node.commitment import Prover, Reports
from node.delivery import DeliveryService, Lane
from node.errors import CannotListen, NotProtected
from node.identity import VERSION
from node.intake import Intake, utc_now
from node.retention import Retention
from node.safekeeping import SafeKeeping, SafeKeepingService
from node.scp import StorageSCP
from node.scu import Sender
from node.views import ImageKind
from node.web.access import Authentication, ThisMachine
from node.web.app import Counts, Routes, create_app
from node.web.decoding import Decoders
from node.web.dicomweb import dicomweb_routes
from node.web.server import WebDoor
from node.worker import Worker
from storage.commitment_requests import CommitmentRequests
from storage.commitments import Commitments
from storage.database import migrate, open_database
from storage.files import InstanceStore
from storage.jobs import JobQueue
from storage.outbox import Outbox

log = structlog.get_logger()

SWEEP_EVERY = timedelta(hours=1)
RETENTION_EVERY = timedelta(minutes=10)
TEMP_FILES_TAKE = timedelta(hours=1)
"""No association takes longer to send one instance."""
DRAIN_SECONDS = 30.0
NO_ROUTES = Routes()
CATALOGUE_EVERY = 2.0


@dataclass(frozen=True)
class Parts:
    """What every command works with."""

    settings: Settings
    engine: Engine
    store: InstanceStore
    queue: JobQueue
    outbox: Outbox


def open_parts(settings: Settings) -> Parts:
    """Open store and database, and bring the schema up to date.

    Raises
    ------
    storage.errors.StorageError
        When either cannot be used.
    """
    store = InstanceStore(settings.storage.folder)
    store.prepare()
    engine = open_database(settings.storage.database_url)
    migrate(engine)
    queue = JobQueue(engine, settings.jobs.policy, timedelta(seconds=settings.jobs.lease))
    policies = {destination.name: destination.policy(settings.delivery) for destination in settings.destinations}
    return Parts(settings, engine, store, queue, Outbox(engine, settings.delivery.policy, policies))


def sender(settings: Settings) -> Sender:
    """Return the part that opens associations."""
    return Sender(settings.dicom)


def accepted_kinds(model: Model) -> frozenset[ImageKind]:
    """Return the kinds of image that a model's card says it reads."""
    return frozenset(kind for kind in ImageKind if kind.value.upper() in model.card.use.accepts)


def content_digest(settings: Settings) -> str:
    """Return the digest of every setting that changes the content of result objects (rule R1).

    The model's own digest covers its thresholds.
    """
    return hashlib.sha256(f"one_breast_suffices={settings.exam.one_breast_suffices}".encode()).hexdigest()


def serve(settings: Settings) -> None:
    """Run the DICOM door, the exam clock and the delivery lanes until SIGTERM or SIGINT."""
    stop = _stop_on_signals()
    model = ready_model(settings.reader.model, settings.reader.models_folder)
    parts = open_parts(settings)
    swept = parts.store.sweep(timedelta(0))
    log.info("starting", version=VERSION, model=model.card.name, digest=model.digest[:12], swept=swept)
    intake = Intake(
        parts.store,
        parts.engine,
        settings.storage.watermark,
        accepted_kinds(model),
        utc_now,
        accept_corrections=settings.exam.accept_corrections,
    )
    one_breast = settings.exam.one_breast_suffices
    clock = ExamClock(
        parts.engine,
        settings.exam.policy,
        model.digest,
        utc_now,
        priors=settings.exam.priors,
        one_breast_suffices=one_breast,
    )
    policy = settings.retention.policy
    retention = Retention(parts.engine, parts.store, policy, utc_now, destinations=bool(settings.destinations))
    if policy.unproven:
        log.warning(
            "files may be removed unproven", check="retention.unproven: results that reached nobody may be lost"
        )
    send = sender(settings)
    commitments = Commitments(parts.engine, parts.outbox)
    reports = Reports(commitments, settings.destinations)
    lanes = [
        Lane(
            destination,
            parts.outbox,
            send,
            parts.store,
            poll=settings.delivery.poll,
            prover=Prover(
                *(destination, parts.engine, parts.outbox, commitments, send, reports),
                wait=settings.delivery.commitment_wait,
            ),
        )
        for destination in settings.destinations
    ]
    deliveries = DeliveryService(lanes)
    requests = CommitmentRequests(parts.engine, settings.delivery.policy)
    safekeeping = SafeKeeping(requests, parts.engine, parts.store, send, settings.dicom.callers)
    answers = SafeKeepingService(safekeeping, settings.delivery.poll)
    door = StorageSCP(settings.dicom, intake, parts.store.incoming, reports, safekeeping)
    decoders = Decoders()
    routes = Routes(dicom_web=dicomweb_routes(settings.http, parts.engine, parts.store, intake, decoders))
    web = web_door(settings, routes)
    if web:
        web.start()
    try:
        door.start()
    except OSError as error:
        raise CannotListen(f"dicom, {settings.dicom.bind}:{settings.dicom.port}: {error.strerror}") from error
    deliveries.start()
    answers.start()
    log.info(
        "ready",
        ae_title=settings.dicom.ae_title,
        port=door.port,
        http=web.port if web else None,
        destinations=[d.name for d in settings.destinations],
    )
    if not settings.destinations:
        log.warning("no destinations", check="results stay in the store; add [[destinations]] to the settings")
    try:
        _run_until(
            stop,
            [
                Chore(clock.tick, 0.5),
                Chore(lambda: parts.store.sweep(TEMP_FILES_TAKE), SWEEP_EVERY.total_seconds()),
                Chore(retention.tick, RETENTION_EVERY.total_seconds()),
                Chore(Cataloguer(parts.engine, parts.store).tick, CATALOGUE_EVERY),
            ],
        )
    finally:
        log.info("stopping")
        if web:
            web.stop()
        decoders.close()
        door.stop(DRAIN_SECONDS)
        deliveries.stop()
        answers.stop()
        log.info("stopped")


def web_door(settings: Settings, routes: Routes = NO_ROUTES) -> WebDoor | None:
    """Return the HTTP door, not yet open, or None where the settings say that there is none.

    Raises
    ------
    NotProtected
        When others than this machine could reach it, and no way to tell who they are is set up.
    """
    if not settings.http.enabled:
        return None
    ways: list[Authentication] = []
    if not ways and not settings.http.is_local:
        raise NotProtected(f"http.bind = {settings.http.bind}")
    app = create_app(settings.http, [*ways, ThisMachine()], routes, Counts())
    return WebDoor(settings.http, app, DRAIN_SECONDS)


def work(settings: Settings) -> None:
    """Read exams, one after the other, until SIGTERM or SIGINT; the exam at hand is finished first."""
    from ai.readers.registry import load_reader  # noqa: PLC0415 (only workers import torch)

    stop = _stop_on_signals()
    model = open_model(settings.reader.model, settings.reader.models_folder)
    reader = load_reader(model, settings.reader.device, settings.reader.threads)
    parts = open_parts(settings)
    worker = Worker(
        parts.engine,
        parts.store,
        parts.queue,
        reader,
        settings.destinations,
        settings_digest=content_digest(settings),
        owner=f"{socket.gethostname()}:{os.getpid()}",
        heartbeat=settings.jobs.lease / 4,
        time_limit=settings.jobs.time_limit,
        on_hang=lambda: os._exit(os.EX_SOFTWARE),
        clock=utc_now,
        one_breast_suffices=settings.exam.one_breast_suffices,
    )
    log.info("worker ready", model=model.card.name, digest=model.digest[:12], device=reader.device)

    def drain() -> None:
        while not stop.is_set() and worker.work_once():
            pass

    _run_until(stop, [Chore(drain, 0.5)])
    log.info("worker stopped")


@dataclass
class Chore:
    """Something done again and again; a failure is logged and does not end the process."""

    do: Callable[[], object]
    every: float
    next_at: float = 0.0


def _run_until(stop: threading.Event, chores: Sequence[Chore]) -> None:
    while not stop.is_set():
        for chore in chores:
            if time.monotonic() >= chore.next_at:
                try:
                    chore.do()
                except Exception:
                    log.exception("will be tried again", check="does the database answer, is the disk full?")
                chore.next_at = time.monotonic() + chore.every
        stop.wait(max(min(chore.next_at for chore in chores) - time.monotonic(), 0.01))


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    return stop
