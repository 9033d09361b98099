"""`mammonode serve`: the doors, the exam clock, the lanes; started, told anew what the settings say, drained, stopped."""

import gc
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import timedelta

from sqlalchemy import Engine

from ai.findings import ModelIdentity
from ai.models import ready_model
from config.settings import Destination, Settings, changed_keys
from node.audit.commands import operator
from node.audit.hooks import Audited
from node.audit.receivers import Telling
from node.audit.spool import Spool
from node.audit.trail import Trail
from node.catalogue import Cataloguer
from node.clock import ExamClock
from node.commitment import Prover, Reports
from node.delivery import DeliveryService, Lane
from node.doors import DoorProbe
from node.echoes import Echoes
from node.errors import CannotListen
from node.identity import VERSION
from node.intake import Intake, Renewed, utc_now
from node.judging import Rules
from node.logs import configure
from node.metrics import Counted, CountedSenders, Metrics
from node.pace import News, until
from node.parts import Parts, open_parts
from node.progress import Progress
from node.readiness import Readiness
from node.retention import Retention
from node.running import (
    SIGN_OF_LIFE_EVERY,
    STATUS_EVERY,
    SWEEP_EVERY,
    TEMP_FILES_TAKE,
    Chore,
    LoadSettings,
    Signals,
    Watch,
    read_again,
    run_until_stopped,
)
from node.safekeeping import SafeKeeping
from node.scp import StorageSCP
from node.scu import EchoResult
from node.senders import Noted
from node.service import DRAIN_SECONDS, carrier, sender, web_door, worklist_of
from node.standing import Standing
from node.supervision import ServiceManager
from node.telemetry import logger
from node.timekeeping import Timekeeping
from node.tls import Transport
from node.turns import Turns
from node.validity import Validity
from node.web.app import Counts, Routes
from node.web.bearer import Uses
from node.web.decoding import Decoders
from node.web.dicomweb import dicomweb_routes
from node.web.health import health_routes
from node.web.pages.all import page_routes
from node.web.pages.house import House
from node.web.server import WebDoor
from node.web.ups import UnifiedProcedureSteps
from node.worklist import Worklist
from storage.changes import changes_of
from storage.commitment_requests import CommitmentRequests
from storage.commitments import Commitments
from storage.conflicts import list_conflicts
from storage.database import reading, require_schema
from storage.errors import BucketUnavailable
from storage.figures import last_reader
from storage.holding import Seat, held
from storage.ownership import claim
from storage.states import ConflictState

log = logger("serving")

RETENTION_EVERY = timedelta(minutes=10)
LOOKS_EVERY = 0.5
"""Seconds between looks at what was committed, for all parts, while an exam awaits images ..."""
LOOKS_EVERY_READING = 0.2
"""... while one awaits only its answer ..."""
LOOKS_EVERY_IDLE = 2.0
"""... and while none does."""
CATALOGUE_EVERY = 2.0
CALLERS_EVERY = 2.0
VALIDITY_EVERY = 300.0
CLOCK_EVERY = 600.0
SEAT_EVERY = 60.0

FIXED = (
    "dicom.ae_title",
    "dicom.bind",
    "dicom.port",
    "tls.listen",
    "storage.folder",
    "storage.database",
    "bucket",
    "reader.model",
    "reader.models_folder",
    "http",
    "worklist",
)
"""What only a restart changes: addresses, places, the model."""


def serve(load: LoadSettings, manager: ServiceManager | None = None) -> None:
    """Run the doors, the exam clock and the delivery lanes until SIGTERM or SIGINT.

    Parameters
    ----------
    load
        Reads the settings: now, and again at SIGHUP.
    manager
        Whoever has started the process; by default as the environment says.

    Raises
    ------
    ai.errors.ModelError, NodeError, storage.errors.StorageError
        When it cannot start.
    """
    signals = Signals()
    signals.listen()
    manager = manager or ServiceManager.from_environment()
    settings = load()
    configure(settings.log.format, settings.log.level)
    with ExitStack() as held_until_end:
        serving = Serving(settings, lambda: _hold(settings, held_until_end))
        _run(serving, load, signals, manager)


def _hold(settings: Settings, until: ExitStack) -> None:
    if fault := until.enter_context(held(settings.storage.folder, settings.storage.database_url)):
        log.warning("folder not held", cause=fault)


