"""The command that collects what a support ticket needs."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from config.settings import load_settings
from node.cli.options import ConfigOption


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("doctor")(doctor)


def doctor(
    output: Annotated[
        Path | None, typer.Argument(help="File to write; by default one in storage.folder, whose name is printed.")
    ] = None,
    *,
    config: ConfigOption = None,
) -> None:
    """Collect what a support ticket needs into one file: versions, settings, queues, disk, last failures, warnings.

    No patients' data and no secrets are in it: passwords are masked, and so is whatever a sender or PACS has said in its
    own words. It is one JSON document: read it before you send it.
    """
    from node.doctor import examine  # noqa: PLC0415 (keeps --help quick)
    from node.intake import utc_now  # noqa: PLC0415 (as above)

    settings, now = load_settings(config), utc_now()
    target = output or settings.storage.folder / f"mammonode-doctor-{now:%Y%m%d-%H%M%S}.json"
    text = json.dumps(examine(settings, now), indent=1, default=str, ensure_ascii=False)
    try:
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(text + "\n")
    except OSError as error:
        typer.secho(
            f"{target}: {error.strerror}. Name a file that does not exist, in a folder that this user may write to.",
            err=True,
        )
        raise typer.Exit(1) from error
    typer.echo(target)
