"""Who has called: what they proposed, what was accepted, what was refused and why, how many images a day."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from storage.database import insert_new
from storage.tables import sender_days, senders

MOST_SENDERS: Final = 1000
"""Senders that are remembered: whoever may reach the door can call himself anything."""
MOST_REASONS: Final = 20
DAYS: Final = timedelta(days=400)

Key = tuple[str, str]
"""Calling AE title, address."""


@dataclass
class Tally:
    """What one sender did on one day, or since it was written down last."""

    associations: int = 0
    associations_refused: int = 0
    images: int = 0
    images_refused: int = 0
    reasons: dict[str, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> None:
        """Count a reason; of too many kinds, the rest together."""
        known = reason in self.reasons or len(self.reasons) < MOST_REASONS
        name = reason if known else "other reasons"
        self.reasons[name] = self.reasons.get(name, 0) + 1


@dataclass(frozen=True)
class Context:
    """A presentation context that was proposed: class, transfer syntaxes, and the accepted one, or None."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]
    accepted: str | None


@dataclass
class News:
    """What is new of one sender.

    Attributes
    ----------
    seen_at
        When it was heard last.
    tally
        What to add to its day.
    contexts
        What it proposed last; None when nothing new.
    refusal, refused_at
        Why it was refused last, and when.
    """

    seen_at: datetime
    tally: Tally = field(default_factory=Tally)
    contexts: tuple[Context, ...] | None = None
    refusal: str | None = None
    refused_at: datetime | None = None


@dataclass(frozen=True)
class Sender:
    """A sender, and its days, the newest first."""

    calling_ae: str
    address: str
    first_seen: datetime
    last_seen: datetime
    contexts: tuple[Context, ...]
    refusal: str | None
    refused_at: datetime | None
    days: tuple[tuple[str, Tally], ...]


def add_news(connection: Connection, news: Mapping[Key, News]) -> None:
    """Write down what is new of senders."""
    for (calling_ae, address), told in sorted(news.items()):
        key = {"calling_ae": calling_ae, "address": address}
        fresh = {"first_seen": told.seen_at, "last_seen": told.seen_at, "contexts": []}
        insert_new(connection, senders, key | fresh)
        values: dict[str, Any] = {"last_seen": told.seen_at}
        if told.contexts is not None:
            values["contexts"] = [[c.abstract_syntax, list(c.transfer_syntaxes), c.accepted] for c in told.contexts]
        if told.refusal is not None:
            values |= {"refusal": told.refusal, "refused_at": told.refused_at}
        connection.execute(update(senders).where(_is(senders, key)).values(values))
        _add(connection, key | {"day": f"{told.seen_at.astimezone():%Y-%m-%d}"}, told.tally)


def _add(connection: Connection, key: Mapping[str, str], tally: Tally) -> None:
    counts = {
        name: getattr(tally, name) for name in ("associations", "associations_refused", "images", "images_refused")
    }
    if insert_new(connection, sender_days, {**key, **counts, "reasons": tally.reasons}):
        return
    here = _is(sender_days, key)
    merged = Tally(reasons=dict(connection.execute(select(sender_days.c.reasons).where(here)).scalar_one()))
    for reason, number in tally.reasons.items():
        for _ in range(number):
            merged.refuse(reason)
    added = {name: sender_days.c[name] + number for name, number in counts.items()}
    connection.execute(update(sender_days).where(here).values({**added, "reasons": merged.reasons}))


def forget(connection: Connection, now: datetime) -> int:
    """Forget days of long ago, and of too many senders those that were heard longest ago; return how many senders."""
    connection.execute(delete(sender_days).where(sender_days.c.day < f"{now - DAYS:%Y-%m-%d}"))
    count: int = connection.execute(select(func.count()).select_from(senders)).scalar_one()
    rows = connection.execute(
        select(senders.c.calling_ae, senders.c.address)
        .order_by(senders.c.last_seen)
        .limit(max(count - MOST_SENDERS, 0))
    ).all()
    for calling_ae, address in rows:
        key = {"calling_ae": calling_ae, "address": address}
        for table in (sender_days, senders):
            connection.execute(delete(table).where(_is(table, key)))
    return len(rows)


def list_senders(connection: Connection, since: str) -> list[Sender]:
    """Return all senders, the last heard first, with their days since one (YYYY-MM-DD)."""
    days: dict[Key, list[tuple[str, Tally]]] = {}
    query = select(sender_days).where(sender_days.c.day >= since).order_by(sender_days.c.day.desc())
    for row in connection.execute(query):
        tally = Tally(row.associations, row.associations_refused, row.images, row.images_refused, dict(row.reasons))
        days.setdefault((row.calling_ae, row.address), []).append((row.day, tally))
    return [
        Sender(
            row.calling_ae,
            row.address,
            row.first_seen,
            row.last_seen,
            _contexts(row.contexts),
            row.refusal,
            row.refused_at,
            tuple(days.get((row.calling_ae, row.address), ())),
        )
        for row in connection.execute(select(senders).order_by(senders.c.last_seen.desc()))
    ]


def _contexts(kept: Sequence[Any]) -> tuple[Context, ...]:
    return tuple(Context(abstract, tuple(syntaxes), accepted) for abstract, syntaxes, accepted in kept)


def _is(table: Table, key: Mapping[str, str]) -> ColumnElement[bool]:
    here = [table.c[name] == value for name, value in key.items()]
    condition: ColumnElement[bool] = here[0]
    for further in here[1:]:
        condition &= further
    return condition
