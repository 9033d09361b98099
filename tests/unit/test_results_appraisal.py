"""What scores mean at a site, in answers: a limit for a second look, and probabilities where they may be told (rule R4)."""

import json
from dataclasses import replace

import pytest

from ai.calibration import DOUBT, Level
from ai.exam import Laterality
from config.mix import ObjectMix, ResultKind
from config.policy import RecallLimit, ScorePolicy
from node.results.answer import Answer, AnswerStatus
from node.results.appraisal import appraisal, percent
from node.results.encode import to_bytes
from node.results.facts import facts
from node.results.pages import page
from tests.answers import MODEL, an_answer, an_edition, an_unread_answer, encoded, report_of
from tests.template_rows import TABLE
from tests.templates import judge
from tests.unit.test_calibration import CALIBRATION
from tests.unit.test_results_cad import named
from tests.unit.test_results_pdf import text_of
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


def doubted(span: tuple[int, int], *sides: Laterality, **changes: object) -> Answer:
    """Return the same answer, in which the parts of the model say from the one to the other for some breasts alone."""
    answer = told((58, 62), **changes)
    assert answer.findings
    images = tuple(
        replace(image, span=span) if image.view.laterality in sides else image for image in answer.findings.images
    )
    return replace(answer, findings=replace(answer.findings, images=images))


def test_a_breast_on_which_the_parts_of_the_model_differ_widely_is_called_uncertain_without_any_setting() -> None:
    wide, narrow = (30, 30 + DOUBT), (30, 29 + DOUBT)
    assert appraisal(doubted(narrow, *Laterality)) == []
    sentence = "UNCERTAIN: parts of the model say 30 to 70 for the {}; its score may be far off."
    assert appraisal(doubted(wide, Laterality.LEFT)) == [sentence.format("left breast")]
    assert appraisal(doubted(wide, *Laterality)) == [
        sentence.format("right breast"),
        sentence.format("left breast"),
    ]
    both = appraisal(doubted(wide, Laterality.RIGHT, recall=RecallLimit(50)))
    assert both == [
        sentence.format("right breast"),
        "Exam score 61 is at or above this site's limit of 50 for a second look.",
    ]
    assert appraisal(doubted(wide, Laterality.RIGHT, recall=RecallLimit(66)))[1].endswith(
        "but BORDERLINE: parts of the model say 58 to 70."
    )


def test_how_far_the_parts_of_the_model_are_apart_stands_in_the_json_of_every_answer() -> None:
    answer = doubted((10, 90), Laterality.LEFT)
    kept = json.loads(json.dumps(facts(answer, an_edition(answer).uids)))
    assert kept["span"] == [58, 90]
    assert {image["view"]: image["span"] for image in kept["images"]} == {
        "R CC": [58, 62],
        "R MLO": [58, 62],
        "L CC": [10, 90],
        "L MLO": [10, 90],
    }
    silent = facts(told(), an_edition(told()).uids)
    assert (silent["span"], {image["span"] for image in silent["images"]}) == (None, {None})


SAID = {
    "doubt": "UNCERTAIN: parts of the model say 20 to 77 for the left breast; its score may be far off.",
    "limit": "Exam score 61 is at or above this site's limit of 60 for a second look, but BORDERLINE: parts of the "
    "model say 58 to 77.",
    "probability": "Probability of cancer: exam 1.1 %, L breast 1.1 %, R breast 1.1 %, if 1 % of such exams have one; "
    "calibrated on women with a mass.",
}
EVERYTHING = {"model": CALIBRATED, "prevalence": 0.01, "recall": RecallLimit(60)}


@pytest.fixture(scope="module")
def appraised() -> Answer:
    """An answer of which everything is said that can be said of its scores."""
    return doubted((20, 77), Laterality.LEFT, **EVERYTHING)


@pytest.mark.parametrize("words", SAID.values(), ids=SAID)
def test_each_sentence_stands_once_in_each_report_and_on_each_page(appraised: Answer, words: str) -> None:
    report = report_of(appraised)
    comments = [item.TextValue for item in named(report, "121106")]
    assert comments.count(words) == 1
    assert judge(report, TABLE) == []
    [cad] = [made.dataset for made in encoded(appraised, ObjectMix(objects=(ResultKind.CAD_SR,)))]
    impressions = [line for item in named(cad, "111033") for line in item.TextValue.split("\r\n")]
    assert impressions.count(words) == 1
    assert judge(cad, TABLE) == []
    assert text_of(appraised).count(words) == 1
    assert page(an_edition(appraised, ObjectMix((ResultKind.SC,)))).lines.count(words) == 1


def test_where_the_parts_agree_no_object_tells_of_them_and_equal_doubts_give_equal_bytes() -> None:
    kinds = ObjectMix((ResultKind.SR, ResultKind.CAD_SR, ResultKind.PDF))
    sure, doubtful, again = (
        [to_bytes(made.dataset) for made in encoded(doubted(span, Laterality.LEFT), kinds)]
        for span in ((58, 62), (20, 77), (20, 77))
    )
    assert not any(b"parts of the model" in each for each in sure)
    assert doubtful == again != sure


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


def test_a_doubt_of_one_breast_is_part_of_the_objects_names_though_the_exam_s_span_is_the_other_s() -> None:
    answers = [doubted(span, Laterality.LEFT) for span in ((5, 30), (5, 55), (5, 60))]
    assert {answer.findings.span for answer in answers if answer.findings} == {(58, 62)}
    sure, doubtful, more = (an_edition(answer).uids.instance("SR") for answer in answers)
    assert len({sure, doubtful, more}) == 3
    assert sure == an_edition(told((58, 62))).uids.instance("SR")


def test_what_a_site_states_is_part_of_the_objects_names() -> None:
    answers = [
        told(model=CALIBRATED),
        told(model=CALIBRATED, prevalence=0.01),
        told(model=CALIBRATED, prevalence=0.02),
        told(model=CALIBRATED, recall=RecallLimit(60)),
        told(model=CALIBRATED, recall=RecallLimit(60, 2)),
    ]
    assert len({an_edition(answer).uids.instance("SR") for answer in answers}) == len(answers)
