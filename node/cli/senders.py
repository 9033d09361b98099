"""The command for who has called."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

from config.settings import load_settings
from node.cli.options import ConfigOption, JsonOption, local, print_rows
from node.parts import open_parts
from storage.database import reading
from storage.senders import Sender, list_senders


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("senders")(senders)


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
    print_rows(rows, "Nobody has called.", as_json=as_json)
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
            print_rows(proposed, "", as_json=False, title=f"{each.calling_ae} at {each.address}")


def _sender(each: Sender, *, known: bool) -> dict[str, Any]:
    tallies = [tally for _, tally in each.days]
    return {
        "sender": each.calling_ae,
        "address": each.address,
        "in callers": known,
        "last heard": local(each.last_seen),
        "images": sum(tally.images for tally in tallies),
        "refused images": sum(tally.images_refused for tally in tallies),
        "associations": sum(tally.associations for tally in tallies),
        "refused associations": sum(tally.associations_refused for tally in tallies),
        "last refusal": each.refusal or "",
        "refused at": local(each.refused_at),
    }
