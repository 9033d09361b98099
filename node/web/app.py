"""The application: routes, and what surrounds every request."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Mount, Router

from config.settings import Http
from node.audit.notes import NOTHING, Notes
from node.web.access import Authenticated, Authentication, Guarded, unguarded
from node.web.audited import Auditing
from node.web.limits import BURST, GUESSES, GUESSES_A_SECOND, Buckets, Guesses, Limits, Rate
from node.web.origins import SameOrigin
from node.web.problems import problem
from node.web.requests import Requests, Slashes


@dataclass(frozen=True)
class Routes:
    """What the door answers.

    Attributes
    ----------
    dicom_web
        The transactions of PS3.18, mounted under ``/dicom-web``.
    pages
        What people see.
    """

    dicom_web: Sequence[BaseRoute] = ()
    pages: Sequence[BaseRoute] = ()


@dataclass(frozen=True)
class Counts:
    """What the door has done since it was opened."""

    answers: Counter[int] = field(default_factory=Counter)


def create_app(
    settings: Http, ways: Collection[Authentication], routes: Routes, counts: Counts, notes: Notes = NOTHING
) -> Starlette:
    """Return the ASGI application.

    Parameters
    ----------
    settings
        Limits.
    ways
        How callers are known, the first that knows one wins.
    routes
        What is answered: each is `Guarded`.
    counts
        Where answers are counted.
    notes
        Is told who did what, for the audit trail.
    """
    answered: list[BaseRoute] = [
        Guarded("/livez", _livez, needs=None),
        # Redirected by Starlette to an address with a slash, or without, it would be to whatever the request calls this host.
        Mount("/dicom-web", app=Router(routes.dicom_web, redirect_slashes=False)),
        *routes.pages,
    ]
    if missing := unguarded([*routes.dicom_web, *routes.pages]):
        raise ValueError(f"these routes do not say what they need: {missing}")
    app = Starlette(
        routes=answered,
        middleware=[
            Middleware(Requests, counts.answers),
            Middleware(
                Limits, settings.maximum_requests, int(settings.maximum_body_mb * 1e6), settings.network_timeout
            ),
            Middleware(SameOrigin),
            Middleware(Auditing, notes),
            Middleware(Guesses, Buckets(GUESSES_A_SECOND, GUESSES)),
            Middleware(Authenticated, ways),
            Middleware(Rate, Buckets(settings.requests_per_second, BURST * settings.requests_per_second)),
            Middleware(Slashes),
        ],
        exception_handlers={HTTPException: _starlettes_own},
    )
    app.router.redirect_slashes = False
    app.state.address = settings.address.rstrip("/")
    return app


def _livez(_request: Request) -> Response:
    return PlainTextResponse("alive\n")


def _starlettes_own(request: Request, error: Exception) -> Response:
    return problem(request, error)
