"""Commands for tokens, with which programs and browsers open the HTTP door."""

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from config.settings import Scope, load_settings
from node.audit.commands import operator, record
from node.cli.options import OLDEST, ConfigOption, JsonOption, print_json, print_table
from node.parts import open_parts
from storage.database import reading, writing
from storage.tokens import add_token, list_tokens, revoke_token

Name = Annotated[str, typer.Argument(help="For people and for the log: who uses it.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(
        no_args_is_help=True, help="Tokens that open the HTTP door: make one, list them, take one back."
    )
    group.command("add")(add)
    group.command("list")(list_all)
    group.command("revoke")(revoke)
    app.add_typer(group, name="tokens")


def add(
    name: Name,
    *,
    scope: Annotated[list[Scope], typer.Option(help="What it allows; more than once for more: store, read, operate.")],
    days: Annotated[float, typer.Option(min=0, max=OLDEST, help="Ends after so many days; 0 never does.")] = 365,
    config: ConfigOption = None,
) -> None:
    """Make a token and print it, once: only its digest is kept.

    `store` sends images, `read` looks at everything the node holds, `operate` retries, resends, cancels and pauses.
    """
    parts = open_parts(load_settings(config))
    now = datetime.now(UTC)
    ends = now + timedelta(days=days) if days else None
    with writing(parts.engine) as connection:
        secret = add_token(connection, name, list(dict.fromkeys(scope)), now, ends)
        changed = f"token {name} added: {', '.join(dict.fromkeys(scope))}"
        record(connection, parts.settings, now, "configured", who=operator(), changed=changed, token=True)
    typer.echo(secret)
    until = f"until {ends.astimezone():%Y-%m-%d}" if ends else "until it is revoked"
    typer.secho(f"{name}: {', '.join(dict.fromkeys(scope))}, {until}. It is not shown again.", err=True)


def list_all(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the tokens, newest first: what each allows, until when, and when it was used last."""
    parts = open_parts(load_settings(config))
    now = datetime.now(UTC)
    with reading(parts.engine) as connection:
        found = list_tokens(connection)
    if as_json:
        print_json([{**vars(token), "valid": token.is_valid(now)} for token in found])
        return
    rows = []
    for token in found:
        valid = "yes" if token.is_valid(now) else "revoked" if token.revoked_at else "ended"
        times = (token.created_at, token.expires_at, token.used_at)
        rows.append((token.name, " ".join(token.scopes), valid, *map(_local, times)))
    print_table(("name", "scopes", "valid", "made", "ends", "used last"), rows)


def revoke(name: Name, *, config: ConfigOption = None) -> None:
    """Take a token back, with the browser sessions that were opened with it; at once, in a running node too."""
    parts = open_parts(load_settings(config))
    with writing(parts.engine) as connection:
        now, changed = datetime.now(UTC), f"token {name} revoked"
        revoke_token(connection, name, now)
        record(connection, parts.settings, now, "configured", who=operator(), changed=changed, token=True)
    typer.echo(f"{name} is revoked.")


def _local(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M") if moment else "never"
