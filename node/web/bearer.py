"""Callers that show a secret: a token of this node, a token of an identity provider, or a browser's session."""

import json
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final

import jwt
from sqlalchemy import Connection, Engine
from starlette.requests import HTTPConnection

from config.settings import Http, Scope
from node.errors import NotAuthenticated
from node.patience import Patience
from node.telemetry import logger
from node.web.access import Identity
from storage.database import reading, writing
from storage.errors import StorageError
from storage.tokens import PREFIX, Token, find_session, find_token, is_stale, note_used

log = logger("web")

COOKIE: Final = "mammonode_session"
ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""With a public key all of them: a secret that both sides know would let every node make tokens for every other."""
CLAIM_PREFIX: Final = "mammonode:"
KEYS_LAST: Final = 300.0
"""Seconds that the keys of an identity provider are kept."""
PROVIDER_TIMEOUT: Final = 5.0
FAILS_FOR: Final = 10.0
"""Seconds that a provider which did not answer is not asked again: its silence must not hold up every request."""

Find = Callable[[Connection, str, datetime], Token | None]


def bearer(connection: HTTPConnection) -> str | None:
    """Return what is shown as ``Authorization: Bearer`` (RFC 6750), or None when there is no Authorization.

    Raises
    ------
    NotAuthenticated
        When there is another kind, which nothing here can tell anything by.
    """
    stated = connection.headers.get("authorization")
    if stated is None:
        return None
    kind, _, secret = stated.partition(" ")
    if kind.lower() != "bearer" or not secret.strip():
        raise NotAuthenticated("Authorization: Bearer is the only kind that is taken")
    return secret.strip()


class Uses:
    """When tokens were used last, kept in memory and written down now and then: no request waits for it, or fails."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._news: dict[int, datetime] = {}
        self._lock = threading.Lock()

    def note(self, token: Token, now: datetime) -> None:
        """Note that a token is in use."""
        if is_stale(token, now):
            with self._lock:
                self._news[token.id] = now

    def write_down(self) -> None:
        """Write down what is new; what could not be written down is so the next time."""
        with self._lock:
            news, self._news = self._news, {}
        try:
            if news:
                with writing(self._engine) as database:
                    note_used(database, news)
        except StorageError:
            with self._lock:
                self._news = news | self._news
            raise


class _Secrets:
    """Secrets that stand for tokens of this node; no request waits for long for a database that does not answer."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime], uses: Uses, find: Find) -> None:
        self._engine = engine
        self._clock = clock
        self._uses = uses
        self._find = find
        self._patience = Patience()

    def identity(self, secret: str) -> Identity | None:
        """Return whom a secret stands for, and note that it was used; None for one that opens nothing."""
        now = self._clock()
        token = self._patience.ask(lambda: self._ask(secret, now))
        if token is None:
            return None
        self._uses.note(token, now)
        return identity_of(token)

    def _ask(self, secret: str, now: datetime) -> Token | None:
        with reading(self._engine) as database:
            return self._find(database, secret, now)


class Tokens:
    """Tokens of this node (``mammonode tokens add``)."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime], uses: Uses) -> None:
        self._secrets = _Secrets(engine, clock, uses, find_token)

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return the token's name and scopes; None for what is no token of ours."""
        secret = bearer(connection)
        if secret is None or not secret.startswith(PREFIX):
            return None
        identity = self._secrets.identity(secret)
        if identity is None:
            raise NotAuthenticated("the token is unknown, has ended or was revoked: mammonode tokens")
        return identity


class Unknown:
    """Whoever shows a secret that no other way knows: let in by nothing that stands behind it."""

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Refuse what nobody knew."""
        if bearer(connection) is not None:
            raise NotAuthenticated("the token is of no kind that is known here")
        return None


class Sessions:
    """Browsers that have logged in with a token, no longer ago than a session ``lasts``."""

    def __init__(self, engine: Engine, clock: Callable[[], datetime], uses: Uses, lasts: timedelta) -> None:
        self._secrets = _Secrets(engine, clock, uses, partial(find_session, lasts=lasts))

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return the session's token; None for a session that has ended, so that the browser can log in again."""
        secret = connection.cookies.get(COOKIE)
        return self._secrets.identity(secret) if secret else None


def identity_of(token: Token) -> Identity:
    """Return whom a token stands for."""
    return Identity(token.name, frozenset(Scope(scope) for scope in token.scopes))


class OpenIDConnect:
    """Bearer tokens of an identity provider: JWTs whose issuer, audience, life and signature are checked.

    Parameters
    ----------
    settings
        Issuer, audience, keys, claim.
    monotonic
        Seconds.
    """

    def __init__(self, settings: Http, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._issuer = settings.oidc_issuer
        self._audience = settings.oidc_audience
        self._jwks = settings.oidc_jwks
        self._claim = settings.oidc_claim
        self._monotonic = monotonic
        self._client: jwt.PyJWKClient | None = None
        self._failed_at: float | None = None
        self._lock = threading.Lock()

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return the subject and the scopes of a token that the provider has made for this node."""
        secret = bearer(connection)
        if secret is None:
            return None
        try:
            claims = jwt.decode(
                secret,
                self._key(secret),
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=timedelta(seconds=30),
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, TypeError, ValueError) as error:  # the last two of an algorithm that is not the key's
            raise NotAuthenticated(f"{type(error).__name__}: is the token the issuer's, for this audience?") from error
        return Identity(str(claims["sub"])[:200], frozenset(_scopes(claims.get(self._claim))))

    def _key(self, secret: str) -> Any:
        now = self._monotonic()
        with self._lock:
            if self._failed_at is not None and now - self._failed_at < FAILS_FOR:
                raise NotAuthenticated("the identity provider does not answer: try again soon")
            try:
                if self._client is None:
                    self._client = jwt.PyJWKClient(
                        self._jwks or _discovered(self._issuer), lifespan=KEYS_LAST, timeout=PROVIDER_TIMEOUT
                    )
                key = self._client.get_signing_key_from_jwt(secret).key
            except (OSError, ValueError, KeyError, jwt.PyJWKClientConnectionError) as error:
                self._failed_at = now
                log.error(  # noqa: TRY400 - the cause is in the message
                    "identity provider does not answer",
                    cause=type(error).__name__,
                    check="can this machine reach http.oidc_issuer, is it right?",
                )
                raise NotAuthenticated("the identity provider does not answer: try again soon") from error
            self._failed_at = None
            return key


def _discovered(issuer: str) -> str:
    """Return where an issuer says that its keys are (OpenID Connect Discovery 1.0, 4)."""
    address = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
    with urllib.request.urlopen(address, timeout=PROVIDER_TIMEOUT) as answer:  # noqa: S310 (the settings' own, see there)
        document = json.load(answer)
    if document["issuer"] != issuer:
        raise ValueError("the discovery document is another issuer's")
    where = str(document["jwks_uri"])
    if not where.startswith("https://") and not issuer.startswith("http://"):
        raise ValueError("the keys of an https issuer are not had over https")
    return where


def _scopes(claim: object) -> Iterable[Scope]:
    names = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    known = {f"{CLAIM_PREFIX}{scope}": scope for scope in Scope}
    return [known[name] for name in names if isinstance(name, str) and name in known]
