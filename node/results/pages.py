"""What an answer says to people, in short sentences, and as the page of pictures that SC and PDF show."""

from collections.abc import Iterable
from typing import Final

from ai.exam import STANDARD_VIEWS, Laterality, View
from ai.findings import ExamFindings
from ai.pixels import pixel_aspect
from ai.words import counted
from node.identity import MODEL_NAME, RESEARCH_USE_ONLY, VERSION
from node.results.answer import Answer, AnswerStatus, ImageAnswer
from node.results.appraisal import BREASTS, appraisal
from node.results.drawing import Page, Panel, masses_in_words, panel
from node.results.edition import Edition
from node.results.source import orientation, plain
from node.results.sr import matched

TITLE: Final = "AI mammography result"
MARK: Final = "RESEARCH USE ONLY"
PRIMARY: Final = "NOT FOR PRIMARY DIAGNOSIS."
SCORES: Final = "Scores are suspicion scores from 0 to 100, not probabilities."
LABELS: Final = "Beside each outline: number of the mass in its view, and its score."
NONE_EXPECTED: Final = "No image of this view, and none was expected."
LONGEST: Final = 320
"""Characters of a remark: one image in place of another takes two UIDs of 64 (PS3.5 9.1), and why."""


def page(edition: Edition) -> Page:
    """Return the page of an exam: what was answered in words, the four views, and who answered."""
    answer = edition.answer
    scores = [f"{exam_scores(answer.findings)} (suspicion scores)."] if answer.findings else []
    return Page(
        TITLE,
        MARK,
        tuple(shortened([headline(answer), *scores, *remarks(answer)], 8, LONGEST)),
        panels(edition),
        (warning(answer), *shortened([*origin(answer), *notes(answer)], 5, 240)),
    )


def warning(answer: Answer) -> str:
    """Return what stands under every picture."""
    explained = [SCORES, LABELS] if answer.findings else []
    return " ".join([PRIMARY, RESEARCH_USE_ONLY, *explained])


def panels(edition: Edition) -> dict[View, Panel]:
    """Return each standard view as it is hung: its picture with outlines, or why there is none."""
    answer = edition.answer
    read = {image.view: image for image in answer.images if image.not_read is None}
    shown = {}
    for view in STANDARD_VIEWS:
        image = read.get(view)
        drawn = image_panel(edition, image) if image else None
        shown[view] = drawn.flipped(**turned(image, view)) if image and drawn else _empty(answer, view)
    return shown


def image_panel(edition: Edition, image: ImageAnswer) -> Panel | None:
    """Return an image that was read with what was found in it, as it was stored; None when it has no picture."""
    pixels, found = edition.pictures.get(image.uid), edition.answer.findings_of(image)
    if pixels is None or found is None:
        return None
    return panel(found.view, pixels, found, aspect=pixel_aspect(image.header))


def turned(image: ImageAnswer, view: View) -> dict[str, bool]:
    """Return how a stored image is turned for hanging, by its Patient Orientation (PS3.3 C.7.6.1.1.1).

    Rows of a right breast run to posterior, of a left one to anterior; columns of MLO run to the feet, of CC to the
    middle. An image that doesn't tell is hung as it is.
    """
    along_row, along_column = orientation(image.header) or ("", "")
    front = "P" if view.laterality is Laterality.LEFT else "A"
    down = {"MLO": "H", "CC": str(view.laterality)}[view.position]
    return {"sideways": along_row.startswith(front), "upright": along_column.startswith(down)}


def _empty(answer: Answer, view: View) -> Panel:
    words = why(answer, view)
    return Panel(f"{view}   {'no image' if words == NONE_EXPECTED else 'NOT READ'}", words=words)


def why(answer: Answer, view: View) -> str:
    """Return why a view has no picture."""
    told = [image.not_read for image in answer.images if image.view == view and image.not_read]
    if told:
        return plain(f"Not read: {told[0].rstrip('.')}.")
    if any(image.view == view for image in answer.images):
        return "Read, but without a picture."
    if view in answer.missing:
        return "Not read: no image of this view could be used."
    if answer.findings is None:
        return "Not read."
    return NONE_EXPECTED


def headline(answer: Answer) -> str:
    """Return the answer in one sentence."""
    if answer.findings is None:
        failed = answer.status is AnswerStatus.FAILED
        return "The reading FAILED: there is no result." if failed else "NOT ANALYSED: there is no result."
    count, views = answer.findings.count, len(answer.findings.images)
    found = f"{masses_in_words(count)} {'marked' if count else 'shown' if answer.hidden else 'found'} in {counted(views, 'view')}"
    found = found[0].upper() + found[1:]
    return f"{found}." if answer.status.complete else f"PARTIAL: not all expected views were read. {found}."


def exam_scores(findings: ExamFindings) -> str:
    """Return the scores of exam and breasts, for example ``Exam 61, right breast 60``."""
    given = {breast.laterality: breast.score for breast in findings.breasts}
    breasts = [f"{words} {given[side]}" for side, words in BREASTS.items() if side in given]
    return ", ".join([f"Exam {findings.score}", *breasts])


def remarks(answer: Answer) -> list[str]:
    """Return the reasons, the changes, and what was not read or read with a warning, each sentence once, in ASCII."""
    lines = [*appraisal(answer), *matches(answer), *answer.reasons, *answer.changes]
    if answer.missing:
        lines.append(f"Views not read: {', '.join(map(str, answer.missing))}.")
    lines += [f"Not read: {image.view or 'an image'}: {image.not_read}" for image in answer.images if image.not_read]
    if answer.findings:
        lines += [f"{image.view}: {warning}" for image in answer.findings.images for warning in image.warnings]
    return list(dict.fromkeys(plain(line) for line in lines))


def matches(answer: Answer) -> list[str]:
    """Return which masses may be one lesion, a sentence for each pair."""
    return [matched(pair) for pair in (answer.findings.matches if answer.findings else ())]


def origin(answer: Answer) -> list[str]:
    """Return which model answered, when."""
    model = answer.model
    return [
        plain(
            f"Model {model.name} {model.version} ({model.digest[:12]}), {MODEL_NAME} {VERSION}, "
            f"{answer.created_at.isoformat(' ', 'minutes')}, revision {answer.revision}."
        )
    ]


def notes(answer: Answer) -> list[str]:
    """Return the model's notes for reports."""
    return [plain(note) for note in answer.model.notes]


def shortened(lines: Iterable[str], count: int, length: int) -> list[str]:
    """Return at most so many lines of at most so many characters; the last one says how many are left out."""
    given = [line if len(line) <= length else f"{line[: length - 3]}..." for line in lines]
    if len(given) <= count:
        return given
    return [*given[: count - 1], f"And {len(given) - count + 1} more remarks: see the structured report."]
