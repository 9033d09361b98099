"""The command that gives up what no destination will ever take."""

from collections import Counter
from typing import Annotated, Final

import typer

from ai.words import counted
from config.mix import ResultKind
from config.settings import load_settings
from node.audit.commands import operator, record_done
from node.cli.options import ConfigOption, JsonOption, print_json
from node.cli.queues import OptionalExam
from node.intake import utc_now
from node.parts import open_parts
from node.waiving import told_of, words_of
from storage.actions import Action
from storage.database import reading, writing
from storage.exams import find_exam
from storage.states import DeliveryState
from storage.waiving import Wanted, waivable, waive

NOTHING: Final = (
    "Nothing may be waived: among these is nothing that was refused, has expired, or is for a destination that has gone from "
    "the settings. What waits for another may still go out; if it is not to, pause its lane (mammonode lanes pause NAME) and "
    "ask for --state waiting."
)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("waive")(waive_deliveries)


def waive_deliveries(
    exam: OptionalExam = "",
    *,
    config: ConfigOption = None,
    destination: Annotated[str, typer.Option(help="Only to this destination.")] = "",
    state: Annotated[
        DeliveryState | None, typer.Option(help="Only deliveries in this state; those of a paused lane only with it.")
    ] = None,
    kind: Annotated[ResultKind | None, typer.Option(help="Only this kind of object.")] = None,
    why: Annotated[str, typer.Option(help="Kept with your name, for whoever asks later.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this, only what would be waived is told.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Give up deliveries that will never be taken, so that nobody waits for them: retention, alarms, people.

    Those that were refused or have expired, and those that wait for a destination that has gone from the settings; what
    waits for one whose lane is paused, when it is asked for by its state. `mammonode send` sends them after all.
    """
    if not (exam or destination):
        raise typer.BadParameter("Name an exam, or a --destination.")
    if yes and not why.strip():
        raise typer.BadParameter("Say --why: it is kept with your name.")
    parts = open_parts(load_settings(config))
    with reading(parts.engine) as connection:
        exam_id = find_exam(connection, exam).id if exam else None
        served = parts.settings.addressed.keys()
        wanted = Wanted(served, exam_id, destination or None, kind, state)
        found = waivable(connection, wanted)
    exams = {each.exam_id: each.exam_uid for each in found}
    if yes:
        found = []
        for number, uid in exams.items():
            now = utc_now()
            with writing(parts.engine) as connection:
                waived = waive(connection, number, wanted, words_of(operator(), why), now)
                if waived:
                    action = Action("waive", operator(), now, number, detail=f"{told_of(waived)}: {why}")
                    record_done(connection, parts.settings, action, uid)
            found += waived
    if as_json:
        groups = Counter((each.exam_uid, each.destination, each.kind, str(each.state)) for each in found)
        names = ("exam", "destination", "kind", "state", "deliveries")
        rows = [dict(zip(names, (*group, number), strict=True)) for group, number in groups.items()]
        print_json({"waived": len(found) if yes else 0, "found": rows})
        return
    told = f"{counted(len(found), 'delivery', 'deliveries')} of {counted(len({e.exam_id for e in found}), 'exam')}"
    if not found:
        typer.echo(NOTHING)
    elif yes:
        typer.echo(f"Waived {told}: {told_of(found)}.")
    else:
        for uid in exams.values():
            typer.echo(uid)
        typer.secho(f"{told}: {told_of(found)}; nothing was waived. Add --why and --yes to waive them.", err=True)
