"""`mammonode work`: the model, and one exam after the other."""

import os
import signal
import socket
from contextlib import suppress

from sqlalchemy import Engine

from ai.allocation import give_back
from ai.models import Model, open_model
from ai.readers.base import Reader
from node.analysis import usable_cores
from node.gpus import GpuDriver
from node.logs import configure
from node.pace import LOOKS, News
from node.parts import Parts, open_parts
from node.running import (
    SIGN_OF_LIFE_EVERY,
    SWEEP_EVERY,
    TEMP_FILES_TAKE,
    Chore,
    LoadSettings,
    Signals,
    are_others,
    read_again,
    run_until_stopped,
)
from node.service import content_digest
from node.shared_clock import SharedClock
from node.supervision import ServiceManager
from node.telemetry import logger
from node.worker import Worker
from storage.changes import changes_of
from storage.database import reading, require_schema, writing
from storage.errors import StorageError
from storage.figures import unanswered
from storage.workers import WorkerRecord, forget_worker, note_worker

log = logger("working")

FIXED = (
    "storage.folder",
    "storage.database",
    "bucket",
    "reader.model",
    "reader.models_folder",
    "reader.device",
    "reader.threads",
    "reader.runtime",
)
"""What only a restart changes."""
POLL = 0.5
"""Seconds between looks at what was committed ..."""
POLL_WHILE_AWAITED = 0.2
"""... and while an exam awaits its answer."""


def work(load: LoadSettings, manager: ServiceManager | None = None) -> None:
    """Read exams, one after the other, until SIGTERM or SIGINT.

    The exam at hand is finished first; when that takes longer than ``jobs.drain``, its job is given back.

    Parameters
    ----------
    load
        Reads the settings: now, and again at SIGHUP between two exams.
    manager
        Whoever has started the process; by default as the environment says.

    Raises
    ------
    ai.errors.ModelError, storage.errors.StorageError
        When it cannot start.
    """
    from ai.readers.registry import load_reader  # noqa: PLC0415 (only workers import torch)

    signals = Signals()
    signals.listen()
    manager = manager or ServiceManager.from_environment()
    settings = load()
    configure(settings.log.format, settings.log.level)
    model = open_model(settings.reader.model, settings.reader.models_folder)
    chosen = settings.reader
    reader = load_reader(model, chosen.device, chosen.threads, runtime=chosen.runtime)
    parts = open_parts(settings)
    presence = Presence(parts.engine, model, reader.device, SharedClock(parts.engine))
    worker = _worker(parts, reader, signals, manager, presence)
    changes = changes_of(parts.engine)
    news = News(changes)
    log.info(
        "worker ready", model=f"{model.card.name} {model.card.version}", digest=model.digest[:12], device=reader.device
    )
    waits = f"{model.card.name} on {reader.device}: waits for an exam"
    manager.ready(waits)
    if are_others(load, settings):  # systemd tells a service of no reload that comes before it is ready
        signals.heard(signal.SIGHUP)

    def drain() -> None:
        done = 0
        while not signals.asked() and worker.work_once():
            done += 1
            manager.alive()
            manager.status(waits)
        if done:
            give_back()

    def drain_what_is_new() -> None:
        if news.look():
            drain()
            fresh.every = POLL_WHILE_AWAITED if _is_one_awaited(parts.engine) else POLL

    def reload() -> None:
        nonlocal parts, worker
        manager.reloading()
        if changed := read_again(load, parts.settings, FIXED):
            configure(changed.log.format, changed.log.level)
            parts = parts.with_settings(changed)
            worker = _worker(parts, reader, signals, manager, presence)
        manager.ready(waits)
        look.next_at = 0.0  # the jobs that have waited for this

    fresh = Chore(drain_what_is_new, POLL)
    look = Chore(drain, POLL * LOOKS)  # a lease may have ended, or a job's wait
    # Where the store is far, here may be no `serve` that sweeps.
    sweeps = [Chore(lambda: parts.store.sweep(TEMP_FILES_TAKE), SWEEP_EVERY.total_seconds())] if parts.store.far else []
    chores = [
        Chore(presence.tell, SIGN_OF_LIFE_EVERY),
        fresh,
        look,
        Chore(manager.alive, SIGN_OF_LIFE_EVERY),
        *sweeps,
    ]
    run_until_stopped(signals, chores, reload)
    manager.stopping("stops")
    presence.end()
    changes.close()
    log.info("worker stopped")


class Presence:
    """What the others know of this worker: that it is at work, with what, and how its GPU does.

    Parameters
    ----------
    engine
        Where it is told.
    model, device
        What it reads with, and where.
    clock
        Gives the aware time.
    """

    def __init__(self, engine: Engine, model: Model, device: str, clock: SharedClock) -> None:
        self.owner = f"{socket.gethostname()}:{os.getpid()}"
        self._engine = engine
        self._model = model
        self._device = device
        self._driver = GpuDriver(device, os.environ.get("CUDA_VISIBLE_DEVICES", ""))
        self.clock = clock
        self._since = clock()

    def tell(self) -> None:
        """Give a sign of life, unless another version has the database by now: then this worker reads nothing.

        Raises
        ------
        storage.errors.SchemaUnknown
            When one has.
        """
        require_schema(self._engine)
        card, now = self._model.card, self.clock()
        record = WorkerRecord(
            *(self.owner, f"{card.name} {card.version}", self._model.digest, self._device, self._since, now),
            self._driver.now(),
        )
        with writing(self._engine) as connection:
            note_worker(connection, record)

    def end(self) -> None:
        """Take it back."""
        with suppress(StorageError), writing(self._engine) as connection:
            forget_worker(connection, self.owner)


def _is_one_awaited(engine: Engine) -> bool:
    with reading(engine) as connection:
        return unanswered(connection) is not None


def _worker(parts: Parts, reader: Reader, signals: Signals, manager: ServiceManager, presence: Presence) -> Worker:
    settings = parts.settings

    def at_work(what: str) -> None:
        manager.alive()
        manager.status(what)
        presence.tell()

    def given_back() -> None:
        presence.end()
        os._exit(os.EX_OK)

    return Worker(
        parts.engine,
        parts.store,
        parts.queue,
        reader,
        settings.places,
        settings_digest=content_digest(settings),
        owner=presence.owner,
        heartbeat=min(settings.jobs.lease / 4, SIGN_OF_LIFE_EVERY),
        time_limit=settings.jobs.time_limit,
        scoring=settings.reader.scoring,
        on_hang=lambda: os._exit(os.EX_SOFTWARE),
        clock=presence.clock,
        one_breast_suffices=settings.exam.one_breast_suffices,
        stopping=signals.stop_asked,
        drain=settings.jobs.drain,
        on_drained=given_back,
        at_work=at_work,
        threads=settings.reader.threads or usable_cores(),
    )
