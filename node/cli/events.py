"""The command that explains the events of the log."""

from typing import Annotated

import typer

from node.events import as_catalog, as_markdown, events


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("events")(list_events)


def list_events(
    name: Annotated[str, typer.Argument(help="Only events with this in their name.")] = "",
    *,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/events.md.")] = False,
    catalog: Annotated[bool, typer.Option("--catalog", help="Print a message catalog for journalctl -x.")] = False,
) -> None:
    """Explain the events of the log: what each means, and what to check when it comes as a warning or worse."""
    if markdown or catalog:
        for line in as_markdown() if markdown else as_catalog():
            typer.echo(line)
        return
    found = [event for event in events().values() if name.lower() in event.name.lower()]
    for event in found:
        typer.secho(f"{event.name} ({event.phase})", bold=True)
        typer.echo(f"  {event.means}")
        if event.check:
            typer.echo(f"  Check: {event.check}")
    if not found:
        typer.secho("No event has such a name.", err=True)
        raise typer.Exit(1)
