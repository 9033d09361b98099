"""The command line: ``mammonode``."""

import sys
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from ai.errors import AIError
from config.errors import ConfigError
from node.errors import NodeError
from node.telemetry import configure
from storage.errors import StorageError

KNOWN_FAULTS = (AIError, ConfigError, NodeError, StorageError)
"""Errors whose text says what to do."""

MODULES: Mapping[str, tuple[str, ...]] = {
    "running": ("up", "serve", "work", "check", "echo", "demo"),
    "selftest": ("selftest",),
    "events": ("events",),
    "audit": ("audit",),
    "exams": ("exams", "show", "retry", "send"),
    "queues": ("jobs", "deliveries", "destinations", "senders"),
    "conflicts": ("conflicts",),
    "lanes": ("lanes",),
    "tokens": ("tokens",),
    "backup": ("backup", "restore", "adopt"),
    "purge": ("purge",),
    "recall": ("recall",),
    "doctor": ("doctor",),
    "reading": ("read",),
    "data": ("data",),
    "phantom": ("phantom",),
    "models": ("models",),
    "training": ("train", "recipes"),
    "evaluation": ("evaluate", "predict", "calibrate"),
    "conformance": ("conformance",),
}
"""Modules of this package, and the commands that each adds."""


class Commands(TyperGroup):
    """The commands, each imported when it is asked for: most need little of the program."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all."""
        return [*super().list_commands(ctx), *(name for names in MODULES.values() for name in names)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        module = next((module for module, names in MODULES.items() if cmd_name in names), None)
        if module is None:
            return super().get_command(ctx, cmd_name)
        return commands_of(module)[cmd_name]


@cache
def commands_of(module: str) -> Mapping[str, Any]:
    """Return the commands that a module of this package adds."""
    alone = typer.Typer(rich_markup_mode="markdown")
    alone.callback()(lambda: None)
    import_module(f"node.cli.{module}").register(alone)
    return get_group(alone).commands


app = typer.Typer(
    name="mammonode",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    help="AI node for screening mammography: receives four-view exams, finds masses, answers with DICOM SEG and SR. "
    "**Research use only.** Start with `mammonode demo`; then copy the settings, `mammonode check` them, and run "
    "`mammonode up`.",
)
app.callback()(lambda: None)


def main() -> None:
    """Run the command line; stdout is for results alone, and a known fault is one line on stderr and exit status 1."""
    configure(stream=sys.stderr)
    try:
        app()
    except KNOWN_FAULTS as error:
        typer.secho(f"mammonode: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
