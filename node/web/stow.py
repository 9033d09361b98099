"""STOW-RS: storing instances (PS3.18 10.5); every one goes through the intake that C-STORE goes through."""

import asyncio
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from config.settings import Http
from node.errors import BadRequest, BodyStalled, BodyTooLarge, UnsupportedMediaType
from node.intake import Receiver
from node.records import Origin
from node.telemetry import logger
from node.web.access import Guarded, Scope, caller
from node.web.addresses import base, uids
from node.web.connection import Rest, rest_of
from node.web.dicom_json import json_bytes, xml_bytes
from node.web.media import DICOM_JSON, DICOM_XML, RELATED, chosen, parse_media_types
from node.web.multipart import CHUNK, Reader
from node.web.problems import RETRY_AFTER
from node.web.receiving import Receiving

log = logger("web")

Buffer = bytes | bytearray
HANDED_ON: Final = 3 << 17
"""Bytes that are handed on at once: of 1 MiB thread and event loop wait longer for each other (measured)."""
PARSED_AT_ONCE: Final = 2
"""Requests whose JSON documents are parsed in memory at once; one alone would let all wait for a long one."""


class Store:
    """Stores what is sent.

    Parameters
    ----------
    intake
        Takes each instance.
    incoming
        The store's folder for what is being received.
    settings
        How much one request may bring.
    """

    def __init__(self, intake: Receiver, incoming: Path, settings: Http) -> None:
        self._intake = intake
        self._incoming = incoming
        self._threads = ThreadPoolExecutor(settings.maximum_requests, "stow")
        self._parsed = asyncio.Semaphore(PARSED_AT_ONCE)
        self._maximum_parts = settings.maximum_parts
        self._maximum_body = int(settings.maximum_body_mb * 1e6)

    def routes(self) -> list[BaseRoute]:
        """Return the resources."""
        return [
            Guarded(path, self.store, needs=Scope.STORE, methods=("POST",)) for path in ("/studies", "/studies/{study}")
        ]

    async def store(self, request: Request) -> Response:
        """Receive a request's instances as they come; each is stored, or not, by itself."""
        study_uid = uids(request).get("study")
        form = chosen(request, (DICOM_JSON, "application/json", DICOM_XML))
        await run_in_threadpool(self._intake.require_space)
        receiving = Receiving(self._intake, self._incoming, origin(request), study_uid, self._maximum_parts)
        try:
            await self._receive(request, receiving)
        finally:
            await run_in_threadpool(receiving.close)
        outcomes = receiving.outcomes
        document = outcomes.document(base(request), study_uid)
        log.info("instances stored over HTTP", stored=len(outcomes.stored), failed=len(outcomes.failed))
        body = xml_bytes(document) if form.name == DICOM_XML else json_bytes(document)
        headers = {"Retry-After": str(RETRY_AFTER)} if outcomes.status == outcomes.status.SERVICE_UNAVAILABLE else {}
        return Response(body, outcomes.status, headers, form.name)

    async def _receive(self, request: Request, receiving: Receiving) -> None:
        feed, end = self._feeding(request, receiving)
        inflated = _inflating(request.headers.get("content-encoding", "identity"), self._maximum_body)
        pending: list[bytes] = []
        size = 0
        rest: Rest | None = None
        beside = Beside(self._threads)
        try:
            async for chunk in request.stream():
                pending.append(chunk)
                size += len(chunk)
                if rest := rest_of(request):
                    break
                if size >= HANDED_ON:
                    await beside.do(_feed, feed, inflated, pending)
                    pending, size = [], 0
            await beside.do(_feed, feed, inflated, pending)
            if rest:
                await beside.do(_feed, feed, inflated, rest)
            await beside.do(end)
            await beside.done()
            if receiving.has_documents:
                async with self._parsed:
                    await run_in_threadpool(receiving.finish)
        except (BadRequest, BodyStalled, UnsupportedMediaType) as error:
            if not receiving.outcomes.stored:
                raise
            # What came before is stored for good: the sender must learn of it.
            receiving.broken(error)
        finally:
            if rest:
                rest.stop()
            await beside.settled()
            if rest:
                rest.close()

    def _feeding(self, request: Request, receiving: Receiving) -> tuple[Callable[[Buffer], None], Callable[[], None]]:
        """Return what takes the body, and what knows that it has ended."""
        types = parse_media_types(request.headers.get("content-type", ""))
        if len(types) != 1:
            raise UnsupportedMediaType("there is none, or more than one")
        if types[0].name != RELATED:
            part = receiving.begin(types[0])
            return lambda data: part.write(memoryview(data)), part.end
        reader = Reader(types[0].parameters.get("boundary", ""), receiving.part, self._maximum_parts)

        def end() -> None:
            if not reader.complete:
                raise BadRequest("the multipart body has no end")

        return reader.feed, end


def origin(request: Request) -> Origin:
    """Return who sends: a caller over HTTP has no AE title, its name stands for it."""
    identity = caller(request)
    return Origin(
        calling_ae=identity.name if identity else "",
        called_ae="",
        address=request.client.host if request.client else "",
        association=request.scope.get("request_id", ""),
    )


Inflating = Callable[[Buffer], Iterator[Buffer]]


def _feed(feed: Callable[[Buffer], None], inflated: Inflating, chunks: Iterable[Buffer]) -> None:
    for chunk in chunks:
        for piece in inflated(chunk):
            feed(piece)


class Beside:
    """Does one thing after the other in a thread, while the next is being received.

    Parameters
    ----------
    threads
        Do it. Measured: anyio's, which everything else here takes, cost a twentieth of the processor's time.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._doing: asyncio.Future[None] | None = None

    async def do(self, function: Callable[..., None], *arguments: object) -> None:
        """Begin something, once what was begun before is done; what that raised is raised here."""
        await self.done()
        run = partial(copy_context().run, function, *arguments)
        self._doing = asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def done(self) -> None:
        """Wait for what was begun; what it raised is raised here."""
        if doing := await self._waited():
            doing.result()

    async def settled(self) -> None:
        """Wait for what was begun, whatever comes of it: a thread that still writes must not lose its file."""
        while doing := self._doing:
            with suppress(asyncio.CancelledError):  # once more, while the server ends
                await self._waited()
                doing.exception()

    async def _waited(self) -> asyncio.Future[None] | None:
        doing = self._doing
        if doing:
            await asyncio.wait([doing])  # a caller who is cancelled here still has it to settle
            self._doing = None
        return doing


def _inflating(encoding: str, largest: int) -> Inflating:
    """Return what undoes a Content-Encoding, piece by piece and within bounds."""
    match encoding.strip().lower():
        case "identity" | "":
            return lambda data: iter((data,) if data else ())
        case "gzip" | "x-gzip":
            decompressor = zlib.decompressobj(16 + zlib.MAX_WBITS)
        case "deflate":
            decompressor = zlib.decompressobj()
        case _:
            raise UnsupportedMediaType("the Content-Encoding is not gzip")
    size = 0

    def inflate(data: Buffer) -> Iterator[bytes]:
        nonlocal size
        while data:
            try:
                piece = decompressor.decompress(data, CHUNK)
            except zlib.error as error:
                raise BadRequest("the body is not compressed as it says") from error
            data = decompressor.unconsumed_tail
            size += len(piece)
            if size > largest:
                raise BodyTooLarge(f"more than {largest} bytes when it is inflated")
            if piece:
                yield piece
            elif decompressor.eof:
                return

    return inflate
