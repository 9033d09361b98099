"""The command that tells which exam score recalls how many of the exams that were read here."""

from collections.abc import Sequence
from datetime import timedelta
from math import sqrt
from typing import Annotated, Any

import typer
from rich.table import Table
from sqlalchemy import Connection

from ai.calibration import threshold_for
from ai.models import open_model
from ai.words import counted
from config.settings import TEST_AE_TITLE, load_settings
from node.cli.options import OLDEST, ConfigOption, JsonOption, print_json, stdout_console
from node.intake import utc_now
from node.parts import open_parts
from storage.database import reading
from storage.figures import Answered, answers_since

ALL = "all senders"
RECENT = timedelta(days=90)
"""Whose exams are counted, when nobody says otherwise."""
FEW = 200
"""Exams below which a rate of some percent stands on a handful of them."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("recall")(recall)


def recall(
    rates: Annotated[list[float] | None, typer.Argument(help="Shares of the exams to recall, in percent.")] = None,
    *,
    config: ConfigOption = None,
    days: Annotated[int, typer.Option(min=1, max=OLDEST, help="Exams that were answered within so many days.")] = (
        RECENT.days
    ),
    as_json: JsonOption = False,
) -> None:
    """Tell from which exam score on 2, 3, 5 and 10 % of the exams would be looked at twice, by sender.

    For reader.recall in the settings (docs/calibration.md). The newest reading of each exam counts, where it was made by the
    model of the settings: scores of another one say nothing of it. Self-tests do not count.
    The lowest score is told that keeps to the rate, with the share that it recalls and its 95 % interval (Wilson 1927).
    """
    wanted = rates or [2, 3, 5, 10]
    if wrong := [rate for rate in wanted if not 0 < rate <= 100]:
        raise typer.BadParameter(f"{wrong[0]:g}: give shares above 0 and up to 100 percent")
    settings = load_settings(config)
    model = open_model(settings.reader.model, settings.reader.models_folder)
    with reading(open_parts(settings).engine) as connection:
        found = read_here(connection, timedelta(days=days))
    scores = _scores([each for each in found if each.model_digest == model.digest])
    if former := sum(each.model_digest != model.digest for each in found):
        typer.echo(f"{counted(former, 'exam')} read by another model than {model.card.name} left out.", err=True)
    told = [_row(sender, scores[sender], rate) for sender in scores for rate in wanted]
    if as_json:
        print_json(told)
        return
    if not scores:
        typer.echo(f"No exam with a score was answered within {counted(days, 'day')}.")
        return
    table = Table("sender", "exams", "wanted", "score from", "recalls", "95 % interval")
    for row in told:
        share, low, high = (f"{100 * row[key]:.1f} %" for key in ("share", "low", "high"))
        table.add_row(
            *(row["sender"], str(row["exams"]), f"{row['rate']:g} %", str(row["score"]), share, f"{low} to {high}")
        )
    stdout_console().print(table)
    if any(len(each) < FEW for each in scores.values()):
        typer.echo(f"Fewer than {FEW} exams say little of a rate of a few percent.", err=True)


def read_here(connection: Connection, within: timedelta) -> list[Answered]:
    """Return the newest reading of each exam of the last days that has a score; self-tests do not count."""
    newest = {each.exam: each for each in answers_since(connection, utc_now() - within)}
    return [each for each in newest.values() if each.score is not None and each.sender != TEST_AE_TITLE]


def _scores(answered: Sequence[Answered]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for each in answered:
        if each.score is not None:
            for sender in (ALL, each.sender):
                found.setdefault(sender, []).append(round(each.score))
    return dict(sorted(found.items(), key=lambda item: (item[0] != ALL, item[0])))


def _row(sender: str, scores: Sequence[int], rate: float) -> dict[str, Any]:
    threshold = threshold_for(rate / 100, scores)
    recalled = sum(score >= threshold for score in scores)
    share, low, high = wilson(recalled, len(scores))
    return {
        "sender": sender,
        "exams": len(scores),
        "rate": rate,
        "score": threshold,
        "share": share,
        "low": low,
        "high": high,
    }


def wilson(successes: int, trials: int) -> tuple[float, float, float]:
    """Return a share with its 95 % interval (Wilson 1927); of at least one trial."""
    z, share = 1.96, successes / trials
    centre = share + z * z / (2 * trials)
    half = z * sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    whole = 1 + z * z / trials
    return share, max((centre - half) / whole, 0.0), min((centre + half) / whole, 1.0)
