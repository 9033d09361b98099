"""Commands about one exam: show, retry, send again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from ai.words import counted, took
from config.settings import load_settings
from node.audit.commands import operator, record_done
from node.cli.conflicts import plain
from node.cli.options import ConfigOption, JsonOption, local, print_json, print_table, stdout_console
from node.cli.queues import plain_exam
from node.parts import Parts, open_parts
from storage.actions import Action
from storage.conflicts import list_conflicts, reject_identities
from storage.database import reading, writing
from storage.deliveries import Delivery
from storage.exams import ExamImage, find_exam, images_of
from storage.index import InstanceRecord, instances_of_exam
from storage.jobs import Job
from storage.removals import removed_of_exam
from storage.resending import resend
from storage.results import results_of

ExamArgument = Annotated[str, typer.Argument(help="Exam id, or its first characters (mammonode exams).")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("show")(show)
    app.command("retry")(retry)
    app.command("send")(send)


def show(exam: ExamArgument, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show all that is known of one exam: images and why they were chosen, findings, jobs, deliveries, conflicts.

    With `--json` the whole answer too: outlines, sizes, scores, what changed since the former revision.
    """
    parts = open_parts(load_settings(config))
    facts = _facts(parts, exam)
    if as_json:
        print_json(facts)
        return
    console = stdout_console()
    console.print(
        f"Exam {facts['exam']}, revision {facts['revision']}: {facts['state']}, {facts['status'] or 'no answer yet'}"
    )
    for reason in facts["reasons"]:
        console.print(f"  {reason}")
    if facts["answer"]:
        model = facts["answer"]["model"]
        console.print(
            f"  Last answer: to revision {facts['answer']['revision']}, by {model['name']} {model['version']}, "
            f"digest {model['digest'][:12]}."
        )
        for sentence in (*facts["answer"].get("appraisal", ()), *facts["answer"]["changes"]):
            console.print(f"  {sentence}")
    jobs = [{**job, "seconds": took(job["seconds"] or {})} for job in facts["jobs"]]
    shown = {**facts, "masses": _masses(facts["answer"]), "jobs": jobs}
    for title in ("images", "masses", "jobs", "deliveries", "conflicts"):
        if rows := shown[title]:
            words = [["" if value is None else str(value) for value in row.values()] for row in rows]
            print_table(rows[0], words, title)


def retry(exam: ExamArgument, *, config: ConfigOption = None) -> None:
    """Read an exam's present revision again, as if it had never been tried.

    The same model gives the same results, which are not sent again; another one gives an answer that supersedes the former.
    An exam that today's settings or model would judge otherwise, or that was left as a prior, is read as its next revision.
    """
    from ai.models import ready_model  # noqa: PLC0415 (keeps lists quick)
    from node.judging import Rules  # noqa: PLC0415 (as above)
    from node.rereading import read_again  # noqa: PLC0415 (as above)

    parts = open_parts(load_settings(config))
    with reading(parts.engine) as connection:
        found = find_exam(connection, exam)
    model = ready_model(parts.settings.reader.model, parts.settings.reader.models_folder)
    now = datetime.now(UTC)

    def note(connection: Connection, revision: int) -> None:
        action = Action("retry", operator(), now, found.id, detail=f"revision {revision}")
        record_done(connection, parts.settings, action, found.uid)

    again = read_again(parts, Rules.of(parts.settings, model), model.digest, found, now, note)
    anew = f" as revision {again.revision}, judged anew," if again.anew else ""
    typer.echo(f"Exam {found.uid}:{anew} job {again.job} is queued{'' if again.anew else ' again'}.")


