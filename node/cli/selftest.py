"""The command that proves the node's health by an exam."""

import sys
from dataclasses import asdict

import typer

from config.settings import load_settings
from node.cli.options import ConfigOption, JsonOption, print_json
from node.telemetry import logger
from storage.errors import StorageError

log = logger("cli.selftest")


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("selftest")(selftest)


def selftest(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Send a synthetic exam through the running node, and see that its answer comes with the mass that is in it."""
    from node.logs import configure  # noqa: PLC0415 (as above)
    from node.parts import open_parts  # noqa: PLC0415 (as above)
    from node.selftest import run_selftest  # noqa: PLC0415 (keeps --help quick)

    settings = load_settings(config)
    configure(settings.log.format, settings.log.level, sys.stderr)
    try:
        test = run_selftest(open_parts(settings))
    except StorageError as error:
        # Whatever hangs on this event has to hear of it, though there is no database to note it in.
        log.error("self-test failed", phase="start", cause=str(error))  # noqa: TRY400 (the cause says it)
        raise typer.Exit(1) from error
    if as_json:
        print_json(asdict(test))
    raise typer.Exit(0 if test.passed else 1)
