"""Tokens that callers over HTTP show, and the browser sessions that were opened with one; only digests are kept."""

import hashlib
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from storage.errors import NoSuchToken, TokenExists
from storage.tables import sessions, tokens

PREFIX: Final = "mmn_"
"""Begins every token, so that one in a log or a repository is known for what it is."""
BYTES: Final = 32
USED_EVERY: Final = timedelta(minutes=5)
"""How exactly it is known when a token was used last; more exactly would cost a commit for every request."""


@dataclass(frozen=True)
class Token:
    """A token, without its secret.

    Attributes
    ----------
    id
        Primary key.
    name
        For people and logs.
    scopes
        What it allows.
    created_at, expires_at, revoked_at, used_at
        Its life; None is never.
    """

    id: int
    name: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    used_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Tell whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def add_token(
    connection: Connection, name: str, scopes: Collection[str], now: datetime, expires_at: datetime | None
) -> str:
    """Make a token and return its secret, which nobody can tell again.

    Raises
    ------
    TokenExists
        When one of this name is valid. One that is not gives its name away.
    """
    for token in list_tokens(connection):
        if token.name == name and token.is_valid(now):
            raise TokenExists(name)
        if token.name == name:
            gone = {"name": f"{name} (until {token.created_at:%Y-%m-%dT%H:%M:%S.%f})", "revoked_at": now}
            connection.execute(update(tokens).where(tokens.c.id == token.id).values(gone))
    secret = PREFIX + secrets.token_urlsafe(BYTES)
    row = {"name": name, "digest": _digest(secret), "scopes": list(scopes), "created_at": now, "expires_at": expires_at}
    connection.execute(insert(tokens).values(row))
    return secret


def revoke_token(connection: Connection, name: str, now: datetime) -> None:
    """Let a token, and the sessions that were opened with it, open nothing any more.

    Raises
    ------
    NoSuchToken
        When there is none of this name that is not revoked already.
    """
    here = (tokens.c.name == name) & tokens.c.revoked_at.is_(None)
    number = connection.execute(select(tokens.c.id).where(here)).scalar_one_or_none()
    if number is None:
        raise NoSuchToken(name)
    connection.execute(delete(sessions).where(sessions.c.token_id == number))
    connection.execute(update(tokens).where(tokens.c.id == number).values(revoked_at=now))


def list_tokens(connection: Connection) -> list[Token]:
    """Return all tokens, newest first."""
    return [_token(row) for row in connection.execute(select(tokens).order_by(tokens.c.id.desc())).mappings()]


def any_token(connection: Connection, now: datetime) -> bool:
    """Tell whether one is valid."""
    return any(token.is_valid(now) for token in list_tokens(connection))


def find_token(connection: Connection, secret: str, now: datetime) -> Token | None:
    """Return the valid token of a secret."""
    row = connection.execute(select(tokens).where(tokens.c.digest == _digest(secret))).mappings().one_or_none()
    token = _token(row) if row is not None else None
    return token if token and token.is_valid(now) else None


def note_used(connection: Connection, uses: Mapping[int, datetime]) -> None:
    """Note when tokens, by their primary key, were used last."""
    for number, at in sorted(uses.items()):
        connection.execute(update(tokens).where(tokens.c.id == number).values(used_at=at))


def is_stale(token: Token, now: datetime) -> bool:
    """Tell whether its last use is worth noting again."""
    return token.used_at is None or now - token.used_at > USED_EVERY


def open_session(connection: Connection, token: Token, now: datetime, lasts: timedelta) -> str:
    """Open a session with a token and return its secret; sessions that have ended are forgotten."""
    connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
    secret = secrets.token_urlsafe(BYTES)
    ends = now + lasts if token.expires_at is None else min(now + lasts, token.expires_at)
    row = {"digest": _digest(secret), "token_id": token.id, "expires_at": ends}
    connection.execute(insert(sessions).values(row))
    return secret


def find_session(connection: Connection, secret: str, now: datetime, lasts: timedelta) -> Token | None:
    """Return the valid token of a session that has not ended.

    One with longer to go than a session ``lasts`` was opened before the clock was put back.
    """
    query = (
        select(tokens)
        .join(sessions, sessions.c.token_id == tokens.c.id)
        .where(sessions.c.digest == _digest(secret), sessions.c.expires_at > now, sessions.c.expires_at <= now + lasts)
    )
    row = connection.execute(query).mappings().one_or_none()
    token = _token(row) if row is not None else None
    return token if token and token.is_valid(now) else None


def close_session(connection: Connection, secret: str) -> None:
    """End a session."""
    connection.execute(delete(sessions).where(sessions.c.digest == _digest(secret)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def _token(row: RowMapping) -> Token:
    names = ("id", "name", "created_at", "expires_at", "revoked_at", "used_at")
    return Token(scopes=tuple(row["scopes"]), **{name: row[name] for name in names})
