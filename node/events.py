"""The events of the log: constant names, what each means, and what an operator should check."""

import hashlib
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

FILE = Path(__file__).with_name("events.toml")


@dataclass(frozen=True)
class Event:
    """What can be said of an event before it happens.

    Attributes
    ----------
    name
        As it stands in the log.
    phase
        Of an exam's way, or of the process's life, in which it comes.
    means
        What has happened.
    check
        What to look at when it comes as a warning or worse; '' for one that does not.
    """

    name: str
    phase: str
    means: str
    check: str = ""

    @property
    def message_id(self) -> str:
        """Its number in the journal (systemd.journal-fields(7)), always the same: 128 bits of SHA-256."""
        return hashlib.sha256(f"mammonode {self.name}".encode()).hexdigest()[:32]


@cache
def events() -> Mapping[str, Event]:
    """Return all events by name."""
    with FILE.open("rb") as file:
        return MappingProxyType({name: Event(name, **told) for name, told in tomllib.load(file).items()})


def as_markdown() -> Iterator[str]:
    """Yield the lines of docs/events.md."""
    yield "# Events"
    yield ""
    yield "Every line of the log has one of these names, always the same. Printed by `mammonode events --markdown`."
    yield ""
    yield "| event | phase | means | when it is a warning or worse, check |"
    yield "|---|---|---|---|"
    for event in events().values():
        yield f"| `{event.name}` | {event.phase} | {event.means} | {event.check} |"


def as_catalog() -> Iterator[str]:
    """Yield the lines of a message catalog, from which ``journalctl -x`` explains our events."""
    for event in events().values():
        yield f"-- {event.message_id}"
        yield f"Subject: {event.name}"
        yield "Defined-By: Mammonode"
        yield ""
        yield event.means
        if event.check:
            yield f"Check: {event.check}"
        yield ""
