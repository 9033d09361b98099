"""Commands for destinations and their lanes: what waits for each, pause, resume."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from config.settings import load_settings
from node.audit.commands import operator, record_done
from node.cli.options import ConfigOption, JsonOption, print_json, print_rows, print_table
from node.lanes import lane_statuses
from node.parts import Parts, open_parts
from storage.actions import Action
from storage.database import writing
from storage.lanes import Pause
from storage.lanes import pause as pause_lane
from storage.lanes import resume as resume_lane
from storage.states import DeliveryState

Name = Annotated[str, typer.Argument(help="Name of a destination.")]
SHOWN = (
    *(DeliveryState.WAITING, DeliveryState.SENT, DeliveryState.COMMITTED, DeliveryState.VERIFIED),
    *(DeliveryState.REFUSED, DeliveryState.EXPIRED),
)


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        invoke_without_command=True,
        help="Lanes, one for each destination: list what waits and what was proven; pause one, resume it.",
    )
    group.callback()(list_lanes)
    group.command("pause")(pause)
    group.command("resume")(resume)
    app.add_typer(group, name="lanes")
    app.command("destinations")(destinations)


def list_lanes(context: typer.Context, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the lanes: open or not and why, deliveries by state, and since when the oldest waits."""
    if context.invoked_subcommand:
        return
    parts = open_parts(load_settings(config))
    lanes = lanes_of(parts)
    if as_json:
        print_json(lanes)
        return
    rows = []
    for lane in lanes:
        counts = [str(lane["deliveries"][state]) for state in SHOWN]
        rows.append((lane["destination"], lane["lane"], *counts, str(lane["oldest_waiting"] or "")))
    print_table(("destination", "lane", *SHOWN, "oldest waiting"), rows)


def pause(
    name: Name,
    *,
    config: ConfigOption = None,
    why: Annotated[str, typer.Option(help="For whoever finds it paused.")] = "",
) -> None:
    """Send nothing to a destination until it is resumed, whatever is restarted meanwhile. What waits goes on waiting."""
    parts = open_parts(load_settings(config))
    _known(parts, name)
    now = datetime.now(UTC)
    with writing(parts.engine) as connection:
        paused = pause_lane(connection, Pause(name, now, operator(), why))
        if paused:
            record_done(connection, parts.settings, Action("pause", operator(), now, destination=name, detail=why))
    typer.echo(f"{name} is paused{'' if paused else ' already'}; mammonode lanes resume {name} lets it send again.")


def resume(name: Name, *, config: ConfigOption = None) -> None:
    """Send to a destination again."""
    parts = open_parts(load_settings(config))
    with writing(parts.engine) as connection:
        resumed = resume_lane(connection, name)
        if resumed:
            action = Action("resume", operator(), datetime.now(UTC), destination=name)
            record_done(connection, parts.settings, action)
    if not resumed:
        _known(parts, name)
    typer.echo(f"{name} is resumed." if resumed else f"{name} was not paused.")


def destinations(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the destinations of the settings: where they are, what they get, how they prove it, what waits for them."""
    parts = open_parts(load_settings(config))
    lanes = {lane["destination"]: lane for lane in lanes_of(parts)}
    print_rows(
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


def lanes_of(parts: Parts) -> list[dict[str, Any]]:
    """Return what is known of each lane as JSON types, also of those whose destination has gone from the settings."""
    return [
        {
            "destination": lane.name,
            "lane": str(lane),
            "paused": vars(lane.pause) if lane.pause else None,
            "open": lane.is_open,
            "windows": list(lane.destination.windows) if lane.destination else [],
            "associations": lane.destination.associations if lane.destination else 0,
            "deliveries": lane.deliveries,
            "oldest_waiting": lane.oldest_waiting,
        }
        for lane in lane_statuses(parts.engine, parts.outbox, parts.settings.destinations, datetime.now(UTC))
    ]


def _known(parts: Parts, name: str) -> None:
    names = [destination.name for destination in parts.settings.destinations]
    if name not in names:
        typer.secho(f"No such destination in the settings; there are: {', '.join(names) or 'none'}.", err=True)
        raise typer.Exit(1)