def _run(serving: "Serving", load: LoadSettings, signals: Signals, manager: ServiceManager) -> None:
    serving.open()
    manager.ready(serving.status())
    # pynetdicom collects garbage every half minute, whole, 0.15 s in which nobody is served: what there is by now stays.
    gc.freeze()

    def reload() -> None:
        manager.reloading()
        try:
            if changed := read_again(load, serving.parts.settings, FIXED, serving.prepare):
                configure(changed.log.format, changed.log.level)
                serving.use(changed)
        finally:
            manager.ready(serving.status())

    watch = Watch(manager, serving.progress)
    chores = [
        *serving.chores(),
        Chore(watch.tick, SIGN_OF_LIFE_EVERY),
    ]
    if manager.address:
        chores.append(Chore(lambda: manager.status(serving.status()), STATUS_EVERY))
    try:
        run_until_stopped(signals, chores, reload)
    finally:
        manager.stopping("no new associations; those that are open have half a minute to end")
        serving.close()


def tell_of_another_model(engine: Engine, model: ModelIdentity) -> None:
    """Say that the last to read something was another model: an upgrade may have brought one that no setting names."""
    with reading(engine) as connection:
        former = last_reader(connection)
    if former not in {"", model.digest}:
        log.warning(
            "another model than before",
            model=f"{model.name} {model.version}",
            digest=model.digest[:12],
            former=former[:12],
        )


