"""What `serve` and `work` share: chores done again and again until a signal, signs of life, settings read again."""

import os
import select
import signal
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

from config.errors import InvalidSettings
from config.settings import Settings, changed_keys
from node.errors import NodeError
from node.progress import Progress
from node.supervision import ServiceManager, end_with_parent
from node.telemetry import logger
from node.troubles import Troubles
from storage.errors import StorageError

log = logger("running")

LoadSettings = Callable[[], Settings]
STATUS_EVERY = 10.0
SIGN_OF_LIFE_EVERY = 15.0
"""Seconds; several fit into every watchdog's time that the units set."""
SWEEP_EVERY = timedelta(hours=1)
TEMP_FILES_TAKE = timedelta(hours=1)
"""No association takes longer to send one instance."""


class Signals:
    """What the process was asked by signals: SIGTERM and SIGINT to stop, SIGHUP to read its settings again.

    A handler runs between two instructions of the main thread, which may hold any lock just then: what takes one, as
    ``threading.Event.set`` does, may wait for ever.
    """

    def __init__(self) -> None:
        self._stop = self._reload = False
        self._wakes, self._wake = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._wake, False)
        self._woken = select.poll()
        self._woken.register(self._wakes, select.POLLIN)

    def listen(self) -> None:
        """Take the signals from now on, and one at the end of the ``up`` that this is a part of; only the main thread can."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self.heard)
        end_with_parent()

    def stop_asked(self) -> bool:
        """Tell whether the process is to end."""
        return self._stop

    def asked(self) -> bool:
        """Tell whether there is anything to be done before the next piece of work; it is told again."""
        return self._stop or self._reload

    def reload_asked(self) -> bool:
        """Tell whether the settings are to be read again; what was asked several times meanwhile is told once."""
        asked, self._reload = self._reload, False
        return asked

    def heard(self, number: int, _frame: FrameType | None = None) -> None:
        """Note a signal."""
        if number == signal.SIGHUP:
            self._reload = True
        else:
            self._stop = True
        try:
            os.write(self._wake, b"\0")
        except BlockingIOError:  # full: it wakes already
            return

    def rest(self, seconds: float) -> None:
        """Return after some time, or as soon as a signal has come."""
        if self._woken.poll(1000 * seconds):
            os.read(self._wakes, select.PIPE_BUF)


@dataclass
class Chore:
    """Something done again and again; a failure is logged and does not end the process.

    Attributes
    ----------
    do, every, next_at
        What, after so many seconds, and when next.
    early
        Seconds that it may be done before its time, with another chore: to wake up costs more than most of them.
    """

    do: Callable[[], object]
    every: float
    next_at: float = 0.0
    early: float = 0.1


class Watch:
    """Feeds the service manager's watchdog while every part of the process gets on, and says it when one does not.

    Parameters
    ----------
    manager
        Whose watchdog.
    progress
        The parts.
    """

    def __init__(self, manager: ServiceManager, progress: Progress) -> None:
        self._manager = manager
        self._progress = progress
        self._told: list[str] = []

    def tick(self) -> None:
        """Give a sign of life, unless a part is stuck."""
        stuck = self._progress.stuck()
        for part in stuck:
            if part not in self._told:
                log.critical("part stuck", part=part)
        self._told = stuck
        if not stuck:
            self._manager.alive()


def run_until_stopped(signals: Signals, chores: Sequence[Chore], reload: Callable[[], object]) -> None:
    """Do chores, and read the settings again whenever that is asked, until the process is asked to stop."""
    troubles = Troubles()
    while not signals.stop_asked():
        if signals.reload_asked():
            _reload(reload)
        for number, chore in enumerate(chores):
            if time.monotonic() >= chore.next_at - chore.early:
                _do(chore, number, troubles)
                chore.next_at = time.monotonic() + chore.every
        signals.rest(max(min(chore.next_at for chore in chores) - time.monotonic(), 0.01))


def _reload(reload: Callable[[], object]) -> None:
    try:
        reload()
    except Exception:  # what runs goes on running
        log.exception("reload failed")


def _do(chore: Chore, number: int, troubles: Troubles) -> None:
    try:
        chore.do()
    except StorageError as error:
        if troubles.begin(error, number):
            log.error("will be tried again", cause=str(error))  # noqa: TRY400 (the cause says it)
    except Exception as error:
        if troubles.begin(error, number):
            log.exception("will be tried again")
    else:
        if troubles.end(number):
            log.info("goes on again", part="chores")


def are_others(load: LoadSettings, present: Settings) -> bool:
    """Tell whether the settings are others than those in force, right or wrong."""
    try:
        return load() != present
    except InvalidSettings:
        return True


def read_again(
    load: LoadSettings, present: Settings, fixed: Collection[str], prepare: Callable[[Settings], bool] = lambda _: False
) -> Settings | None:
    """Return the settings as the file says them now, or None when they are refused whole, or say nothing new.

    Parameters
    ----------
    load
        Reads them.
    present
        Those in force.
    fixed
        Keys, and sections with all of theirs, that cannot change while the process runs.
    prepare
        Reads what files the settings name, and tells whether there is news in them; a NodeError refuses all.
    """
    try:
        settings = load()
    except InvalidSettings as error:
        log.error("reload refused", faults=list(error.faults))  # noqa: TRY400 (the faults say it)
        return None
    changed = changed_keys(present, settings)
    if immovable := [key for key in changed if key in fixed or key.partition(".")[0] in fixed]:
        log.error("reload refused", faults=[f"{key}: only a restart changes it" for key in immovable])
        return None
    try:
        news = prepare(settings)
    except NodeError as error:
        log.error("reload refused", faults=[str(error)])  # noqa: TRY400 (as above)
        return None
    log.info("settings read again", changed=changed)
    return settings if changed or news else None
