"""How much callers may ask of the door: requests at once, the size of bodies, requests a second, guesses of secrets."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from node.errors import (
    BadRequest,
    BodyStalled,
    BodyTooLarge,
    HeadTooLarge,
    NotAuthenticated,
    Overloaded,
    TooManyRequests,
)
from node.web.access import caller
from node.web.connection import LARGEST_HEAD, has_too_large_a_head

BURST: Final = 5.0
"""Seconds over which the rate is averaged."""
GUESSES: Final = 20
"""Wrong credentials from one address before it has to wait."""
GUESSES_A_SECOND: Final = 0.2
REMEMBERED: Final = 10_000
"""Callers whose rate is known at once; of more, those that were heard longest ago begin anew."""


@dataclass
class Bucket:
    """What a caller may still do: fills at a rate, up to its size."""

    left: float
    at: float


class Buckets:
    """A bucket for each caller.

    Parameters
    ----------
    rate
        How much a second.
    size
        How much at once.
    monotonic
        Seconds.
    """

    def __init__(self, rate: float, size: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._size = max(size, 1)
        self._monotonic = monotonic
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def left(self, who: str) -> float:
        """Return how much a caller may do now."""
        now = self._monotonic()
        bucket = self._buckets.setdefault(who, Bucket(self._size, now))
        bucket.left, bucket.at = min(self._size, bucket.left + (now - bucket.at) * self._rate), now
        self._buckets.move_to_end(who)
        while len(self._buckets) > REMEMBERED:
            self._buckets.popitem(last=False)
        return bucket.left

    def take(self, who: str) -> bool:
        """Let a caller do one thing; False when it has to wait."""
        if self.left(who) < 1:
            return False
        self._buckets[who].left -= 1
        return True


class Limits:
    """ASGI middleware that refuses what is too much: heads, bodies, what is waited for them, and requests at once.

    Parameters
    ----------
    app
        What is inside.
    requests
        How many at once.
    body
        Bytes of one body.
    silence
        Seconds in which some of it must come.
    """

    def __init__(self, app: ASGIApp, requests: int, body: int, silence: float) -> None:
        self._app = app
        self._requests = requests
        self._body = body
        self._silence = silence
        self._now = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or go on."""
        if has_too_large_a_head(scope):
            raise HeadTooLarge(f"more than {LARGEST_HEAD} bytes")
        if scope.get("http_version") == "1.1" and len(HTTPConnection(scope).headers.getlist("host")) != 1:
            raise BadRequest("it has no Host, or several")  # RFC 9112 3.2
        if scope["type"] != "http" or scope["path"] == "/livez":
            await self._app(scope, receive, send)
            return
        if self._now >= self._requests:
            raise Overloaded(f"{self._requests} at once")
        self._now += 1
        try:
            await self._app(scope, self._counted(scope, receive), send)
        finally:
            self._now -= 1

    def _counted(self, scope: Scope, receive: Receive) -> Receive:
        stated = HTTPConnection(scope).headers.get("content-length", "0")
        if not stated.isascii() or not stated.isdigit():
            raise BadRequest("Content-Length is no number")
        if int(stated) > self._body:
            raise BodyTooLarge(f"{int(stated)} of at most {self._body} bytes")
        size, is_whole = 0, False

        async def counted() -> Message:
            nonlocal size, is_whole
            try:
                async with asyncio.timeout(None if is_whole else self._silence):
                    message = await receive()
            except TimeoutError:
                raise BodyStalled(f"after {size} bytes") from None
            is_whole = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self._body:
                raise BodyTooLarge(f"more than {self._body} bytes")
            return message

        return counted


class Rate:
    """ASGI middleware, inside that which knows the callers: so many requests a second for each of them.

    Parameters
    ----------
    app
        What is inside.
    buckets
        What each may do.
    """

    def __init__(self, app: ASGIApp, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or go on."""
        if scope["type"] in {"http", "websocket"} and scope["path"] != "/livez":
            connection = HTTPConnection(scope)
            identity = caller(connection)
            if not self._buckets.take(identity.name if identity else address(connection)):
                raise TooManyRequests
        await self._app(scope, receive, send)


class Guesses:
    """ASGI middleware, outside that which knows the callers: whoever shows wrong credentials too often has to wait.

    Parameters
    ----------
    app
        What is inside.
    buckets
        What each address may do.
    """

    def __init__(self, app: ASGIApp, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or go on."""
        if scope["type"] not in {"http", "websocket"} or scope["path"] == "/livez":
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        # Who shows nothing guesses nothing: a browser that is not logged in is shown where to do so.
        shows = "authorization" in connection.headers or (scope["path"], scope.get("method")) == ("/login", "POST")
        if shows and self._buckets.left(address(connection)) < 1:
            raise TooManyRequests("too many wrong credentials")

        async def watched(message: Message) -> None:
            if shows and message["type"] == "http.response.start" and message["status"] == HTTPStatus.UNAUTHORIZED:
                self._buckets.take(address(connection))
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except NotAuthenticated:
            if shows:
                self._buckets.take(address(connection))
            raise


def address(connection: HTTPConnection) -> str:
    """Return a client's network address."""
    return connection.client.host if connection.client else ""
