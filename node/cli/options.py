"""Options that several commands share."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ai.errors import MissingExtra
from config.settings import load_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ai.models import Model

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        envvar="MAMMONODE_CONFIG",
        help="Settings file; without one the defaults hold.",
        dir_okay=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
ModelOption = Annotated[str, typer.Option("--model", help="Shipped or installed model by name, or a model directory.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto (CUDA when present), cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0 takes all.")]

OLDEST = 36_500
"""Days; what is counted back from today, or on."""
WIDTH = 250
"""Characters of a line of a table that nobody sees in a window."""


def named_model(name: str) -> "Model":
    """Open a model that a command was given; installed ones are looked for where MAMMONODE_CONFIG's settings say.

    Raises
    ------
    ai.errors.ModelError
        When there is none, or its card is not valid.
    """
    from ai.models import open_model  # noqa: PLC0415 (keeps commands without a model quick)

    return open_model(name, load_settings().reader.models_folder)


def progress() -> "Progress":
    """Return bars that show how long work goes on."""
    from node.cli.bars import Bars  # noqa: PLC0415 (most commands have none)

    return Bars()


def require_extra(*packages: str) -> None:
    """Refuse a command whose packages come with the extra ``train``, before it has worked for hours.

    Raises
    ------
    MissingExtra
        The packages are named.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtra(f"Missing: {', '.join(missing)}")


def stdout_console() -> "Console":
    """Return what tables are printed on; in a pipe there is no window whose width would cut their words."""
    from node.cli.console import PlainConsole  # noqa: PLC0415 (JSON needs none)

    return PlainConsole(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH)


def print_table(columns: Iterable[str], rows: Iterable[Sequence[str]], title: str | None = None) -> None:
    """Print a table on stdout."""
    from rich.table import Table  # noqa: PLC0415 (as above)

    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*row)
    stdout_console().print(table)


def print_json(value: Any) -> None:
    """Print JSON on stdout."""
    typer.echo(json.dumps(value, indent=1, default=str))


LESS_WANTED = ("queued", "next", "sent", "proven", "refused at", "test", "worker", "answer", "associations")
"""Columns that only a wide terminal shows; JSON has them all."""
WIDE = 150
SHORT_EXAM = 8


def print_rows(rows: Sequence[dict[str, Any]], nothing: str, *, as_json: bool, title: str | None = None) -> None:
    """Print rows as JSON or as a table, or that there are none."""
    if as_json:
        print_json(rows)
    elif not rows:
        typer.echo(nothing)
    else:
        wide = stdout_console().width >= WIDE
        names = [name for name in rows[0] if wide or name not in LESS_WANTED]
        print_table(names, [[_cell(name, row[name]) for name in names] for row in rows], title)


def _cell(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return str(value)[:SHORT_EXAM] if name == "exam" else str(value)


def local(moment: datetime | None) -> str:
    """Return a time as people of this place read it."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else ""
