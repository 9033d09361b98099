"""Commands for the audit trail: look at it, and see whether it is whole."""

from datetime import UTC, datetime
from typing import Annotated
from xml.etree import ElementTree as ET

import typer

from ai.words import counted
from config.settings import load_settings
from node.audit.commands import operator, record
from node.cli.options import ConfigOption, JsonOption, print_json, print_table
from node.parts import Parts, open_parts
from node.telemetry import logger
from storage.audit import Kept, Link, faults, head, kept
from storage.database import reading, writing
from storage.errors import DatabaseUnavailable

log = logger("cli.audit")


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="The audit trail (PS3.15 A.5): look at it, see whether it is whole.")
    group.command("verify")(verify)
    group.command("list")(list_all)
    app.add_typer(group, name="audit")


def verify(
    *,
    anchor: Annotated[
        str, typer.Option(help="NUMBER:DIGEST as the log told it (event audit chain): the trail must still have it.")
    ] = "",
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """See whether a record of the audit trail was changed, taken out or cut off; exit status 1 when one was.

    Whoever can change the whole database can make a new chain: compare it with an anchor from the journal.
    """
    parts = open_parts(load_settings(config))
    noted = _link(anchor) if anchor else None
    with reading(parts.engine) as connection:
        found, last = list(faults(connection, noted)), head(connection)
    _note_use(parts)
    if as_json:
        print_json({"records": last.number, "link": str(last), "faults": found})
    else:
        for fault in found:
            typer.secho(f"BROKEN {fault}", fg=typer.colors.RED)
        if not found:
            typer.echo(f"{counted(last.number, 'record')}, none changed, none missing. Last link: {last}")
    if found:
        log.error("audit trail broken", faults=found)
        raise typer.Exit(1)


def list_all(
    *,
    after: Annotated[
        int | None, typer.Option(min=0, max=2**63 - 1, help="Only records beyond this number.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10000, help="At most so many.")] = 50,
    xml: Annotated[bool, typer.Option("--xml", help="Print the messages themselves, one a line.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List records of the audit trail: the last ones, or those beyond a number. Looking at them is one itself."""
    parts = open_parts(load_settings(config))
    with reading(parts.engine) as connection:
        start = max(head(connection).number - limit, 0) if after is None else after
        found = kept(connection, start, limit)
    _note_use(parts)
    if xml:
        for each in found:
            typer.echo(each.message)
        return
    rows = [_row(each) for each in found]
    if as_json:
        print_json(rows)
        return
    columns = ("number", "at", "event", "who", "about", "outcome")
    print_table(columns, [[str(value) for value in row.values()] for row in rows])


def _row(each: Kept) -> dict[str, object]:
    root = ET.fromstring(each.message)  # noqa: S314 (our own, kept by us)
    event = root.find("EventIdentification")
    code = root.find("EventIdentification/EventID")
    who = [one.get("UserID", "") for one in root.iter("ActiveParticipant") if one.get("UserIsRequestor") == "true"]
    about = [one.get("ParticipantObjectID", "") for one in root.iter("ParticipantObjectIdentification")]
    words = root.findtext("EventIdentification/EventOutcomeDescription") or ""
    succeeded = event is None or event.get("EventOutcomeIndicator") == "0"
    return {
        "number": each.link.number,
        "at": each.recorded_at.astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        "event": code.get("originalText", "") if code is not None else "",
        "who": " ".join(who),
        "about": " ".join(about),
        "outcome": words or ("success" if succeeded else "failure"),
    }


def _link(anchor: str) -> Link:
    number, _, digest = anchor.partition(":")
    if not (number.isascii() and number.isdigit() and len(digest) == 64):
        typer.secho("An anchor is a number, a colon and 64 hexadecimal digits.", err=True)
        raise typer.Exit(2)
    return Link(int(number), digest)


def _note_use(parts: Parts) -> None:
    """Add to the trail that somebody has looked; where the database takes no writes, it waits as a running node's facts do."""
    from node.audit.facts import Fact  # noqa: PLC0415 (only where it is needed)
    from node.audit.spool import Spool  # noqa: PLC0415 (as above)

    now, told = datetime.now(UTC), {"who": operator()}
    try:
        with writing(parts.engine) as connection:
            record(connection, parts.settings, now, "trail used", **told)
    except DatabaseUnavailable as error:
        if Spool(parts.store.root / "audit").put(Fact.now("trail used", now, **told)):
            log.warning("audit messages wait", cause=str(error))
        else:
            log.critical("audit messages lost")
