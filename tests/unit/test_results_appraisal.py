"""What scores mean at a site, in answers: a limit for a second look, and probabilities where they may be told (rule R4)."""

import json
from dataclasses import replace

import pytest

from ai.calibration import Level
from config.mix import ObjectMix, ResultKind
from config.policy import RecallLimit, ScorePolicy
from node.results.answer import Answer, AnswerStatus
from node.results.appraisal import appraisal, percent
from node.results.facts import facts
from tests.answers import MODEL, an_answer, an_edition, an_unread_answer, encoded, report_of
from tests.template_rows import TABLE
from tests.templates import judge
from tests.unit.test_calibration import CALIBRATION
from tests.unit.test_results_report import groups, items, scores

CALIBRATED = replace(MODEL, calibration=CALIBRATION)


def told(span: tuple[int, int] | None = None, **changes: object) -> Answer:
    """Return the answer of an exam of score 61, whose images' parts of the model say from the one to the other."""
    answer = an_answer()
    assert answer.findings
    images = tuple(replace(image, span=span) for image in answer.findings.images)
    return replace(answer, findings=replace(answer.findings, images=images), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("limit", "span", "words"),
    [
        (RecallLimit(62), None, "Exam score 61 is below this site's limit of 62 for a second look."),
        (RecallLimit(61), None, "Exam score 61 is at or above this site's limit of 61 for a second look."),
        (
            RecallLimit(50, 5, ("MG1",)),
            (55, 70),
            "61 is at or above this site's limit of 50 for MG1 for a second look.",
        ),
        (RecallLimit(66, 5), None, "below this site's limit of 66 for a second look, but BORDERLINE: within 5 points"),
        (RecallLimit(58), (55, 70), "limit of 58 for a second look, but BORDERLINE: parts of the model say 55 to 70."),
        (RecallLimit(55), (55, 70), "at or above this site's limit of 55 for a second look."),
    ],
)
def test_the_limit_in_words(limit: RecallLimit, span: tuple[int, int] | None, words: str) -> None:
    [sentence] = appraisal(told(span, recall=limit))
    assert sentence.endswith(words) or words in sentence


def test_the_first_limit_for_a_sender_counts() -> None:
    policy = ScorePolicy(None, (RecallLimit(70, senders=("MG1", "MG2")), RecallLimit(60)))
    assert [getattr(policy.limit(sender), "score", None) for sender in ("MG2", "MG3")] == [70, 60]
    assert ScorePolicy().limit("MG1") is None


@pytest.mark.parametrize(
    "answer",
    [
        told(),
        told(model=CALIBRATED),
        told(prevalence=0.01),
        an_unread_answer(AnswerStatus.FAILED, reason="no memory"),
        replace(an_unread_answer(AnswerStatus.FAILED, reason="no memory"), prevalence=0.01, recall=RecallLimit(50)),
    ],
)
def test_nothing_is_told_without_a_calibration_and_a_prevalence(answer: Answer) -> None:
    assert appraisal(answer) == []
    assert percent(answer, Level.EXAM, 61) is None
    assert "111047" not in json.dumps(report_of(answer).to_json_dict())
    assert facts(answer, an_edition(answer).uids)["probability"] is None


def test_probabilities_stand_in_reports_with_what_they_assume() -> None:
    answer = told(model=CALIBRATED, prevalence=0.01, recall=RecallLimit(50))
    value = percent(answer, Level.EXAM, 61)
    # The log odds of 61 are those of 61.5 / 101: 0.4420; of the exam 1.4 * 0.4420 - 0.5 + ln(1 / 99).
    assert value == 1.1
    sentence = appraisal(answer)[-1]
    assert sentence.startswith(
        "Probability of cancer: exam 1.1 %, L breast 1.1 %, R breast 1.1 %, if 1 % of such exams"
    )
    assert sentence.endswith("calibrated on women with a mass.")
    report = report_of(answer)
    assert sentence in json.dumps(report.to_json_dict())
    for group in groups(report):
        assert 0 < scores(group)["111047"] < 6
        assert [item.TextValue for item in items(group, "111002")][-1] == "prevalence=0.01"
    kept = facts(answer, an_edition(answer).uids)
    assert (kept["probability"], kept["prevalence"], kept["appraisal"]) == (1.1, 0.01, appraisal(answer))


def test_the_cad_report_has_a_row_for_the_probability() -> None:
    answer = told(model=CALIBRATED, prevalence=0.01)
    [cad] = [made.dataset for made in encoded(answer, ObjectMix(objects=(ResultKind.CAD_SR,)))]
    assert "Probability of cancer" in json.dumps(cad.to_json_dict())
    assert judge(cad, TABLE) == []


def test_what_a_site_states_is_part_of_the_objects_names() -> None:
    answers = [
        told(model=CALIBRATED),
        told(model=CALIBRATED, prevalence=0.01),
        told(model=CALIBRATED, prevalence=0.02),
        told(model=CALIBRATED, recall=RecallLimit(60)),
        told(model=CALIBRATED, recall=RecallLimit(60, 2)),
    ]
    assert len({an_edition(answer).uids.instance("SR") for answer in answers}) == len(answers)
