"""Who calls, and what they may do: every route names the scope that it needs, and asks for it itself."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from config.settings import Scope as Scope  # noqa: PLC0414 (routes get it from here)
from node.errors import BadRequest, NotAllowed, NotAuthenticated

EVERYTHING: Final = frozenset(Scope)
SHOWN_EXAM: Final = "shown exam"
"""Where a route says in its ASGI scope whose patient it shows: an address may name an exam by its beginning alone."""


@dataclass(frozen=True)
class Identity:
    """A caller that is known.

    Attributes
    ----------
    name
        For the log and for what it changes: a token's name, a certificate's subject, an issuer's subject.
    scopes
        What it may do.
    """

    name: str
    scopes: frozenset[Scope]


class Authentication(Protocol):
    """A way to tell who calls."""

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return who calls, or None when this way finds no credentials of its kind.

        Raises
        ------
        NotAuthenticated
            When it finds some, and they are not valid.
        """


class ThisMachine:
    """Whoever works on this machine itself may do everything.

    A request that a proxy has forwarded, or that a page of another site has caused under another name of this machine
    (DNS rebinding), is none of its own.
    """

    def identify(self, connection: HTTPConnection) -> Identity | None:
        """Return the local user when the request comes from a loopback address, to one, and by no proxy."""
        headers = connection.headers
        client = connection.client.host if connection.client else ""
        if not _is_loopback(client) or "forwarded" in headers or "x-forwarded-for" in headers:
            return None
        name = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        return Identity("this machine", EVERYTHING) if name == "localhost" or _is_loopback(name.strip("[]")) else None


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class Authenticated:
    """ASGI middleware that puts who calls beside the request; None is a caller who said nothing."""

    def __init__(self, app: ASGIApp, ways: Collection[Authentication]) -> None:
        self._app = app
        self._ways = tuple(ways)

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Find out who calls, and go on."""
        if scope["type"] in {"http", "websocket"}:
            scope["identify"] = self._identify
            scope["identity"] = await run_in_threadpool(self._identify, HTTPConnection(scope))
        await self._app(scope, receive, send)

    def _identify(self, connection: HTTPConnection) -> Identity | None:
        return next((found for way in self._ways if (found := way.identify(connection))), None)


def caller(connection: HTTPConnection) -> Identity | None:
    """Return who makes a request."""
    identity: Identity | None = connection.scope.get("identity")
    return identity


def require(connection: Connection, needs: Scope | None) -> None:
    """Let a request pass that may do what it wants; None needs nothing.

    Raises
    ------
    NotAuthenticated, NotAllowed
        When nobody, or the wrong one, asks.
    """
    identity: Identity | None = connection.get("identity")
    if needs is None:
        return
    if identity is None:
        raise NotAuthenticated
    if needs not in identity.scopes:
        raise NotAllowed(needs)


def require_still(connection: HTTPConnection, needs: Scope) -> None:
    """Let a connection go on whose credentials still are what they were when it was opened.

    Raises
    ------
    NotAuthenticated, NotAllowed
        When they have ended since, or were revoked.
    """
    connection.scope["identity"] = connection.scope["identify"](connection)
    require(connection.scope, needs)


class Guarded(Route):
    """A route that needs a scope.

    Parameters
    ----------
    path, endpoint, methods
        As of Starlette's `Route`. An endpoint that is no coroutine runs in a thread.
    needs
        The scope, or None for what is open to everybody.
    """

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        needs: Scope | None,
        methods: Collection[str] = ("GET",),
    ) -> None:
        super().__init__(path, endpoint, methods=methods)
        self.needs = needs

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer a request that may come in."""
        scope["route_path"] = self.path
        if not self.methods or scope["method"] in self.methods:
            require(scope, self.needs)
        if "\0" in scope["path"]:  # PostgreSQL takes it in no text
            raise BadRequest("a zero byte stands in the address")
        await super().handle(scope, receive, send)


class GuardedSocket(WebSocketRoute):
    """A WebSocket that needs a scope; see `Guarded`."""

    def __init__(self, path: str, endpoint: Callable[..., Any], *, needs: Scope | None) -> None:
        super().__init__(path, endpoint)
        self.needs = needs

    async def handle(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Answer a request that may come in."""
        scope["route_path"] = self.path
        require(scope, self.needs)
        await super().handle(scope, receive, send)


def unguarded(routes: Collection[BaseRoute]) -> list[BaseRoute]:
    """Return the routes that do not say what they need: there must be none."""
    found = list[BaseRoute]()
    for route in routes:
        match route:
            case Guarded() | GuardedSocket():
                pass
            case Mount():
                found += unguarded(route.routes) if route.routes else [route]
            case _:
                found.append(route)
    return found
