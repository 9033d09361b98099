"""The command for copies that contradict a received image: list them, decide about them."""

import json
from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

import typer
from sqlalchemy import Connection

from config.settings import load_settings
from node.audit.commands import operator, record_done
from node.cli.options import ConfigOption, JsonOption, print_json, print_table
from node.parts import Parts, open_parts
from storage.actions import Action
from storage.conflicts import Conflict, list_conflicts
from storage.database import reading
from storage.exams import ExamRecord, find_exam
from storage.states import ConflictState

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[EXAM] | accept ID... | reject ID...",
        help="An exam id, or a decision and the numbers of the conflicts it is about; nothing lists all that wait.",
        show_default=False,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("conflicts")(conflicts)


def conflicts(words: Words = None, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List images that came again with other content and wait for a decision, or of EXAM also the decided ones.

    `accept` puts the later copy in force: its exam is answered anew, under the identity that the copy states.
    `reject` leaves the first copy in force: deliveries that were held for it go on.
    """
    parts = open_parts(load_settings(config))
    match words or []:
        case [("accept" | "reject") as decision, *numbers] if numbers:
            _decide(parts, decision, numbers)
        case []:
            _list(parts, None, as_json=as_json)
        case [exam] if exam not in ("accept", "reject"):
            _list(parts, exam, as_json=as_json)
        case _:
            typer.secho("Give one exam, or accept or reject with the numbers of conflicts.", err=True)
            raise typer.Exit(2)


def plain(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict as JSON types; the path is that of the copy which is not in force."""
    copy = conflict.copy
    return {
        "id": conflict.id,
        "exam": conflict.exam_uid,
        "instance": copy.instance_uid,
        "identity": copy.identity_changed,
        "differences": ", ".join(copy.differences),
        "state": conflict.state,
        "path": copy.path,
    }


def _list(parts: Parts, exam: str | None, *, as_json: bool) -> None:
    with reading(parts.engine) as connection:
        if exam is None:
            found = list_conflicts(connection, state=ConflictState.OPEN)
        else:
            found = list_conflicts(connection, exam_id=find_exam(connection, exam).id)
    told = [plain(conflict) for conflict in found]
    if as_json:
        print_json(told)
        return
    if not told:
        typer.echo("No conflicts.")
        return
    words = [[json.dumps(value) if isinstance(value, bool) else str(value) for value in row.values()] for row in told]
    print_table(told[0], words)


def _decide(parts: Parts, decision: str, numbers: Sequence[str]) -> None:
    from ai.models import ready_model  # noqa: PLC0415 (keeps lists quick)
    from node.corrections import Corrections  # noqa: PLC0415 (as above)
    from node.intake import utc_now  # noqa: PLC0415 (as above)
    from node.views import kinds_of  # noqa: PLC0415 (as above)

    if not all(number.isascii() and number.isdigit() for number in numbers):
        typer.secho(f"{decision} takes the numbers of conflicts: mammonode conflicts lists them.", err=True)
        raise typer.Exit(2)
    reader = parts.settings.reader
    kinds = kinds_of(ready_model(reader.model, reader.models_folder).card.use.accepts)
    corrections = Corrections(parts.engine, parts.store, kinds, utc_now)
    decide = corrections.accept if decision == "accept" else corrections.reject

    def note(number: str, connection: Connection, changed: Sequence[ExamRecord]) -> None:
        for exam in changed:
            action = Action(decision, operator(), utc_now(), exam.id, detail=f"conflict {number}")
            record_done(connection, parts.settings, action, exam.uid)

    for number in numbers:
        for exam in decide(int(number), partial(note, number)):
            held = ", held" if exam.held else ""
            typer.echo(
                f"Conflict {number} {decision}ed: exam {exam.uid}, revision {exam.revision}: {exam.state}{held}."
            )
