"""The command line: ``mammonode``."""

import gc
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

from node.faults import KNOWN_FAULTS, described
from node.logs import configure

MODULES: Mapping[str, tuple[str, ...]] = {
    "running": ("up", "serve", "work", "check", "echo", "demo"),
    "selftest": ("selftest",),
    "events": ("events",),
    "audit": ("audit",),
    "queues": ("exams", "jobs", "deliveries"),
    "exams": ("show", "retry", "send"),
    "conflicts": ("conflicts",),
    "senders": ("senders",),
    "lanes": ("destinations", "lanes"),
    "tokens": ("tokens",),
    "backup": ("backup", "restore", "adopt"),
    "waive": ("waive",),
    "purge": ("purge",),
    "recall": ("recall",),
    "doctor": ("doctor",),
    "reading": ("read",),
    "data": ("data", "folds"),
    "phantom": ("phantom",),
    "models": ("models",),
    "training": ("train", "recipes"),
    "evaluation": ("evaluate", "predict", "calibrate"),
    "conformance": ("conformance",),
}
"""Modules of this package, and the commands that each adds."""

HELP: Mapping[str, str] = {
    "up": "Run `serve` and `work` together on this machine; a part that dies is started again.",
    "serve": "Receive images, assemble exams and deliver results, until SIGTERM. Reading needs `work` beside it.",
    "work": "Read exams with the model, one after the other, until SIGTERM. Several may run, on several machines.",
    "check": "Check the settings, database, disk, model and destinations, and say for each failure what to do.",
    "echo": "C-ECHO the destinations: tell which of them answer, and what to do about the others.",
    "demo": "Run the main job on real exams: send by C-STORE, read, and see what a PACS receives.",
    "selftest": "Send a synthetic exam through the running node, and see that its answer comes with the mass that is "
    "in it.",
    "events": "Explain the events of the log: what each means, and what to check when it comes as a warning or worse.",
    "audit": "The audit trail (PS3.15 A.5): look at it, see whether it is whole.",
    "exams": "List exams, newest first: what was received, where it stands, and the answer.",
    "show": "Show all that is known of one exam: images and why they were chosen, findings, jobs, deliveries, "
    "conflicts.",
    "retry": "Read an exam's present revision again, as if it had never been tried.",
    "send": "Send an exam's results again, to all destinations that had them or to one.",
    "jobs": "List jobs, newest first: what is read, by whom, how often it was tried, and why it failed.",
    "deliveries": "List deliveries, newest first: what goes where, what the destination said, when it is tried again.",
    "destinations": "List the destinations of the settings: where they are, what they get, how they prove it, what waits "
    "for them.",
    "senders": "List who has called, last heard first: images and associations, refused ones, and why the last was "
    "refused.",
    "conflicts": "List images that came again with other content and wait for a decision, or of EXAM also the decided "
    "ones.",
    "lanes": "Lanes, one for each destination: list what waits and what was proven; pause one, resume it.",
    "tokens": "Tokens that open the HTTP door: make one, list them, take one back.",
    "backup": "Write the database into one file, as it is at one moment; the node may run. Copy the store, or its "
    "bucket, after it.",
    "restore": "Put a backup in the place of the database, then adopt the images that came since it was taken. The "
    "node must not run.",
    "adopt": "Let images that the database does not know come in once more, and tell which the store lost. The node "
    "must not run.",
    "purge": "Remove images, or results, of old exams now, as `[retention]` would by itself; their records stay.",
    "waive": "Give up deliveries that will never be taken, so that nobody waits for them: retention, alarms, people.",
    "recall": "Tell from which exam score on 2, 3, 5 and 10 % of the exams would be looked at twice, by sender.",
    "doctor": "Collect what a support ticket needs into one file: versions, settings, queues, disk, last failures, "
    "warnings.",
    "read": "Read files without a server.",
    "data": "Count what a data set holds, and look for leaks: masks that do not fit, images under two patients, "
    "no labels.",
    "folds": "Deal a data set's patients to folds that are alike, and write who is in which into a file.",
    "phantom": "Write synthetic four-view exams with exact truth, as DICOM; for trying and checking only "
    "(docs/phantoms.md).",
    "models": "Models: list, show and verify them, and install your own.",
    "train": "Train a recipe on a data set, and measure the model on the patients that were held out.",
    "recipes": "List the recipes that come with this version, one for each row of the papers' tables, or show one "
    "in full.",
    "evaluate": "Score a model on a labelled data set, each figure with a patient-bootstrap 95 % interval "
    "(docs/evaluation.md).",
    "predict": "Read every image of a data set (JPEG, PNG or DICOM) and write detections and image scores as JSON.",
    "calibrate": "Fit what a model's scores mean as probabilities, on the patients that its card kept, and write it "
    "into the card.",
    "conformance": "Print the DICOM conformance statement (PS3.2) of a configuration, as Markdown.",
}
"""The first paragraph of each, so that `--help` imports none of them: that took two seconds (a test compares)."""


class Commands(TyperGroup):
    """The commands, each imported when it is asked for: most need little of the program."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all."""
        return [*super().list_commands(ctx), *(name for names in MODULES.values() for name in names)]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write what there is, of each command its first words alone."""
        with ctx.scope():
            ctx.meta[LISTING] = True
            super().format_help(ctx, formatter)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command by its name."""
        module = next((module for module, names in MODULES.items() if cmd_name in names), None)
        if module is None:
            return super().get_command(ctx, cmd_name)
        if LISTING in ctx.meta:
            return TyperCommand(cmd_name, help=HELP[cmd_name], rich_markup_mode="markdown")
        return commands_of(module)[cmd_name]


@cache
def commands_of(module: str) -> Mapping[str, Any]:
    """Return the commands that a module of this package adds."""
    alone = typer.Typer(rich_markup_mode="markdown")
    alone.callback()(lambda: None)
    with imports():
        import_module(f"node.cli.{module}").register(alone)
    return get_group(alone).commands


@contextmanager
def imports() -> Iterator[None]:
    """Look for no garbage in what is imported here, neither now nor at the end: it stays, and is most of a short command."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


LISTING: Final = "node.cli.listing"

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
    """Run the command line; stdout is for results alone, and a fault is one line on stderr and exit status 1.

    No traceback: it would show values, names of patients among them (rule R14).
    """
    gc.disable()  # until all is imported, and not before: see `imports`
    # They are looked for in all that is installed, which takes as long as our tables.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "1"
    configure(stream=sys.stderr)
    try:
        app()
    except KNOWN_FAULTS as error:
        typer.secho(f"mammonode: {error}", err=True, fg=typer.colors.RED)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 (as said)
        words = f"mammonode: a fault of this program, please report it: {described(error)}"
        typer.secho(words, err=True, fg=typer.colors.RED)
        sys.exit(1)
