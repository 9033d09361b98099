"""The command line: ``mammonode``."""

import sys

import typer

from ai.errors import AIError
from config.errors import ConfigError
from node.cli import (
    audit,
    backup,
    conflicts,
    conformance,
    data,
    doctor,
    evaluation,
    events,
    exams,
    lanes,
    models,
    phantom,
    purge,
    queues,
    reading,
    recall,
    running,
    selftest,
    tokens,
    training,
)
from node.errors import NodeError
from node.telemetry import configure
from storage.errors import StorageError

KNOWN_FAULTS = (AIError, ConfigError, NodeError, StorageError)
"""Errors whose text says what to do."""

app = typer.Typer(
    name="mammonode",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="AI node for screening mammography: receives four-view exams, finds masses, answers with DICOM SEG and SR. "
    "**Research use only.** Start with `mammonode demo`; then copy the settings, `mammonode check` them, and run "
    "`mammonode up`.",
)
for module in (
    running,
    selftest,
    events,
    audit,
    exams,
    queues,
    conflicts,
    lanes,
    tokens,
    backup,
    purge,
    recall,
    doctor,
    reading,
    data,
    phantom,
    models,
    training,
    evaluation,
    conformance,
):
    module.register(app)


def main() -> None:
    """Run the command line; stdout is for results alone, and a known fault is one line on stderr and exit status 1."""
    configure(stream=sys.stderr)
    try:
        app()
    except KNOWN_FAULTS as error:
        typer.secho(f"mammonode: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
