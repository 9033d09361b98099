"""A model card for people, made by an evaluation: what the model is, what it is for, how good it is, and its limits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import tomlkit

from ai.calibration import Calibration, Level
from ai.datasets.sources import Source
from ai.datasets.truth import Truth, kind_of
from ai.errors import InvalidDataset
from ai.evaluation.calibration import OperatingPoint, Reliability, operating_points, reliability, scores
from ai.evaluation.detection import FPPI, match
from ai.evaluation.plots import froc, plot_froc, plot_reliability, plot_roc
from ai.evaluation.predictions import Prediction, detections, rules_of
from ai.evaluation.report import Group, Report
from ai.models import CARD, Model, ModelCard, Training
from ai.training.durable import whole_file
from ai.words import counted

GROUPS: Final = ("marks", "image_labels", "pixels", "pixels_weak", "strata")
"""Of the report, those that a card tells."""


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Put a calibration into the card of a model directory; everything else in it stays as it is written there."""
    path = folder / CARD
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    document.pop("calibration", None)
    document["calibration"] = calibration.model_dump()
    ModelCard.model_validate(document.unwrap())
    with whole_file(path) as file:
        file.write(tomlkit.dumps(document).encode())


def write_model_card(
    folder: Path, model: Model, data: Source, predictions: Sequence[Prediction], report: Report, repeats: int
) -> Path:
    """Write card.md, froc.png, and where images say whether they show a cancer, roc.png and reliability.png.

    Parameters
    ----------
    folder
        Where to.
    data
        What was read.
    predictions, report
        What was read, with all candidates, and its figures.
    repeats
        Bootstrap draws over patients.
    """
    curves = [froc(rule.value, [match(rule, detections(p)) for p in predictions]) for rule in rules_of(predictions)]
    plot_froc(
        curves, folder / "froc.png", f"{model.card.name}: {counted(report.evaluation.images, 'image')} of {data.name}"
    )
    lines = [*_head(model), *_figures(data.name, report), "", "![FROC curves](froc.png)", ""]
    levels = scores(predictions, report.threshold)
    judged: dict[Level, Reliability] = {}
    lacking = []
    for level, scored in levels.items():
        try:
            judged[level] = reliability(scored, repeats)
        except InvalidDataset as error:
            lacking += [f"Not judged, level {level}: {error}.", ""]
    if judged:
        plot_roc({level: levels[level] for level in judged}, folder / "roc.png", f"{model.card.name} on {data.name}")
        plot_reliability(
            judged,
            folder / "reliability.png",
            "Each patient by curves fitted on others; bins of equal count, 95 % intervals",
        )
        lines += [*_calibration(model.card.calibration, judged), *lacking]
    else:
        lines += ["## Calibration", "", *lacking]
    if Level.EXAM in judged:
        lines += _operating_points(operating_points(levels[Level.EXAM], repeats))
    for group in report.groups:
        if group.key in GROUPS:
            lines += _strata(group) if group.key == "strata" else _group(group)
    lines += _limits(model.card, data, predictions)
    path = folder / "card.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _head(model: Model) -> Iterator[str]:
    card = model.card
    training = card.training
    yield from (f"# {card.name} {card.version}", "", f"**{card.use.statement}**", "")
    yield from _table(
        ("", ""),
        [
            ("reader", card.reader),
            ("digest", f"`{model.digest}`"),
            ("licence of the weights", card.licence),
            ("reads", ", ".join(card.use.accepts)),
            (
                "trained on",
                f"{counted(training.images, 'image')} of {counted(training.patients, 'patient')}: {training.data}",
            ),
            ("licence of the data", training.licence),
            ("attribution", training.attribution),
            ("start", training.start),
            ("finding from a detection of", f"{card.thresholds.get('mass', 0.5):g}"),
            ("command", f"`{command(training)}`"),
        ],
    )


def command(training: Training) -> str:
    """Return the command that trained a model, what the user gave it in words: the card names none of its files."""
    plan = training.plan
    given = any(part.get("start") in ("imagenet", "gmic") for part in plan.get("parts", ()))
    options = {
        "--start START": given or ", trained on " in training.start,
        "--upon MODEL": "upon" in plan,
        "--final MODEL": "final_of" in plan,
        f"--budget {plan.get('budget')}": "budget" in plan,
    }
    told = ["mammonode train", str(plan.get("recipe", "RECIPE")), "DATA", "--output FOLDER"]
    return " ".join([*told, *(option for option, used in options.items() if used)])


