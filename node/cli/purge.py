"""The command that removes files by hand, under the same rules as `[retention]`."""

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated

import typer

from ai.words import counted
from config.policy import RetentionPolicy
from config.settings import load_settings
from node.audit.commands import operator, record
from node.cli.options import OLDEST, ConfigOption, JsonOption, print_json
from node.intake import utc_now
from node.parts import open_parts
from node.retention import Retention, what_is_due
from storage.database import reading, writing
from storage.ownership import require_own
from storage.removals import obstacles, removable_exams, strays
from storage.states import DeliveryState

MOST = 1_000_000
REMEDY = (
    "What was refused or has expired goes again by mammonode send EXAM, once the destination takes it. What will never be "
    "taken, also by a destination that has gone from the settings: mammonode waive --destination NAME."
)


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("purge")(purge)


def purge(
    *,
    days: Annotated[
        float, typer.Option(min=0, max=OLDEST, help="Of exams whose last image came more than so many days ago.")
    ],
    results: Annotated[bool, typer.Option("--results", help="Remove results, and not images.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this, only what would be removed is told.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove images, or results, of old exams now, as `[retention]` would by itself; their records stay.

    Only of exams that are answered, are not held and have no open conflict, and whose every delivery has ended well or was
    waived. With images go old objects that belong to no exam, with results what readings of the same study that came to no
    end have left. Deliveries that keep exams which are old enough are told by destination.
    """
    parts = open_parts(load_settings(config))
    settings, now = parts.settings, utc_now()
    unproven, age = settings.retention.unproven, timedelta(days=days)
    due = what_is_due(settings.destinations, now - age, results_too=results, unproven=unproven)
    with reading(parts.engine) as connection:
        found = [uid for _, uid in removable_exams(connection, due, MOST)]
        kept = obstacles(connection, due)
        of_none = 0 if results else len(strays(connection, due.before))
    told = counted(len(found), "exam") + (f" and {counted(of_none, 'object')} of no exam" if of_none else "")
    gone = 0
    if yes and (found or of_none):
        require_own(parts.engine, parts.store)
        what = "results" if results else "images"
        with writing(parts.engine) as connection:
            done = f"purge: {what} of {told} older than {counted(days, 'day')}"
            record(connection, settings, now, "done", what=done, who=operator(), exam="")
        policy = RetentionPolicy(None if results else age, age if results else None, None, unproven=unproven)
        gone = Retention(parts.engine, parts.store, policy, utc_now, destinations=settings.destinations).tick()
    if as_json:
        print_json(
            {
                "exams": found,
                "objects_of_no_exam": of_none,
                "files_removed": gone,
                "kept": [asdict(each) for each in kept],
            }
        )
        return
    for uid in found:
        typer.echo(uid)
    for each in kept:
        what = f"mammonode deliveries --state {each.state} --destination {each.destination}"
        told_of = f"Kept: {counted(each.exams, 'exam')}, for {each.kind} to {each.destination} {each.state}: {what}"
        typer.secho(told_of, err=True)
    ended = {DeliveryState.REFUSED, DeliveryState.EXPIRED}
    if any(each.state in ended or each.destination not in settings.addressed for each in kept):
        typer.secho(REMEDY, err=True)
    if not (found or of_none):
        typer.echo("Nothing may be removed: no exam is that old, answered, and delivered for good.")
    elif yes:
        typer.echo(f"Removed {counted(gone, 'file')} of {told}.")
    else:
        typer.secho(f"{told}; nothing was removed. Add --yes to remove their files.", err=True)
