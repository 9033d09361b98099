"""One exam: its views with what was found, its images, what happened, its deliveries, and what may be done to it."""

from collections.abc import Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from ai.words import counted
from config.settings import Scope
from node.errors import BadRequest, NoSuchResource
from node.judging import Rules
from node.rereading import read_again
from node.waiving import told_of, words_of
from node.web.access import SHOWN_EXAM, Guarded, caller
from node.web.addresses import number
from node.web.pages.exam_facts import ExamFacts, exam_facts
from node.web.pages.exams import ABANDONED, STATES, is_abandoned
from node.web.pages.house import House
from node.web.rendering import done, render, render_live
from storage.database import reading, writing
from storage.errors import CannotRetry
from storage.exams import ExamRecord, find_exam
from storage.jobs import Job
from storage.previews import previews_of
from storage.resending import resend
from storage.results import results_of
from storage.states import ExamState
from storage.waiving import Wanted, waive

FILES: Final = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}
"""Kept by no browser, or they could be seen after logging out. Measured: live parts that change load no picture anew."""


class ExamPage:
    """The page of one exam, and its buttons."""

    def __init__(self, house: House) -> None:
        self._house = house

    def page(self, request: Request) -> Response:
        """Return the page."""
        facts = _facts(self._house, request)
        return render(
            request, "exam.html", facts=facts, states=STATES, address=_address(facts), **_told(self._house, facts)
        )

    def body(self, request: Request) -> Response:
        """Return its live part."""
        facts = _facts(self._house, request)
        return render_live(
            request, "exam_body.html", facts=facts, states=STATES, address=_address(facts), **_told(self._house, facts)
        )

    def picture(self, request: Request) -> Response:
        """Return a picture of an image."""
        exam, number = _exam(self._house, request), request.path_params["job"]
        job = next((job for job in self._house.queue.list_jobs(1000, exam_id=exam.id) if str(job.id) == number), None)
        if job is None:
            raise NoSuchResource("this exam has no such reading")
        with reading(self._house.engine) as connection:
            found = previews_of(connection, job.id)
        wanted = request.path_params["image"], request.path_params["kind"]
        path = next((each.path for each in found if (each.image_uid, each.kind) == wanted), None)
        if path is None or not self._house.store.resolve(path).is_file():
            raise NoSuchResource("there is no such picture, or it was removed after its time")
        return FileResponse(self._house.store.resolve(path), headers=FILES)

    def result(self, request: Request) -> Response:
        """Return a result object as a file."""
        exam = _exam(self._house, request)
        with reading(self._house.engine) as connection:
            issued = results_of(connection, exam.id)
        record = next((each.record for each in issued if each.record.uid == request.path_params["result"]), None)
        if record is None or not self._house.store.resolve(record.path).is_file():
            raise NoSuchResource("there is no such result, or it was removed after its time")
        name = f"{record.kind}-{record.uid}.dcm"
        return FileResponse(
            self._house.store.resolve(record.path), headers=FILES, media_type="application/dicom", filename=name
        )

    def retry(self, request: Request) -> Response:
        """Read an exam again whose reading failed."""
        return _again(self._house, request, "retry", "is tried again")

    def reread(self, request: Request) -> Response:
        """Read an exam again that was read."""
        return _again(self._house, request, "re-read", "is read again")

    def cancel(self, request: Request) -> Response:
        """Read nothing, and answer so."""
        exam = _exam(self._house, request)
        job = _job(self._house, exam)
        self._house.queue.cancel(job.id, self._house.clock())
        self._house.record(request, "cancel", exam=exam, detail=f"revision {job.revision}")
        return done(request, 'The reading is cancelled; the answer is "not analysed".', f"/exams/{exam.uid}")

    async def resend(self, request: Request) -> Response:
        """Send the results again."""
        async with request.form(max_files=0, max_fields=2, max_part_size=1024) as given:
            destination = str(given.get("destination", ""))
        return await run_in_threadpool(_resend, self._house, request, destination)

    async def waive(self, request: Request) -> Response:
        """Give up deliveries that will never be taken."""
        async with request.form(max_files=0, max_fields=2, max_part_size=1024) as given:
            why = str(given.get("why", "")).strip()
        return await run_in_threadpool(_waive, self._house, request, why)


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of one exam."""
    pages, exam = ExamPage(house), "/exams/{exam}"
    return (
        Guarded(exam, pages.page, needs=Scope.READ),
        Guarded(f"{exam}/body", pages.body, needs=Scope.READ),
        Guarded(f"{exam}/pictures/{{job}}/{{image}}/{{kind}}", pages.picture, needs=Scope.READ),
        Guarded(f"{exam}/results/{{result}}", pages.result, needs=Scope.READ),
        Guarded(f"{exam}/retry", pages.retry, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{exam}/re-read", pages.reread, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{exam}/cancel", pages.cancel, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{exam}/resend", pages.resend, needs=Scope.OPERATE, methods=["POST"]),
        Guarded(f"{exam}/waive", pages.waive, needs=Scope.OPERATE, methods=["POST"]),
    )


def _again(house: House, request: Request, what: str, words: str) -> Response:
    exam = _exam(house, request)
    again = read_again(house.parts(), Rules.of(house.settings, house.model), house.model.digest, exam, house.clock())
    house.record(request, what, exam=exam, detail=f"revision {again.revision}")
    anew = f": revision {again.revision}, judged anew" if again.anew else ""
    return done(request, f"Exam {exam.uid[:8]} {words}{anew}.", f"/exams/{exam.uid}")


def _resend(house: House, request: Request, destination: str) -> Response:
    exam = _exam(house, request)
    known = {delivery.destination for delivery in house.outbox.of_exam(exam.id)}
    if destination and destination not in known:
        raise BadRequest("this exam was never for that destination")
    if exam.held:
        raise CannotRetry("the exam is held: decide its conflicts first, with mammonode conflicts")
    wanted = house.settings.addressed
    if destination and destination not in wanted:
        raise BadRequest("the settings do not name that destination any more")
    wanted = {destination: wanted[destination]} if destination else wanted
    with writing(house.engine) as connection:
        count = resend(connection, exam.id, house.clock(), wanted)
    detail = counted(count, "result") + (f" to {destination}" if destination else "")
    house.record(request, "resend", exam=exam, destination=destination or None, detail=detail)
    return done(request, f"{counted(count, 'result waits', 'results wait')} to be sent again.", f"/exams/{exam.uid}")


def _waive(house: House, request: Request, why: str) -> Response:
    exam = _exam(house, request)
    if not why:
        raise BadRequest("say why nobody is to wait for them")
    identity = caller(request)
    words = words_of(identity.name if identity else "", why)
    with writing(house.engine) as connection:
        waived = waive(connection, exam.id, Wanted(house.settings.addressed.keys()), words, house.clock())
    if waived:
        house.record(request, "waive", exam=exam, detail=f"{told_of(waived)}: {why}")
    return done(
        request,
        f"{counted(len(waived), 'delivery', 'deliveries')} waived: nobody waits any more.",
        f"/exams/{exam.uid}",
    )


def _exam(house: House, request: Request) -> ExamRecord:
    with reading(house.engine) as connection:
        exam = find_exam(connection, request.path_params["exam"])
    request.scope[SHOWN_EXAM] = exam.uid
    return exam


def _job(house: House, exam: ExamRecord) -> Job:
    jobs = [job for job in house.queue.list_jobs(10, exam_id=exam.id) if job.revision == exam.revision]
    if not jobs:
        raise CannotRetry("this revision has no reading yet: its images are still awaited")
    return jobs[0]


def _facts(house: House, request: Request) -> ExamFacts:
    exam = _exam(house, request)
    return exam_facts(house, exam.uid, number(request, "revision"))


def _address(facts: ExamFacts) -> str:
    revision = "" if facts.is_present else f"revision={facts.revision}&"
    return f"/exams/{facts.exam.uid}/body?{revision}"


def _told(house: House, facts: ExamFacts) -> dict[str, Any]:
    now, job = house.clock(), facts.job
    abandoned = job is not None and is_abandoned(job.state, job.lease_until, now)
    runs = job is not None and job.state == "running" and job.started_at is not None and not abandoned
    elapsed = (now - job.started_at).total_seconds() if runs and job and job.started_at else None
    return {
        "runs": runs,
        "abandoned": ABANDONED if abandoned and facts.exam.state is ExamState.QUEUED else "",
        "elapsed": elapsed,
        "progress": min(elapsed / facts.typical, 0.95) if elapsed is not None and facts.typical else None,
        "show_patients": house.settings.http.show_patients,
    }
