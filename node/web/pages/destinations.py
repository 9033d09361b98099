"""Destinations: how each lane stands, what waits, what was accepted last; pause, resume, echo."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from starlette.requests import Request
from starlette.responses import Response

from config.settings import Destination, Scope
from node.echoes import Echo
from node.errors import NoSuchResource
from node.lanes import LaneStatus, lane_statuses
from node.web.access import Guarded, caller
from node.web.pages.house import House
from node.web.rendering import done, render, render_live
from storage.actions import Action, actions_of_destination
from storage.database import reading, writing
from storage.lanes import Pause, pause, resume
from storage.overview import last_success

LAST_ACTIONS = 5


@dataclass(frozen=True)
class Shown:
    """A lane, when its destination accepted something last, the echo that it did not answer since, what people did to it."""

    lane: LaneStatus
    last_success: datetime | None
    silent: Echo | None
    actions: tuple[Action, ...]


class DestinationsPage:
    """The page of the destinations, and its buttons."""

    def __init__(self, house: House) -> None:
        self._house = house

    def page(self, request: Request) -> Response:
        """Return the page."""
        return render(request, "destinations.html", lanes=self._lanes())

    def body(self, request: Request) -> Response:
        """Return its live part."""
        return render_live(request, "destinations_body.html", lanes=self._lanes())

    def pause(self, request: Request) -> Response:
        """Pause a lane."""
        name = self._destination(request).name
        identity = caller(request)
        with writing(self._house.engine) as connection:
            paused = pause(connection, Pause(name, self._house.clock(), identity.name if identity else "", ""))
        if paused:
            self._house.record(request, "pause", destination=name)
        return done(request, f"Nothing is sent to {name} until it is resumed.", "/destinations")

    def resume(self, request: Request) -> Response:
        """Let a lane send again."""
        name = request.path_params["name"]  # also of one that has gone from the settings
        with writing(self._house.engine) as connection:
            resumed = resume(connection, name)
        if not resumed:
            self._destination(request)
        else:
            self._house.record(request, "resume", destination=name)
        return done(request, f"{name} is sent to again.", "/destinations")

    def echo(self, request: Request) -> Response:
        """Ask a destination whether it is there."""
        destination = self._destination(request)
        result = self._house.echo(destination)
        if self._house.echoes:
            self._house.echoes.note(destination, result)
        words = (
            f"{destination.name} answers, in {1000 * result.seconds:.0f} ms."
            if result.answered
            else f"{destination.name} does not answer: {result.message}"
        )
        self._house.record(request, "echo", destination=destination.name, detail=words)
        return done(request, words, "/destinations")

    def _lanes(self) -> Sequence[Shown]:
        house = self._house
        lanes = lane_statuses(house.engine, house.outbox, house.settings.destinations, house.clock())
        echoes = house.echoes.last() if house.echoes else {}
        with reading(house.engine) as connection:
            last = last_success(connection)
            done = {lane.name: tuple(actions_of_destination(connection, lane.name, LAST_ACTIONS)) for lane in lanes}
        return [
            Shown(lane, last.get(lane.name), _silent(echoes.get(lane.name), last.get(lane.name)), done[lane.name])
            for lane in lanes
        ]

    def _destination(self, request: Request) -> Destination:
        name = request.path_params["name"]
        found = next((each for each in self._house.settings.destinations if each.name == name), None)
        if found is None:
            raise NoSuchResource("the settings have no such destination")
        return found


def _silent(echo: Echo | None, last_success: datetime | None) -> Echo | None:
    if echo is None or echo.result.answered or (last_success is not None and last_success > echo.at):
        return None
    return echo


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of the destinations."""
    pages, lane = DestinationsPage(house), "/destinations/{name}"
    return (
        Guarded("/destinations", pages.page, needs=Scope.READ),
        Guarded("/destinations/body", pages.body, needs=Scope.READ),
        Guarded(f"{lane}/pause", pages.pause, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{lane}/resume", pages.resume, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{lane}/echo", pages.echo, needs=Scope.OPERATE, methods=["POST"]),
    )