class Serving:
    """The parts of a running node, wired from its settings, and wired anew when these change.

    Parameters
    ----------
    settings
        What to wire.
    hold
        Keeps others from the store's folder, before anything there is made, migrated or swept.
    """

    def __init__(self, settings: Settings, hold: Callable[[], object] = lambda: None) -> None:
        self.progress = Progress()
        self.model = ready_model(settings.reader.model, settings.reader.models_folder)
        self._transport = self._fresh = Transport.open(settings.tls)
        hold()
        self.parts = open_parts(settings)
        with suppress(BucketUnavailable):  # it will be asked again
            claim(self.parts.engine, self.parts.store)
        self._seat, self._beside = Seat(self.parts.engine), ""
        self._changes = changes_of(self.parts.engine)
        self._news = News(self._changes)
        self._judging = Chore(self._close_exams, LOOKS_EVERY, early=0)
        self.status = Standing(self.parts.engine, self.parts.store, self._changes).line
        swept = self.parts.store.sweep(timedelta(0))
        model = f"{self.model.card.name} {self.model.card.version}"
        log.info("starting", version=VERSION, model=model, digest=self.model.digest[:12], swept=swept)
        self.trail = Trail(
            Spool(self.parts.store.root / "audit"), self.parts.engine, lambda: self.parts.settings, utc_now
        )
        self._telling = Telling(self.parts.engine, lambda: self.parts.settings.audit)
        self._renewed = Renewed()
        self._echoes = Echoes(utc_now, self.progress)
        self.validity = Validity(lambda: self.parts.settings, lambda: self._transport, self.parts.engine, utc_now)
        self.timekeeping = Timekeeping()
        ending = (self.validity, self.timekeeping, self._telling)
        self.metrics = Metrics(lambda: self.parts, self._echoes, utc_now, self.model, *ending)
        self._senders = CountedSenders(self.parts.engine, utc_now, self.metrics)
        self._receiver = Audited(Noted(Counted(self._renewed, self.metrics), self._senders), self.trail)
        self.readiness = Readiness(lambda: self.parts, self.model.digest, self.progress, self._echoes, utc_now)
        self._wire(self.parts)
        watched = self._news, self.progress
        worklist = worklist_of(self.parts, self._receiver)
        self._answers = Turns("commitment reports", lambda _: self._keeping.turn(), settings.delivery.poll, *watched)
        self._turns = (
            self._answers,
            Turns("worklist", worklist.turn, 1, *watched),
            Turns("retrieving", worklist.retrieving, 1, *watched),
        )
        self._door = StorageSCP(
            settings.dicom,
            self._receiver,
            self.parts.store.incoming,
            self._reports,
            self._keeping,
            senders=self._senders,
            transport=self._transport,
            notes=self.trail,
        )
        self._decoders, self._uses = Decoders(), Uses(self.parts.engine)
        self._web = self._web_door(worklist)
        self._probe = DoorProbe(self.progress)

    def _web_door(self, worklist: Worklist) -> WebDoor | None:
        settings, counts = self.parts.settings, Counts()
        steps = UnifiedProcedureSteps(self.parts.engine, worklist, settings.worklist.sources)
        services = dicomweb_routes(settings.http, self.parts.engine, self.parts.store, self._receiver, self._decoders)
        house = House(
            *(lambda: self.parts, self._receiver, self._echo, self.model, counts, utc_now),
            validity=self.validity,
            timekeeping=self.timekeeping,
            notes=self.trail,
            echoes=self._echoes,
        )
        health = health_routes(self.readiness.checks, self.metrics.text)
        routes = Routes([*services, *steps.routes()], [*page_routes(house), *health])
        return web_door(self.parts, routes, counts, self._uses, self.trail)

    def _wire(self, parts: Parts) -> None:
        self._to_judge = True
        settings, engine = parts.settings, parts.engine
        rules = Rules.of(settings, self.model)
        self._renewed.inner = Intake(
            parts.store,
            engine,
            settings.storage.watermark,
            rules.accepts,
            utc_now,
            accept_corrections=settings.exam.accept_corrections,
        )
        self._clock = ExamClock(
            engine,
            settings.exam.policy,
            self.model.digest,
            utc_now,
            priors=settings.exam.priors,
            rules=rules,
        )
        policy = settings.retention.policy
        self._retention = Retention(
            *(engine, parts.store, policy, utc_now),
            destinations=settings.destinations,
            tests=timedelta(days=settings.selftest.keep_days),
            notes=self.trail,
            is_doubtful=self.timekeeping.is_doubtful,
        )
        if policy.unproven:
            log.warning("files may be removed unproven")
        if all(destination.test for destination in settings.destinations):
            log.warning("no destinations")
        self._echoes.use(self._echo, settings.destinations)
        commitments = Commitments(engine, parts.outbox)
        self._reports = Reports(commitments, settings.destinations)
        lanes = [self._lane(parts, destination, commitments) for destination in settings.places]
        self._deliveries = DeliveryService(lanes, self.progress)
        requests = CommitmentRequests(engine, settings.delivery.policy)
        self._keeping = SafeKeeping(
            *(requests, engine, parts.store, sender(settings, self._transport), settings.dicom.callers)
        )

    def _lane(self, parts: Parts, destination: Destination, commitments: Commitments) -> Lane:
        delivery = parts.settings.delivery
        carries = carrier(parts.settings, destination, self._transport)
        prover = Prover(
            *(destination, parts.engine, parts.outbox, commitments, carries, self._reports),
            wait=delivery.commitment_wait,
        )
        sends = (destination, parts.outbox, carries, parts.store)
        return Lane(*sends, poll=delivery.poll, prover=prover, notes=self.trail, news=self._news)

    def open(self) -> None:
        """Open the doors, and begin to deliver.

        Raises
        ------
        CannotListen
            When a door cannot be opened.
        """
        dicom = self.parts.settings.dicom
        if self._web:
            self._web.start()
        try:
            self._door.start()
        except OSError as error:
            raise CannotListen(f"dicom, {dicom.bind}:{dicom.port}: {error.strerror}") from error
        self.trail.note("start", who=operator())
        self.trail.start()
        self._telling.start()
        self._deliveries.start()
        for turns in self._turns:
            turns.start()
        self._echoes.start()
        self._probe.start(self.parts.settings, self.dicom_port, self.web_port, lambda: self._transport)
        log.info(
            "ready",
            ae_title=dicom.ae_title,
            port=self.dicom_port,
            http=self.web_port,
            destinations=[destination.name for destination in self.parts.settings.destinations],
        )
        self._tell_who_waits()
        tell_of_another_model(self.parts.engine, self.model.identity)

    def _tell_who_waits(self) -> None:
        """Say which exams wait for an operator: a kill may have come before the line that said so when it happened."""
        with reading(self.parts.engine) as connection:
            waiting = list_conflicts(connection, state=ConflictState.OPEN)
        if held := sorted({each.exam_uid for each in waiting if each.exam_uid and each.copy.identity_changed}):
            log.critical("exams wait for an operator", exams=held)

    @property
    def dicom_port(self) -> int:
        """The TCP port of the DICOM door."""
        return self._door.port

    @property
    def web_port(self) -> int | None:
        """The TCP port of the HTTP door; None where there is none."""
        return self._web.port if self._web else None

    def chores(self) -> list[Chore]:
        """Return what is to be done again and again."""
        return [
            self._judging,
            Chore(lambda: self.parts.store.sweep(TEMP_FILES_TAKE), SWEEP_EVERY.total_seconds()),
            Chore(self._remove_files, RETENTION_EVERY.total_seconds()),
            Chore(Cataloguer(self.parts.engine, self.parts.store).tick, CATALOGUE_EVERY),
            Chore(self._write_down, CALLERS_EVERY),
            Chore(self._senders.tidy, SWEEP_EVERY.total_seconds()),
            Chore(self.validity.tick, VALIDITY_EVERY),
            Chore(self.timekeeping.tick, CLOCK_EVERY),
            Chore(self.trail.tell_where_it_stands, SWEEP_EVERY.total_seconds()),
            Chore(self._look_who_serves, SEAT_EVERY),
        ]

    def _echo(self, destination: Destination) -> EchoResult:
        return carrier(self.parts.settings, destination, self._transport).echo(destination)

    def _close_exams(self) -> None:
        if self._news.look() or self._to_judge:
            # Until it was done: the database may not answer now, and is not to be asked again in the moment that one was due.
            self._to_judge, self._judging.every = True, LOOKS_EVERY
            self._clock.tick()
            self._to_judge = self._clock.collecting > 0
            self._judging.every = self._looks_every()

    def _looks_every(self) -> float:
        if self._clock.unanswered > self._clock.collecting:
            looks = LOOKS_EVERY_READING
        else:
            looks = LOOKS_EVERY if self._clock.collecting else LOOKS_EVERY_IDLE
        due = until(self._clock.due_at, utc_now())
        return min(looks, due) if due and due > 0 else looks

    def _write_down(self) -> None:
        # One chore, so that where the database keeps writers waiting the watchdog waits for one of the two.
        self._senders.write_down()
        self._uses.write_down()

    def _look_who_serves(self) -> None:
        require_schema(self.parts.engine)
        other = self._seat.holder()
        if other and other != self._beside:
            log.critical("another serve", holder=other)
        self._beside = other

    def _remove_files(self) -> None:
        claim(self.parts.engine, self.parts.store)
        self._retention.tick()

    def prepare(self, settings: Settings) -> bool:
        """Read the files that settings name, and tell whether certificates are to be renewed from them.

        Raises
        ------
        NodeError
            When one cannot be used, or this node's certificate has ended; then those in force stay.
        """
        self._fresh = Transport.open(settings.tls, self._transport.seen)
        self._fresh.require_current(utc_now())
        if self._web:
            self._web.renew()
        return bool(self._fresh.files)

    def use(self, settings: Settings) -> None:
        """Go on with other settings; what is being received, sent or reported ends as it began."""
        if changed := changed_keys(self.parts.settings, settings):
            self.trail.note("configured", who=operator(), changed=", ".join(changed))
        former = self._deliveries
        self._transport = self._fresh
        self.parts = self.parts.with_settings(settings)
        self._wire(self.parts)
        self._door.use(settings.dicom, self._reports, self._keeping, self._transport)
        self._answers.poll = settings.delivery.poll
        self._deliveries.start(former)

    def close(self) -> None:
        """Take nothing new, let end what has begun, and stop."""
        log.info("stopping")
        self._probe.stop()
        self._echoes.stop()
        # Both doors at once, and while they drain lanes and turns end: a service manager waits two minutes for it all.
        if self._web:
            self._web.shut()
        self._deliveries.retire()
        for turns in self._turns:
            turns.stop(timeout=0)
        self._door.stop(DRAIN_SECONDS)
        if self._web:
            self._web.stop()
        self._decoders.close()
        self._deliveries.stop()
        for turns in self._turns:
            turns.stop()
        self.trail.note("stop", who=operator())
        self.trail.stop()
        self._telling.stop()
        self._changes.close()
        self._seat.close()
        log.info("stopped")
