"""The list of exams: live, with what is running."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from ai.words import counted
from config.settings import Scope
from node.errors import BadRequest
from node.exams import NO_IMAGES
from node.web.access import Guarded
from node.web.addresses import number
from node.web.pages.house import House
from node.web.rendering import render, render_live
from storage.database import reading
from storage.overview import Row, Wanted, calling_aes, count_exams, search_exams, typical_seconds
from storage.states import ExamState, JobState

AT_ONCE: Final = 50
FILTERS: Final = ("state", "score", "since", "until", "ae", "exam")

STATES: Final = {
    ExamState.COLLECTING: "receiving",
    ExamState.QUEUED: "waiting",
    ExamState.ANSWERED: "answered",
    ExamState.FAILED: "failed",
    ExamState.MOVED: "moved",
    ExamState.PRIOR: "prior, not read",
}
"""States in the words of the list."""
ABANDONED: Final = "its worker is gone, the next one reads it"


@dataclass(frozen=True)
class Line:
    """An exam as the list shows it.

    Attributes
    ----------
    row
        What is known of it.
    state
        In a word or two; its kind, for the colour, is ``kind``.
    detail
        What it waits for, or how long it runs.
    runs, progress
        Whether a reading runs, and how far it is, 0 to 1, as far as the last ones tell; None before the first.
    """

    row: Row
    state: str
    kind: str
    detail: str
    runs: bool = False
    progress: float | None = None


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of the list."""

    def page(request: Request) -> Response:
        with reading(house.engine) as connection:
            senders = calling_aes(connection)
        given = _given(request)
        _wanted(given)  # a wrong filter is told at once
        return render(request, "exams.html", states=STATES, senders=senders, given=given, address=_address(request))

    def lines(request: Request) -> Response:
        wanted, offset = _wanted(_given(request)), _offset(request)
        now = house.clock()
        with reading(house.engine) as connection:
            rows = search_exams(connection, wanted, AT_ONCE, offset)
            count = count_exams(connection, wanted)
            typical = typical_seconds(connection)
        return render_live(
            request,
            "exams_lines.html",
            lines=[line_of(row, now, typical) for row in rows],
            count=count,
            first=offset + 1,
            earlier=_moved(request, offset + AT_ONCE) if offset + AT_ONCE < count else None,
            later=_moved(request, max(offset - AT_ONCE, 0)) if offset else None,
            address=_address(request),
            show_patients=house.settings.http.show_patients,
        )

    return (
        Guarded("/exams", page, needs=Scope.READ),
        Guarded("/exams/lines", lines, needs=Scope.READ),
    )


def line_of(row: Row, now: datetime, typical: float | None) -> Line:
    """Return an exam as the list shows it."""
    exam = row.exam
    if exam.state is ExamState.QUEUED and is_abandoned(row.job_state, row.lease_until, now):
        return Line(row, STATES[exam.state], "unsure", ABANDONED)
    if exam.state is ExamState.QUEUED and row.job_state is JobState.RUNNING:
        elapsed = (now - row.started_at).total_seconds() if row.started_at else 0.0
        # Never full before it has ended, whatever the last ones took.
        progress = min(elapsed / typical, 0.95) if typical else None
        usual = f" of about {typical:.0f}" if typical else ""
        return Line(row, "reading", "running", f"{elapsed:.0f}{usual} s", runs=True, progress=progress)
    detail = ""
    if exam.state is ExamState.QUEUED and row.attempts and row.not_before and row.not_before > now:
        detail = f"tried {counted(row.attempts, 'time')}, again in {(row.not_before - now).total_seconds():.0f} s"
    elif exam.state is ExamState.COLLECTING and exam.due_at:
        left = (exam.due_at - now).total_seconds()
        detail = f"read in {left:.0f} s" if left > 0 else "read at once"
    elif exam.held:
        detail = "held: see its conflicts"
    kind = {ExamState.ANSWERED: _answer_kind(exam.status), ExamState.QUEUED: "running"}.get(
        exam.state, exam.state.value
    )
    return Line(row, STATES[exam.state], kind, detail)


def is_abandoned(state: JobState | None, lease_until: datetime | None, now: datetime) -> bool:
    """Tell whether a reading runs no more, as far as its worker's signs of life tell, though nobody has ended it."""
    return state is JobState.RUNNING and lease_until is not None and lease_until < now


def _answer_kind(status: str | None) -> str:
    return {"findings": "findings", "no findings": "clear", "failed": "failed"}.get(status or "", "unsure")


def _given(request: Request) -> dict[str, str]:
    return {name: request.query_params.get(name, "").strip() for name in FILTERS}


def _wanted(given: dict[str, str]) -> Wanted:
    if "\0" in "".join(given.values()):
        raise BadRequest("a zero byte stands in a filter")
    try:
        return Wanted(
            state=ExamState(given["state"]) if given["state"] else None,
            least_score=float(given["score"]) if given["score"] else None,
            since=_midnight(given["since"]),
            until=_midnight(given["until"], timedelta(days=1)),
            calling_ae=given["ae"],
            uid=given["exam"],
            apart=NO_IMAGES,
        )
    except (ValueError, OverflowError) as error:
        raise BadRequest("a filter is no state, no number or no date") from error


def _midnight(text: str, later: timedelta = timedelta(0)) -> datetime | None:
    return (datetime.fromisoformat(text) + later).astimezone(UTC) if text else None


def _offset(request: Request) -> int:
    return min(number(request, "from") or 0, 10**6)


def _address(request: Request) -> str:
    """Return the address of the live part with the filters of this page."""
    return "/exams/lines?" + urlencode(_kept(request) | {"from": _offset(request)})


def _moved(request: Request, offset: int) -> str:
    return "/exams?" + urlencode(_kept(request) | {"from": offset})


def _kept(request: Request) -> dict[str, str | int]:
    return {name: value for name, value in _given(request).items() if value}
