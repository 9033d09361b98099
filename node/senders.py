"""Who calls, kept in memory and written down now and then: no image waits for it, and a crash costs its last seconds."""

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from threading import Lock

from sqlalchemy import Engine

from node.intake import Announced, Receipt, Receiver
from node.records import Origin
from node.telemetry import logger
from storage.database import writing
from storage.errors import StorageError
from storage.senders import Context, Key, News, add_news, forget

log = logger("senders")

MOST_NEW = 500
"""Senders between two writings; of more, those that come later are not told of."""


class Senders:
    """Notes what senders do.

    Parameters
    ----------
    engine
        Where it is written down.
    clock
        Returns the present time, aware.
    """

    def __init__(self, engine: Engine, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._news: dict[Key, News] = {}
        self._unwritten: dict[Key, News] = {}
        self._lock = Lock()

    def associated(self, origin: Origin, contexts: Sequence[Context]) -> None:
        """Note an association that was accepted, and what became of each context that was proposed."""
        with self._lock:
            if news := self._of(origin):
                news.tally.associations += 1
                news.contexts = tuple(contexts)

    def rejected(self, origin: Origin, reason: str) -> None:
        """Note an association that was rejected."""
        with self._lock:
            if news := self._of(origin):
                news.tally.associations_refused += 1
                news.tally.refuse(reason)
                news.refusal, news.refused_at = reason, news.seen_at

    def stored(self, origin: Origin) -> None:
        """Note an instance that was received."""
        with self._lock:
            if news := self._of(origin):
                news.tally.images += 1

    def refused(self, origin: Origin, reason: str) -> None:
        """Note an instance that was refused."""
        with self._lock:
            if news := self._of(origin):
                news.tally.images_refused += 1
                news.tally.refuse(reason)
                news.refusal, news.refused_at = reason, news.seen_at

    def write_down(self) -> int:
        """Write down what is new, and return of how many senders; what could not be written down is so the next time."""
        news, self._unwritten = self._unwritten, {}
        if not news:
            with self._lock:
                news, self._news = self._news, {}
        if news:
            try:
                with writing(self._engine) as connection:
                    add_news(connection, news)
            except StorageError:
                self._unwritten = news
                raise
        return len(news)

    def tidy(self) -> None:
        """Forget what is long ago, and senders beyond number."""
        with writing(self._engine) as connection:
            if gone := forget(connection, self._clock()):
                log.warning("senders forgotten", number=gone, check="does somebody call under many AE titles?")

    def _of(self, origin: Origin) -> News | None:
        now, key = self._clock(), (origin.calling_ae, origin.address)
        if key not in self._news and len(self._news) >= MOST_NEW:
            return None
        news = self._news.setdefault(key, News(now))
        news.seen_at = now
        return news


class Noted:
    """A receiver whose outcomes are noted; the same for every door.

    Parameters
    ----------
    inner
        Receives.
    senders
        Notes.
    """

    def __init__(self, inner: Receiver, senders: Senders) -> None:
        self._inner = inner
        self._senders = senders

    def receive(self, temp: Path, announced: Announced | None, origin: Origin) -> Receipt:
        """Take a received file, as the inner receiver does."""
        try:
            receipt = self._inner.receive(temp, announced, origin)
        except Exception as error:
            self._senders.refused(origin, " ".join((type(error).__doc__ or type(error).__name__).split()))
            raise
        self._senders.stored(origin)
        return receipt

    def require_space(self) -> None:
        """Raise `storage.errors.DiskLow` when the disk is too full to receive anything."""
        self._inner.require_space()
