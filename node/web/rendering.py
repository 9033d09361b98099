"""Templates → answers, with the headers that keep a page to itself."""

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, RedirectResponse, Response

from ai.words import counted
from config.settings import Scope
from node.identity import RESEARCH_USE_ONLY, VERSION
from node.web.access import caller

FOLDER: Final = Path(__file__).parent / "pages"
STATIC: Final = FOLDER / "static"
MEDIA_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", "": "text/plain"}

PAGES: Final[tuple[tuple[str, str], ...]] = (
    ("Exams", "/exams"),
    ("Destinations", "/destinations"),
    ("Senders", "/senders"),
    ("Upload", "/upload"),
    ("System", "/system"),
)

HEADERS: Final = {
    # Nothing is loaded from elsewhere, nothing is run that does not stand in a file of ours, no other site frames it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def render(
    connection: HTTPConnection,
    template: str,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] = {},
    **values: Any,
) -> Response:
    """Return a page."""
    return HTMLResponse(_rendered(connection, template, values), status, {**HEADERS, **headers})


def render_live(connection: HTTPConnection, template: str, **values: Any) -> Response:
    """Return a part of a page that asks for itself again and again; 204 when it has not changed since it was seen."""
    body = _rendered(connection, template, values)
    seen = hashlib.sha256(body.encode()).hexdigest()[:16]
    if connection.query_params.get("seen") == seen:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=HEADERS)
    return HTMLResponse(body.replace(SEEN, seen), headers=HEADERS)


SEEN: Final = "SEEN-NOT-YET"
"""Stands in templates where a part's digest goes."""


def is_htmx(connection: HTTPConnection) -> bool:
    """Tell whether a page's part, and not a browser's address bar, asks."""
    return "hx-request" in connection.headers


def done(connection: HTTPConnection, message: str, back: str) -> Response:
    """Answer a button: a page with htmx shows the message and looks again, another goes back to where it was."""
    if is_htmx(connection):
        # HTTP headers are Latin-1, what they tell is JSON.
        trigger = json.dumps({"told": {"message": message}, "changed": {}})
        return Response(status_code=HTTPStatus.NO_CONTENT, headers={**HEADERS, "HX-Trigger": trigger})
    return RedirectResponse(back, HTTPStatus.SEE_OTHER, HEADERS)


def to_login(connection: HTTPConnection) -> Response:
    """Send a browser to where it can log in, and back from there."""
    here = connection.url.path + (f"?{connection.url.query}" if connection.url.query else "")
    target = f"/login?next={quote(here, safe='/')}"
    if is_htmx(connection):
        return Response(status_code=HTTPStatus.UNAUTHORIZED, headers={**HEADERS, "HX-Redirect": "/login"})
    return RedirectResponse(target, HTTPStatus.SEE_OTHER, HEADERS)


@cache
def static_version(name: str) -> str:
    """Return what makes the address of a static file new when its content is."""
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


def _rendered(connection: HTTPConnection, template: str, values: Mapping[str, Any]) -> str:
    identity = caller(connection)
    scopes = identity.scopes if identity else frozenset[Scope]()
    return (
        _environment()
        .get_template(template)
        .render(
            **values,
            here=connection.url.path,
            pages=[page for page in PAGES if page[0] != "Upload" or Scope.STORE in scopes],
            identity=identity,
            may_operate=Scope.OPERATE in scopes,
            research=RESEARCH_USE_ONLY,
            version=VERSION,
            zone=datetime.now().astimezone().strftime("%Z, UTC%z"),
            seen=SEEN,
        )
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "moment": moment,
        "counted": counted,
        "day": day,
        "number": lambda value: f"{value:,.0f}".replace(",", "\u202f"),
        "bytes": size,
        "seconds": seconds,
        "quoted": json.dumps,  # as a string of TOML
        "status": lambda value: "" if value is None else f"{value:04X}H",
        "static": lambda name: f"/static/{name}?v={static_version(name)}",
    }
    environment.filters.update(filters)
    return environment


def moment(value: datetime | None) -> str:
    """Return a time as people here read it."""
    return value.astimezone().strftime("%Y-%m-%d %H:%M:%S") if value else ""


def day(value: str) -> str:
    """Return a DICOM date with its dashes; what is none as it is."""
    return f"{value[:4]}-{value[4:6]}-{value[6:]}" if len(value) == 8 and value.isdigit() else value


def size(value: float) -> str:
    """Return a number of bytes in the unit that suits it."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" or value >= 100 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def seconds(value: float | None) -> str:
    """Return a duration in the unit that suits it."""
    if value is None:
        return ""
    for limit, divisor, unit in ((10, 1, "s"), (120, 1, "s"), (7200, 60, "min"), (172800, 3600, "h")):
        if value < limit:
            return f"{value / divisor:.1f} {unit}" if limit == 10 else f"{value / divisor:.0f} {unit}"
    return f"{value / 86400:.0f} days"
