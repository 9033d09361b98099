"""The command that removes files by hand, under the same rules as `[retention]`."""

from datetime import timedelta
from typing import Annotated

import typer

from config.policy import RetentionPolicy
from config.settings import load_settings
from node.audit.commands import operator, record
from node.cli.options import ConfigOption, JsonOption, print_json
from node.intake import utc_now
from node.parts import open_parts
from node.retention import Retention
from storage.database import reading, writing
from storage.removals import Due, removable_exams

MOST = 1_000_000


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("purge")(purge)


def purge(
    *,
    days: Annotated[float, typer.Option(min=0, help="Of exams whose last image came more than so many days ago.")],
    results: Annotated[bool, typer.Option("--results", help="Remove results, and not images.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without this, only what would be removed is told.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Remove images, or results, of old exams now, as `[retention]` would by itself; their records stay.

    Only of exams that are answered, are not held and have no open conflict, and whose every delivery has ended well.
    """
    parts = open_parts(load_settings(config))
    settings, now = parts.settings, utc_now()
    unproven, age = settings.retention.unproven, timedelta(days=days)
    due = Due(now - age, results, destinations=bool(settings.destinations), unproven=unproven)
    with reading(parts.engine) as connection:
        found = [uid for _, uid in removable_exams(connection, due, MOST)]
    gone = 0
    if yes and found:
        what = "results" if results else "images"
        with writing(parts.engine) as connection:
            told = f"purge: {what} of {len(found)} exams older than {days:g} days"
            record(connection, settings, now, "done", what=told, who=operator(), exam="")
        policy = RetentionPolicy(None if results else age, age if results else None, None, unproven=unproven)
        gone = Retention(parts.engine, parts.store, policy, utc_now, destinations=due.destinations).tick()
    if as_json:
        print_json({"exams": found, "files_removed": gone})
        return
    for uid in found:
        typer.echo(uid)
    if not found:
        typer.echo("Nothing may be removed: no exam is that old, answered, and delivered for good.")
    elif yes:
        typer.echo(f"{gone} files of {len(found)} exams are removed.")
    else:
        typer.secho(f"{len(found)} exams; nothing was removed. Add --yes to remove their files.", err=True)
