"""Commands that list what the node holds: exams, jobs, deliveries."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from config.settings import load_settings
from node.cli.options import ConfigOption, JsonOption, local, print_json, print_rows, print_table, stdout_console
from node.parts import Parts, open_parts
from storage.database import reading
from storage.deliveries import not_got
from storage.exams import ExamRecord, find_exam, list_exams
from storage.states import DeliveryState, ExamState, JobState

OptionalExam = Annotated[str, typer.Argument(help="Only of this exam: its id, or the first characters.")]
Limit = Annotated[int, typer.Option(min=1, max=1_000_000, help="Newest so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("exams")(exams)
    app.command("jobs")(jobs)
    app.command("deliveries")(deliveries)


def exams(
    *,
    config: ConfigOption = None,
    state: Annotated[ExamState | None, typer.Option(help="Only exams in this state.")] = None,
    limit: Limit = 50,
    as_json: JsonOption = False,
) -> None:
    """List exams, newest first: what was received, where it stands, and the answer."""
    parts = open_parts(load_settings(config))
    with reading(parts.engine) as connection:
        found = list_exams(connection, limit, state)
        lacking = not_got(connection, [exam.id for exam in found])
    if as_json:
        print_json([{**plain_exam(exam), "not_got": lacking.get(exam.id, {})} for exam in found])
        return
    rows = [
        (
            exam.uid,
            str(exam.revision),
            exam.state + (" (held)" if exam.held else ""),
            "\n".join(filter(None, [exam.status, *_told(lacking.get(exam.id, {}))])),
            str(exam.arrivals),
            local(exam.last_image_at),
            local(exam.due_at) if exam.due_at else "",
        )
        for exam in found
    ]
    print_table(("exam", "revision", "state", "answer", "arrivals", "last image", "next look"), rows)
    from node.cli.lanes import lanes_of  # noqa: PLC0415 (JSON tells no lanes)

    for lane in lanes_of(parts):
        if lane["paused"]:
            stdout_console().print(f"Nothing is sent to {lane['destination']}: {lane['lane']}.")


def jobs(
    exam: OptionalExam = "",
    *,
    config: ConfigOption = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Limit = 50,
    as_json: JsonOption = False,
) -> None:
    """List jobs, newest first: what is read, by whom, how often it was tried, and why it failed."""
    parts = open_parts(load_settings(config))
    found = parts.queue.list_jobs(limit, exam_id=_exam_id(parts, exam), state=state)
    print_rows(
        [
            {
                "job": job.id,
                "exam": job.exam_uid,
                "revision": job.revision,
                "state": str(job.state),
                "attempts": job.attempts,
                "queued": local(job.created_at),
                "ended": local(job.finished_at),
                "worker": job.lease_owner or "",
                "model": job.model_digest[:12],
                "answer": job.answer or "",
                "error": job.error or "",
            }
            for job in found
        ],
        "No jobs.",
        as_json=as_json,
    )


def deliveries(
    exam: OptionalExam = "",
    *,
    config: ConfigOption = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only deliveries in this state.")] = None,
    destination: Annotated[str, typer.Option(help="Only to this destination.")] = "",
    limit: Limit = 50,
    as_json: JsonOption = False,
) -> None:
    """List deliveries, newest first: what goes where, what the destination said, when it is tried again."""
    parts = open_parts(load_settings(config))
    found = parts.outbox.latest(limit, exam_id=_exam_id(parts, exam), state=state, destination=destination or None)
    print_rows(
        [
            {
                "delivery": each.id,
                "exam": each.exam_uid,
                "revision": each.revision,
                "kind": each.kind,
                "destination": each.destination,
                "state": str(each.state),
                "attempts": each.attempts,
                "next": local(each.not_before) if each.state is DeliveryState.WAITING else "",
                "sent": local(each.sent_at),
                "proven": local(each.proven_at),
                "status": "" if each.status_code is None else f"{each.status_code:04X}H",
                "message": each.message or "",
            }
            for each in found
        ],
        "No deliveries.",
        as_json=as_json,
    )


def plain_exam(exam: ExamRecord) -> dict[str, Any]:
    """Return what is known of an exam as JSON types."""
    return {
        "exam": exam.uid,
        "study": exam.study_uid,
        "revision": exam.revision,
        "state": exam.state,
        "status": exam.status,
        "reasons": list(exam.reasons),
        "arrivals": exam.arrivals,
        "opened_at": exam.opened_at,
        "last_image_at": exam.last_image_at,
        "due_at": exam.due_at,
        "held": exam.held,
    }


def _told(lacking: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{destination} has not got {', '.join(kinds)}" for destination, kinds in lacking.items()]


def _exam_id(parts: Parts, exam: str) -> int | None:
    if not exam:
        return None
    with reading(parts.engine) as connection:
        return find_exam(connection, exam).id
