"""How long certificates, revocation lists and tokens are still good: told a month before they end."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import Engine

from config.settings import Settings
from node.errors import NodeError
from node.telemetry import logger
from node.tls import Dated, Transport, certificates
from storage.database import reading
from storage.tokens import list_tokens

log = logger("validity")

NOTICE = timedelta(days=30)
"""Certificates of a hospital's authority take weeks to have."""
LISTS_NOTICE = timedelta(days=1)
"""Revocation lists live for days."""
AGAIN = timedelta(days=1)
"""What is known is told again."""


def is_ending(dated: Dated, now: datetime) -> bool:
    """Tell whether somebody should see to it."""
    return dated.ends - now < (LISTS_NOTICE if dated.what == "tls.revoked" else NOTICE)


def files_of(settings: Settings) -> Iterator[Dated]:
    """Yield the certificates that the settings name, those of [tls] excepted; a file that cannot be read is told elsewhere."""
    named = [("http.certificate", settings.http.certificate), ("http.client_ca", settings.http.client_ca)]
    named += [("audit.certificate", settings.audit.certificate), ("audit.ca", settings.audit.ca)]
    services = [
        (f"destinations.web.certificate of {destination.name}", service)
        for destination in settings.destinations
        for service in (destination.web, destination.query)
    ]
    services += [(f"worklist.sources.certificate of {source.url}", source) for source in settings.worklist.sources]
    named += [(key, str(service.certificate)) for key, service in services if service and service.certificate]
    for key, path in named:
        try:
            yield from certificates(path, key)
        except NodeError:
            continue


def tokens_of(engine: Engine, now: datetime) -> list[Dated]:
    """Return the tokens that are valid and end; one that has ended opens nothing, and is no news."""
    with reading(engine) as connection:
        valid = [token for token in list_tokens(connection) if token.is_valid(now)]
    return [Dated("token", token.name, token.expires_at) for token in valid if token.expires_at]


class Validity:
    """Looks at everything that ends.

    Parameters
    ----------
    settings, transport
        Return those in force.
    engine
        Of the database with the tokens.
    clock
        Returns the present time, aware.
    """

    def __init__(
        self,
        settings: Callable[[], Settings],
        transport: Callable[[], Transport],
        engine: Engine,
        clock: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._engine = engine
        self._clock = clock
        self._told: dict[tuple[str, str, bool], datetime] = {}

    def all(self) -> list[Dated]:
        """Return what ends, the next first; of a chain in one file each certificate."""
        tokens = tokens_of(self._engine, self._clock())
        transport = self._transport()
        found: Iterable[Dated] = (
            *transport.files,
            *files_of(self._settings()),
            *transport.seen.all(),
            *tokens,
        )
        return sorted(found, key=lambda dated: dated.ends)

    def tick(self) -> None:
        """Tell what ends soon, and what has ended: at once, and then every day."""
        now = self._clock()
        for dated in self.all():
            ended = dated.ends <= now
            if not (ended or is_ending(dated, now)) or self._was_told((dated.what, dated.subject, ended), now):
                continue
            told = {"what": dated.what, "subject": dated.subject, "ends": dated.ends.isoformat()}
            if ended:
                log.error("no longer valid", **told)
            else:
                log.warning("ends soon", **told, days=(dated.ends - now).days)

    def _was_told(self, what: tuple[str, str, bool], now: datetime) -> bool:
        last = self._told.get(what)
        if last is not None and timedelta(0) <= now - last < AGAIN:
            return True
        self._told[what] = now
        return False
