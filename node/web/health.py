"""Health and metrics over HTTP: ``/readyz`` for whoever sends traffic, and says more to who may read, ``/metrics`` for Prometheus."""

from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from node.readiness import Check
from node.web.access import Guarded, Scope, caller


def health_routes(checks: Callable[[], list[Check]], metrics: Callable[[], bytes]) -> list[Guarded]:
    """Return the routes.

    Parameters
    ----------
    checks
        Whether the node can do its work now.
    metrics
        Everything that is told, in Prometheus' text format.
    """

    def readyz(request: Request) -> Response:
        found = checks()
        ready = all(check.ok for check in found if check.needed)
        status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
        identity = caller(request)
        if identity is None or Scope.READ not in identity.scopes:  # a load balancer needs no more
            return JSONResponse({"ready": ready}, status)
        return JSONResponse({"ready": ready, "checks": [asdict(check) for check in found]}, status)

    def told(_request: Request) -> Response:
        return Response(metrics(), media_type=CONTENT_TYPE_LATEST)

    return [Guarded("/readyz", readyz, needs=None), Guarded("/metrics", told, needs=Scope.READ)]