def send(
    exam: ExamArgument,
    *,
    config: ConfigOption = None,
    destination: Annotated[str, typer.Option(help="Only to this destination.")] = "",
    release: Annotated[
        bool, typer.Option("--release", help="Reject what the exam is held for: the first copies are right.")
    ] = False,
) -> None:
    """Send an exam's results again, to all destinations that had them or to one.

    Destinations that the settings do not name any more are left alone, and so is what a destination is not to get any more.
    """
    parts = open_parts(load_settings(config))
    with reading(parts.engine) as connection:
        found = find_exam(connection, exam)
    if found.held and not release:
        typer.secho(
            f"Exam {found.uid} is held: see its conflicts (mammonode conflicts), then send it with --release.", err=True
        )
        raise typer.Exit(1)
    wanted = parts.settings.addressed
    if destination and destination not in wanted:
        typer.secho(f"The settings name no destination {destination!r}: see mammonode destinations.", err=True)
        raise typer.Exit(1)
    gone = {
        f"{each.kind} to {each.destination}" if each.destination in wanted else each.destination
        for each in parts.outbox.of_exam(found.id)
        if each.kind not in wanted.get(each.destination, ()) and destination in {"", each.destination}
    }
    now = datetime.now(UTC)
    with writing(parts.engine) as connection:
        count = resend(connection, found.id, now, {destination: wanted[destination]} if destination else wanted)
        if release:
            reject_identities(connection, found.id, now)
        told = f"{counted(count, 'result')}" + (f" to {destination}" if destination else "")
        action = Action("resend", operator(), now, found.id, destination or None, told)
        record_done(connection, parts.settings, action, found.uid)
    released = "is held no more, and " if found.held else ""
    typer.echo(f"Exam {found.uid}: {released}{counted(count, 'delivery waits', 'deliveries wait')} to be sent.")
    if gone:
        typer.secho(f"Left alone, for the settings do not name them any more: {', '.join(sorted(gone))}.", err=True)
    raise typer.Exit(0 if count or found.held else 1)


def _facts(parts: Parts, exam: str) -> dict[str, Any]:
    from node.results.facts import FACTS, kept_facts  # noqa: PLC0415 (keeps lists quick)

    with reading(parts.engine) as connection:
        found = find_exam(connection, exam)
        instances = instances_of_exam(connection, found.id)
        decided = {image.instance_uid: image for image in images_of(connection, found.id, found.revision)}
        removed = removed_of_exam(connection, found.id)
        kept = [result.record.path for result in results_of(connection, found.id) if result.record.kind == FACTS]
        conflicts = list_conflicts(connection, exam_id=found.id)
    answer = kept_facts(parts.store, kept[0]) if kept else None
    is_present = answer is not None and answer["revision"] == found.revision
    told = {image["uid"]: image for image in answer["images"]} if answer and is_present else {}
    return {
        **plain_exam(found),
        "images": [{**_image(each, decided.get(each.uid), told), "removed": each.uid in removed} for each in instances],
        "answer": answer,
        "jobs": [_job(job) for job in parts.queue.list_jobs(100, exam_id=found.id)],
        "deliveries": [_delivery(each) for each in parts.outbox.of_exam(found.id)],
        "conflicts": [plain(conflict) for conflict in conflicts],
    }


def _image(record: InstanceRecord, decided: ExamImage | None, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return an image, what was decided of it when its exam was closed, and what the answer to that tells of it."""
    answered = told.get(record.uid)
    why = answered["not_read"] if answered else decided.reason if decided else ""
    return {
        "instance": record.uid,
        "kind": record.kind,
        "view": f"{record.laterality or '?'} {record.view_position or '?'}",
        "chosen": decided.chosen if decided else None,
        "read": answered is not None and not answered["not_read"] if told and decided else None,
        "why": why or record.reasons[-1],
        "received": local(record.received_at),
    }


def _job(job: Job) -> dict[str, Any]:
    return {
        "job": job.id,
        "revision": job.revision,
        "state": job.state,
        "plan": job.plan,
        "model": job.model_digest[:12],
        "attempts": job.attempts,
        "answer": job.answer,
        "error": job.error,
        "seconds": job.timings,
    }


def _delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "delivery": delivery.id,
        "revision": delivery.revision,
        "destination": delivery.destination,
        "kind": delivery.kind,
        "state": delivery.state,
        "sent": local(delivery.sent_at) if delivery.sent_at else None,
        "proven": local(delivery.proven_at) if delivery.proven_at else None,
        "attempts": delivery.attempts,
        "status": None if delivery.status_code is None else f"{delivery.status_code:04X}H",
        "message": delivery.message,
        "result": delivery.result_uid,
    }


def _masses(answer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Return a line for each mass of an answer."""
    return [
        {
            "view": image["view"],
            "mass": mass["number"],
            "score": mass["suspicion"],
            "long x short axis": f"{mass['long_axis']} x {mass['short_axis']} {mass['unit']}",
            "measured by": mass["spacing"],
        }
        for image in (answer or {}).get("images", ())
        for mass in image.get("masses", ())
    ]
