"""Commands that look at what the node holds: jobs, deliveries, destinations, senders."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from config.settings import load_settings
from node.cli.lanes import lanes_of
from node.cli.options import ConfigOption, JsonOption, print_json, print_table, stdout_console
from node.parts import Parts, open_parts
from storage.database import reading
from storage.exams import find_exam
from storage.senders import Sender, list_senders
from storage.states import DeliveryState, JobState

OptionalExam = Annotated[str, typer.Argument(help="Only of this exam: its id, or the first characters.")]
Limit = Annotated[int, typer.Option(min=1, help="Newest so many.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("jobs")(jobs)
    app.command("deliveries")(deliveries)
    app.command("destinations")(destinations)
    app.command("senders")(senders)


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
    _show(
        [
            {
                "job": job.id,
                "exam": job.exam_uid,
                "revision": job.revision,
                "state": str(job.state),
                "attempts": job.attempts,
                "queued": _local(job.created_at),
                "ended": _local(job.finished_at),
                "worker": job.lease_owner or "",
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
    _show(
        [
            {
                "delivery": each.id,
                "exam": each.exam_uid,
                "revision": each.revision,
                "kind": each.kind,
                "destination": each.destination,
                "state": str(each.state),
                "attempts": each.attempts,
                "next": _local(each.not_before) if each.state is DeliveryState.WAITING else "",
                "sent": _local(each.sent_at),
                "proven": _local(each.proven_at),
                "status": "" if each.status_code is None else f"{each.status_code:04X}H",
                "message": each.message or "",
            }
            for each in found
        ],
        "No deliveries.",
        as_json=as_json,
    )


def destinations(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the destinations of the settings: where they are, what they get, how they prove it, what waits for them."""
    parts = open_parts(load_settings(config))
    lanes = {lane["destination"]: lane for lane in lanes_of(parts)}
    _show(
        [
            {
                "destination": each.name,
                "where": each.where,
                "over": "HTTPS" if each.web and each.web.url.startswith("https") else "TLS" if each.tls else "",
                "gets": " ".join(each.mix.objects),
                "proof": str(each.proof),
                "lane": lanes[each.name]["lane"],
                "waiting": lanes[each.name]["deliveries"][DeliveryState.WAITING],
                "refused": lanes[each.name]["deliveries"][DeliveryState.REFUSED],
                "test": each.test,
            }
            for each in parts.settings.destinations
        ],
        "No destinations: results stay in the store.",
        as_json=as_json,
    )


def senders(
    *,
    config: ConfigOption = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="Count the last so many days.")] = 7,
    contexts: Annotated[
        bool, typer.Option("--contexts", help="Also what each proposed last, and what was taken.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List who has called, last heard first: images and associations, refused ones, and why the last was refused."""
    parts = open_parts(load_settings(config))
    since = f"{datetime.now(UTC).astimezone() - timedelta(days=days - 1):%Y-%m-%d}"
    with reading(parts.engine) as connection:
        found = list_senders(connection, since)
    named = {caller.ae_title.strip() for caller in parts.settings.dicom.callers}
    rows = [_sender(each, known=each.calling_ae in named) for each in found]
    if as_json and contexts:
        for row, each in zip(rows, found, strict=True):
            row["contexts"] = [vars(context) for context in each.contexts]
    _show(rows, "Nobody has called.", as_json=as_json)
    if contexts and not as_json:
        for each in found:
            proposed = [
                {
                    "proposed": context.abstract_syntax,
                    "encodings": ", ".join(context.transfer_syntaxes),
                    "taken as": context.accepted or "not taken",
                }
                for context in each.contexts
            ]
            _show(proposed, "", as_json=False, title=f"{each.calling_ae} at {each.address}")


def _exam_id(parts: Parts, exam: str) -> int | None:
    if not exam:
        return None
    with reading(parts.engine) as connection:
        return find_exam(connection, exam).id


def _sender(each: Sender, *, known: bool) -> dict[str, Any]:
    tallies = [tally for _, tally in each.days]
    return {
        "sender": each.calling_ae,
        "address": each.address,
        "in callers": known,
        "last heard": _local(each.last_seen),
        "images": sum(tally.images for tally in tallies),
        "refused images": sum(tally.images_refused for tally in tallies),
        "associations": sum(tally.associations for tally in tallies),
        "refused associations": sum(tally.associations_refused for tally in tallies),
        "last refusal": each.refusal or "",
        "refused at": _local(each.refused_at),
    }


LESS_WANTED = ("queued", "next", "sent", "proven", "refused at", "test", "worker", "answer", "associations")
"""Columns that only a wide terminal shows; JSON has them all."""
WIDE = 150
SHORT_EXAM = 8


def _show(rows: Sequence[dict[str, Any]], nothing: str, *, as_json: bool, title: str | None = None) -> None:
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(nothing)
    else:
        wide = stdout_console().width >= WIDE
        names = [name for name in rows[0] if wide or name not in LESS_WANTED]
        print_table(names, [[_cell(name, row[name]) for name in names] for row in rows], title)


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value)[:SHORT_EXAM] if name == "exam" else str(value)


def _local(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""
