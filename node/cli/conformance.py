"""``mammonode conformance``: the DICOM conformance statement of a configuration."""

from pathlib import Path
from typing import Annotated

import typer

from ai.outputs import writable_file
from config.settings import load_settings
from node.cli.options import ConfigOption

OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", help="Markdown file to write; else it is printed.", dir_okay=False)
]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("conformance")(conformance)


def conformance(*, config: ConfigOption = None, output: OutputOption = None) -> None:
    """Print the DICOM conformance statement (PS3.2) of a configuration, as Markdown.

    It says what is received, from whom, what is sent to which destination, and what every object contains. Secrets are
    not shown. It takes some seconds: the objects are made from a synthetic exam, and described.
    """
    settings = load_settings(config)
    if output:
        writable_file(output)
    from node.conformance import statement  # noqa: PLC0415 (keeps --help quick)

    text = statement(settings)
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")
        typer.echo(f"wrote {output}", err=True)
