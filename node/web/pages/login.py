"""Browsers log in with a token, and out again; the files that pages are made of."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from http import HTTPStatus

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from config.settings import Scope
from node.errors import BodyStalled, NoSuchResource
from node.web.access import Guarded
from node.web.bearer import COOKIE, identity_of
from node.web.pages.house import House
from node.web.rendering import HEADERS, MEDIA_TYPES, STATIC, render
from storage.database import reading, writing
from storage.tokens import Token, close_session, find_token, open_session

LONGEST_FORM = 4096
FORM_WITHIN = 10.0
"""Seconds: nobody has said who he is yet, and a byte now and then would keep a place of those that are there for requests."""


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of logging in and out."""

    def form(request: Request) -> Response:
        return render(request, "login.html", next=_safe(request.query_params.get("next", "")), failed=False)

    async def log_in(request: Request) -> Response:
        try:
            async with asyncio.timeout(FORM_WITHIN):
                given = await request.form(max_files=0, max_fields=4, max_part_size=LONGEST_FORM)
        except TimeoutError:
            raise BodyStalled("the form to log in") from None
        secret, target = str(given.get("token", "")).strip(), _safe(str(given.get("next", "")))
        token, session = await run_in_threadpool(_session, house, secret)
        if token is None or session is None:
            return render(request, "login.html", HTTPStatus.UNAUTHORIZED, next=target, failed=True)
        request.scope["identity"] = identity_of(token)  # for whoever notes who has logged in
        answer = RedirectResponse(target, HTTPStatus.SEE_OTHER, HEADERS)
        answer.set_cookie(
            COOKIE,
            session,
            max_age=int(house.settings.http.session_hours * 3600),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return answer

    def log_out(request: Request) -> Response:
        if secret := request.cookies.get(COOKIE):
            with writing(house.engine) as connection:
                close_session(connection, secret)
        answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER, HEADERS)
        answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
        return answer

    def home(_request: Request) -> Response:
        return RedirectResponse("/exams", HTTPStatus.SEE_OTHER, HEADERS)

    return (
        Guarded("/", home, needs=Scope.READ),
        Guarded("/login", form, needs=None),
        Guarded("/login", log_in, needs=None, methods=["POST"]),
        Guarded("/logout", log_out, needs=None, methods=["POST"]),
        Guarded("/static/{name}", _static, needs=None),
    )


def _session(house: House, secret: str) -> tuple[Token | None, str | None]:
    now = house.clock()
    with reading(house.engine) as connection:
        token = find_token(connection, secret, now)
    if token is None:
        return None, None
    with writing(house.engine) as connection:
        return token, open_session(connection, token, now, timedelta(hours=house.settings.http.session_hours))


def _safe(target: str) -> str:
    """Return where to go after logging in: only a path of this node."""
    return target if target.startswith("/") and not target.startswith(("//", "/\\")) else "/exams"


def _static(request: Request) -> Response:
    path = next((file for file in STATIC.iterdir() if file.name == request.path_params["name"]), None)
    if path is None:
        raise NoSuchResource  # without its name, which may be long, and nobody need say who he is for this
    # The address has the content's digest: it never changes.
    headers = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return FileResponse(path, media_type=MEDIA_TYPES.get(path.suffix, "text/plain"), headers=headers)