def _figures(data: str, report: Report) -> Iterator[str]:
    told = report.evaluation
    yield from (
        "## Figures",
        "",
        (
            f"On {data}: {counted(told.images, 'image')} of {counted(told.patients, 'patient')}, "
            f"{counted(told.masses, 'mass', 'masses')}; "
            f"{counted(told.refused, 'image was refused, and counts', 'images were refused, and count')} as read without a mark. Intervals of 95 % by bootstrap over patients."
        ),
        "",
    )
    rows = [
        (f"{limit:g}", *(str(found[place]) if told.masses else "-" for found in told.detection.values()))
        for place, limit in enumerate(FPPI)
    ]
    yield from _table(("sensitivity at false positives per image", *map(str, told.detection)), rows)
    yield from _table(
        ("", ""),
        [
            ("image AUC, malignant against other", str(told.image_auc or "not defined")),
            ("mass AUC, found masses", str(told.mass_auc or "not defined")),
            ("Dice of all candidates, misses 0", str(told.dice or "not defined")),
        ],
    )


def _calibration(calibration: Calibration | None, judged: dict[Level, Reliability]) -> Iterator[str]:
    yield from ("## Calibration", "")
    if calibration is None:
        yield from (
            "The card has none: the node tells scores alone. Below, what curves fitted here would be worth.",
            "",
        )
    else:
        yield from (
            (
                f"Probabilities hold for {calibration.population}, {100 * calibration.prevalence:.0f} % of them with a "
                "cancer; a site states its own prevalence, and sees none before."
            ),
            "",
        )
    rows = [
        (
            *(level.value, str(one.count), str(one.cancers), str(one.error), str(one.brier)),
            f"{one.brier_of_prevalence:.3f}",
        )
        for level, one in judged.items()
    ]
    header = ("level", "scores", "cancers", "calibration error", "Brier score", "of the prevalence alone")
    yield from _table(header, rows)
    yield from ("![Reliability](reliability.png)", "", "![ROC curves](roc.png)", "")


def _operating_points(points: Sequence[OperatingPoint]) -> Iterator[str]:
    yield from ("## Operating points of the exam score", "")
    rows = [(f"{100 * p.rate:g} %", str(p.threshold), str(p.recalled), str(p.sensitivity)) for p in points]
    yield from _table(("exams without cancer to recall", "score from", "recalled", "cancers recalled"), rows)
    yield from (
        "These exams without cancer have masses. At a screening unit few have: let `mammonode recall` count there.",
        "",
    )


def _group(group: Group) -> Iterator[str]:
    yield from (f"## {group.title[0].upper()}{group.title[1:]}", "")
    told = [row for row in group.rows if row.figure]
    yield from _table(("figure", "value"), [(row.name, str(row.figure)) for row in told]) if told else ()
    lacking: dict[str, list[str]] = {}
    for row in group.rows:
        if row.figure is None:
            lacking.setdefault(row.why, []).append(row.name)
    for why, names in lacking.items():
        which = "; ".join(names) if told else "all of these"
        yield from (f"Not defined, since {why}: {which}.", "")


def _strata(group: Group) -> Iterator[str]:
    """Yield a row for each stratum: its figures come one after the other, named ``STRATUM, at FPPI per image``."""
    yield from (f"## {group.title[0].upper()}{group.title[1:]}", "")
    rows: dict[str, dict[str, str]] = {}
    for row in group.rows:
        stratum, _, limit = row.name.partition(", ")
        rows.setdefault(stratum, {})[limit] = str(row.figure or "not defined")
    limits = next(iter(rows.values()), {})
    yield from _table(("stratum", *limits), [(stratum, *told.values()) for stratum, told in rows.items()])


def _limits(card: ModelCard, data: Source, predictions: Sequence[Prediction]) -> Iterator[str]:
    yield from ("## Limits", "", *(f"- {note}" for note in card.use.notes))
    for caveat in dict.fromkeys((*card.training.caveats, *data.caveats)):
        told = ("trained on", card.training.caveats), ("measured on", data.caveats)
        yield f"- Of the images that it was {' and '.join(words for words, theirs in told if caveat in theirs)}: {caveat}"
    if all(p.record.boxes for p in predictions):
        yield "- Every image that was scored has a mass: how often healthy women are marked is unknown."
    if any(kind_of(p.record) is Truth.ELLIPSE for p in predictions):
        yield "- The truth is boxes, or ellipses within them: weak labels, and no measure of outlines."
    yield "- No prospective test, no reader study, no comparison by site or vendor was made."
    yield "- Research use only."


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"
    yield ""
