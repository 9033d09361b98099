"""Upload: DICOM files that are dropped into the browser go through the same intake as everything else."""

import os
import tempfile
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from config.settings import Scope
from node.intake import Receipt
from node.records import Origin
from node.web.access import Guarded, caller
from node.web.limits import address
from node.web.pages.house import House
from node.web.rendering import HEADERS, render

CALLING_AE: Final = "UPLOAD"
"""Stands where an AE title would: a browser has none."""


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of uploading."""

    def page(request: Request) -> Response:
        return render(request, "upload.html")

    async def upload(request: Request) -> Response:
        """Take one file as the body of a request: no part of it is ever kept in memory or in another folder."""
        await run_in_threadpool(house.receiver.require_space)
        handle, name = tempfile.mkstemp(dir=house.store.incoming)
        path = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                async for chunk in request.stream():
                    await run_in_threadpool(file.write, chunk)
            identity = caller(request)
            origin = Origin(
                CALLING_AE, identity.name if identity else "", address(request), request.scope["request_id"]
            )
            receipt = await run_in_threadpool(house.receiver.receive, path, None, origin)
        finally:
            await run_in_threadpool(path.unlink, missing_ok=True)
        return JSONResponse(_told(receipt), HTTPStatus.OK, HEADERS)

    return (
        Guarded("/upload", page, needs=Scope.STORE),
        Guarded("/upload", upload, needs=Scope.STORE, methods=["POST"]),
    )


def _told(receipt: Receipt) -> dict[str, str | None]:
    return {"outcome": receipt.outcome.value, "instance": receipt.instance_uid, "exam": receipt.exam_uid}
