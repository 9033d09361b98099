"""A model card for people, made by an evaluation: what the model is, what it is for, how good it is, and its limits."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import tomlkit

from ai.calibration import Calibration, Level
from ai.datasets.sources import Source, caveats_known
from ai.datasets.truth import Truth, kind_of
from ai.errors import InvalidDataset
from ai.evaluation.calibration import OperatingPoint, Reliability, operating_points, reliability, scores
from ai.evaluation.detection import FPPI, match
from ai.evaluation.plots import froc, plot_froc, plot_reliability, plot_roc
from ai.evaluation.predictions import Prediction, detections, rules_of
from ai.evaluation.report import Group, Report, Row
from ai.models import CARD, Model, ModelCard, Training
from ai.training.durable import whole_file
from ai.words import counted

GROUPS: Final = ("marks", "image_labels", "pixels", "pixels_weak", "doubt", "strata")
"""Of the report, those that a card tells."""
ELSEWHERE: Final = ("marks", "pixels")
"""Those that it tells of a further set."""
FEW: Final = 10
"""Masses or breasts below which a part of them has counts and no figure."""
FILE: Final = "card.md"


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
    folder: Path,
    model: Model,
    data: Source,
    predictions: Sequence[Prediction],
    report: Report,
    repeats: int,
    *,
    held_out: bool = False,
) -> Path:
    """Write card.md, froc.png, and where images say whether they show a cancer, roc.png and reliability.png.

    Parameters
    ----------
    folder
        Where to.
    data
        What was read.
    held_out
        Whether that is the part of the training data that the model's card kept: then what is true of the one is of both.
    predictions, report
        What was read, with all candidates, and its figures.
    repeats
        Bootstrap draws over patients.
    """
    curves = [froc(rule.value, [match(rule, detections(p)) for p in predictions]) for rule in rules_of(predictions)]
    plot_froc(
        curves, folder / "froc.png", f"{model.card.name}: {counted(report.evaluation.images, 'image')} of {data.name}"
    )
    lines = [
        *_head(model),
        *_use(model.card),
        *_selection(model.card),
        *_figures(data.name, report),
        "",
        "![FROC curves](froc.png)",
        "",
    ]
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
    lines += _limits(model.card, data, predictions, held_out=held_out)
    path = folder / FILE
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def check_model_card(folder: Path, model: Model) -> None:
    """Make sure that a folder holds a card of this model, to which figures can be added.

    Raises
    ------
    InvalidDataset
        When there is none, or it is another model's.
    """
    path = folder / FILE
    if not path.is_file():
        raise InvalidDataset(f"{path}: there is no card yet; write it first, without --append")
    if f"`{model.digest}`" not in path.read_text(encoding="utf-8"):
        raise InvalidDataset(f"{path}: this is not the card of {model.card.name}, digest {model.digest[:12]}")


def append_to_model_card(folder: Path, data: Source, report: Report) -> Path:
    """Tell in a card that is there what was measured on a further set; what it said of a set of that name goes.

    Parameters
    ----------
    folder
        Of the card, see :func:`check_model_card`.
    data
        The further set.
    report
        Its figures.
    """
    path, heading = folder / FILE, f"## Elsewhere: {data.name}"
    before, *sections = re.split(r"(?m)^(?=## )", path.read_text(encoding="utf-8"))
    kept = [section for section in sections if section.partition("\n")[0] != heading]
    told = "\n".join(_elsewhere(heading, data, report))
    *others, limits = kept
    path.write_text("".join([before, *others, f"{told}\n", limits]), encoding="utf-8")
    return path


def _elsewhere(heading: str, data: Source, report: Report) -> Iterator[str]:
    yield from (heading, "", _counts("", report), "")
    evaluation = report.evaluation
    yield from _table(
        ("", ""),
        [
            ("licence of the data", data.licence),
            ("attribution", data.attribution),
            ("Dice of all candidates that were asked for, misses 0", str(evaluation.dice or "not defined")),
            ("the same, where anything overlaps", str(evaluation.dice_found or "not defined")),
        ],
    )
    for group in report.groups:
        if group.key in ELSEWHERE:
            yield from _group(group, "###")
    yield from (*(f"- {caveat}" for caveat in data.caveats), "") if data.caveats else ()


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


def _use(card: ModelCard) -> Iterator[str]:
    yield from (
        "## Intended use",
        "",
        card.use.statement,
        "",
        f"- It reads the CC and MLO views of screening, {', '.join(card.use.accepts)}.",
        "- Its outlines and scores are for people who look at the images themselves, and for studies of such systems.",
        "- Not for diagnosis, nor to decide that an exam need not be looked at: nobody has certified it.",
        "- Masses alone are looked for. An exam without a mark may have calcifications, distortions or asymmetries.",
        "- A score orders exams. It is no probability, and no limit of it was chosen for anybody's unit.",
        "",
    )


def _selection(card: ModelCard) -> Iterator[str]:
    """Yield what was chosen, and on whom: figures on the same patients are too good."""
    yield from ("## What was chosen, and on whom", "")
    how = card.training.plan.get("threshold") or "how it was found the card does not say"
    yield f"- A finding from a detection of {card.thresholds.get('mass', 0.5):g}: {how}."
    if card.calibration is not None:
        yield f"- The curves of probabilities were fitted on {card.calibration.population}."
    yield from (f"- {sentence}" for sentence in card.selection)
    if not card.selection:
        yield "- Which patients chose this model among others its card does not say."
    yield from ("", "Where figures below are of those same patients, they are better than those of others will be.", "")


def _counts(of: str, report: Report) -> str:
    told = report.evaluation
    return (
        f"{of}{counted(told.images, 'image')} of {counted(told.patients, 'patient')}, "
        f"{counted(told.masses, 'mass', 'masses')}; "
        f"{counted(told.refused, 'image was refused, and counts', 'images were refused, and count')} as read without "
        "a mark. Intervals of 95 % by bootstrap over patients."
    )


def _figures(data: str, report: Report) -> Iterator[str]:
    told = report.evaluation
    yield from ("## Figures", "", _counts(f"On {data}: ", report), "")
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
        "Each limit was chosen on the exams that it is told of. At a screening unit few exams have a mass: let `mammonode recall` count there.",
        "",
    )


def _group(group: Group, level: str = "##") -> Iterator[str]:
    yield from (f"{level} {group.title[0].upper()}{group.title[1:]}", "")
    told = [row for row in group.rows if row.figure]
    counts = list(dict.fromkeys(name for row in told for name in row.counts))
    rows = [(row.name, *(row.counts.get(name, "") for name in counts), _figure(row)) for row in told]
    yield from _table(("figure", *counts, "value"), rows) if told else ()
    lacking: dict[str, list[str]] = {}
    for row in group.rows:
        if row.figure is None:
            lacking.setdefault(row.why, []).append(row.name)
    for why, names in lacking.items():
        which = "; ".join(names) if told else "all of these"
        yield from (f"Not defined, since {why}: {which}.", "")


def _figure(row: Row) -> str:
    few = next(iter(row.counts.values()), FEW) < FEW
    return f"fewer than {FEW}" if few else str(row.figure or "not defined")


def _strata(group: Group) -> Iterator[str]:
    """Yield a row for each stratum: its figures come one after the other, named ``STRATUM, WHERE``."""
    yield from (f"## {group.title[0].upper()}{group.title[1:]}", "")
    strata: dict[str, list[Row]] = {}
    for row in group.rows:
        strata.setdefault(row.name.partition(", ")[0], []).append(row)
    first = next(iter(strata.values()), [])
    header = ("stratum", *(first[0].counts if first else ()), *(row.name.partition(", ")[2] for row in first))
    yield from _table(
        header, [(name, *rows[0].counts.values(), *(_figure(row) for row in rows)) for name, rows in strata.items()]
    )


def _limits(card: ModelCard, data: Source, predictions: Sequence[Prediction], *, held_out: bool) -> Iterator[str]:
    yield from ("## Limits", "", *(f"- {note}" for note in card.use.notes))
    learned = card.training.caveats or caveats_known(card.training.attribution)
    measured = data.caveats
    if held_out:
        learned = measured = tuple(dict.fromkeys((*learned, *measured)))
    for caveat in dict.fromkeys((*learned, *measured)):
        told = ("trained on", learned), ("measured on", measured)
        yield f"- Of the images that it was {' and '.join(words for words, theirs in told if caveat in theirs)}: {caveat}"
    if all(p.record.boxes for p in predictions):
        yield "- Every image that was scored has a mass: how often healthy women are marked is unknown."
    if any(kind_of(p.record) is Truth.ELLIPSE for p in predictions):
        yield "- The truth is boxes, or ellipses within them: weak labels, and no measure of outlines."
    yield "- No prospective test, no reader study, no comparison by site, vendor, age or origin was made."
    yield "- Research use only."


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield "|" + "---|" * len(header)
    for row in rows:
        yield f"| {' | '.join(str(cell).replace('|', '/') for cell in row)} |"
    yield ""
