"""Scores as probabilities: curves, the shift of prevalence, thresholds, and how well they hold."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ai.calibration import Calibration, Curve, Level, Likelihood, log_odds, score_log_odds, threshold_for
from ai.datasets.records import Record
from ai.datasets.sources import Source
from ai.errors import InvalidDataset
from ai.evaluation.calibration import Scored, calibrate, fit, operating_points, reliability, scores
from ai.evaluation.model_card import command, write_calibration, write_model_card
from ai.evaluation.predictions import Prediction
from ai.evaluation.report import report
from ai.exam import Laterality, View, ViewPosition
from ai.findings import ImageFindings
from ai.models import open_model, read_card
from ai.training.card import Content, Provenance, write_card
from tests.builders import L_CC
from tests.models import a_quick_model
from tests.predictions import a_mass

L_MLO = View(Laterality.LEFT, ViewPosition.MLO)
R_CC = View(Laterality.RIGHT, ViewPosition.CC)
CURVE = Curve(slope=1.4, offset=-0.5)
CALIBRATION = Calibration(
    population="women with a mass", prevalence=0.5, finding=CURVE, image=CURVE, breast=CURVE, exam=CURVE
)


def simulated(count: int, curve: Curve = CURVE, seed: int = 1) -> list[Scored]:
    """Return scores whose chance of cancer is the curve's."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, 101, count)
    return [
        Scored(f"P{n}", int(score), bool(rng.random() < 1 / (1 + math.exp(-curve.log_odds(score)))))
        for n, score in enumerate(drawn)
    ]


@given(st.integers(0, 99), st.floats(0.001, 0.999), st.sampled_from(Level))
def test_a_higher_score_is_a_higher_probability(score: int, prevalence: float, level: Level) -> None:
    likelihood = Likelihood(CALIBRATION, prevalence)
    lower, higher = (likelihood.probability(level, s) for s in (score, score + 1))
    assert 0 < lower < higher < 1


@given(st.integers(0, 100), st.floats(0.001, 0.999))
def test_another_prevalence_moves_the_log_odds_by_the_difference(score: int, prevalence: float) -> None:
    here = Likelihood(CALIBRATION, prevalence).probability(Level.EXAM, score)
    there = Likelihood(CALIBRATION, CALIBRATION.prevalence).probability(Level.EXAM, score)
    assert log_odds(there) == pytest.approx(CURVE.log_odds(score), abs=1e-6)
    assert log_odds(here) - log_odds(there) == pytest.approx(log_odds(prevalence), abs=1e-6)  # that of 0.5 is 0


def test_half_a_point_keeps_the_ends_finite() -> None:
    assert score_log_odds(0) == pytest.approx(math.log(0.5 / 100.5))
    assert score_log_odds(50) == pytest.approx(0)


@given(st.floats(0.01, 1), st.lists(st.integers(0, 100), min_size=1, max_size=60))
def test_a_threshold_keeps_to_its_rate_and_a_lower_one_would_not(rate: float, given_scores: list[int]) -> None:
    threshold = threshold_for(rate, given_scores)

    def share(limit: int) -> float:
        return sum(score >= limit for score in given_scores) / len(given_scores)

    assert share(threshold) <= rate + 1e-9
    assert threshold == 1 or share(threshold - 1) > rate - 1e-9


def test_a_fit_finds_the_curve_that_made_the_scores() -> None:
    curve = fit(simulated(20_000))
    assert curve.slope == pytest.approx(CURVE.slope, abs=0.06)
    assert curve.offset == pytest.approx(CURVE.offset, abs=0.06)


def test_a_fit_keeps_from_certainty_where_classes_do_not_overlap() -> None:
    apart = [Scored(f"P{n}", 80 if n % 2 else 20, bool(n % 2)) for n in range(20)]
    curve = fit(apart)
    # Platt's targets: 11/12 and 1/12 for ten of each.
    assert 1 / (1 + math.exp(-curve.log_odds(80))) == pytest.approx(11 / 12, abs=1e-3)


@pytest.mark.parametrize(
    ("scored", "words"),
    [
        (
            [Scored("A", 10, cancer=True), Scored("B", 90, cancer=True)],
            "of these scores needs some with cancer and some without",
        ),
        ([Scored("A", 10, cancer=True), Scored("B", 90, cancer=False)], "rise with cancer"),
        (  # by 0.00003, which a card does not tell from 0
            [Scored("A", score, cancer=cancer) for cancer in (True, False) for score in [0, 100] * 50 + [50 + cancer]],
            "rise with cancer",
        ),
    ],
)
def test_a_fit_refuses_what_says_nothing(scored: Sequence[Scored], words: str) -> None:
    with pytest.raises(InvalidDataset, match=words):
        fit(scored)


def test_probabilities_hold_where_scores_say_something_and_say_no_more_than_the_prevalence_elsewhere() -> None:
    good = reliability(simulated(2000), repeats=5)
    assert good.error.value < 0.05
    assert good.brier.value < good.brier_of_prevalence
    assert good.points[:, 2].sum() == good.count == 2000
    noise = reliability(simulated(2000, Curve(slope=0.1, offset=-0.4)), repeats=5)
    assert noise.brier.value > 0.97 * noise.brier_of_prevalence


def test_operating_points_count_exams_with_and_without_cancer() -> None:
    exams = [Scored(f"N{n}", n, cancer=False) for n in range(100)]
    exams += [Scored(f"C{n}", score, cancer=True) for n, score in enumerate((100, 97, 94, 10))]
    points = operating_points(exams, repeats=5)
    assert [(p.rate, p.threshold, p.recalled.value, p.sensitivity.value) for p in points] == [
        (0.02, 98, 0.02, 0.25),
        (0.03, 97, 0.03, 0.5),
        (0.05, 95, 0.05, 0.5),
        (0.10, 90, 0.1, 0.75),
    ]


def test_scores_of_each_level_and_the_truth_behind_them() -> None:
    square = (10, 10, 10, 10)

    def read(name: str, view: View, malignancy: float, *marks: tuple[tuple[int, int, int, int], float]) -> Prediction:
        cancer = name.startswith("cancer")
        masses = tuple(a_mass(box, detection) for box, detection in marks)
        words = ("MALIGNANT",) if cancer else ("BENIGN",)
        record = Record(f"{name}.png", "P", view, (square,), malignant=cancer, pathologies=words)
        return Prediction(record, ImageFindings(name, view, (80, 60), masses, 90, malignancy), None)

    unlabelled = read("cancer again", L_MLO, 0.4, (square, 0.9))
    found = scores(
        [
            read("cancer", L_CC, 0.3, (square, 0.9), ((40, 40, 5, 5), 0.6), ((50, 50, 5, 5), 0.1)),
            read("benign", R_CC, 0.2, (square, 0.9)),
            Prediction(Record("refused.png", "P", R_CC, (square,), malignant=True), None, "no breast"),
            replace(unlabelled, record=replace(unlabelled.record, boxes=(), pathologies=(), labelled=False)),
        ],
        threshold=0.5,
    )
    # Marks of a_mass have a suspicion of 50; the weak one does not count.
    assert [(s.score, s.cancer) for s in found[Level.FINDING]] == [(50, True), (50, False), (50, False)]
    assert [(s.score, s.cancer) for s in found[Level.IMAGE]] == [(50, True), (50, False), (50, True)]
    assert [(s.score, s.cancer) for s in found[Level.BREAST]] == [(50, True), (50, False)]
    assert [(s.score, s.cancer) for s in found[Level.EXAM]] == [(50, True)]


def test_a_card_gets_its_calibration_and_the_model_another_digest(tmp_path: Path) -> None:
    before = a_quick_model(tmp_path / "model")
    folder = before.folder
    calibration = calibrate({level: simulated(300) for level in Level}, "simulated exams")
    write_calibration(folder, calibration)
    after = open_model(str(folder))
    assert after.identity.calibration == after.card.calibration == calibration
    # The shipped one has its own.
    assert before.card.calibration != calibration
    assert after.digest != before.digest
    assert after.card.model_dump(exclude={"calibration"}) == before.card.model_dump(exclude={"calibration"})
    write_calibration(folder, calibration)
    assert open_model(str(folder)).digest == after.digest
    json.dumps(after.card.model_dump(mode="json"))


@pytest.mark.parametrize(("known", "judged"), [(True, ["image", "breast", "exam"]), (False, [])])
def test_a_level_without_scores_is_said_on_the_card_and_takes_no_other_with_it(
    tmp_path: Path, judged: list[str], *, known: bool
) -> None:
    predictions = [
        Prediction(
            Record(f"{number}.png", f"P{number}", L_CC, ((10, 10, 10, 10),), malignant=one.cancer if known else None),
            ImageFindings(str(number), L_CC, (80, 60), (), one.score, one.score / 100),
        )
        for number, one in enumerate(simulated(60))
    ]
    told = report(predictions, 0.5, 2)
    model = a_quick_model(tmp_path / "model")
    card = write_model_card(tmp_path, model, Source("drawn"), predictions, told, 2).read_text(encoding="utf-8")
    lacking = [level.value for level in Level if level.value not in judged]
    assert [line.split()[3] for line in card.splitlines() if line.startswith("Not judged")] == [
        f"{n}:" for n in lacking
    ]
    assert [name for name in judged if f"| {name} | 60 |" in card] == judged
    assert ("Operating points" in card) == known == (tmp_path / "reliability.png").is_file()


@pytest.mark.parametrize(
    ("start", "plan", "options"),
    [
        ("EfficientNet-Lite0", {"parts": [{"start": "lite0"}]}, ""),
        ("random", {"parts": [{"start": "random"}], "upon": "own 1, d"}, " --upon MODEL"),
        ("ImageNet, file.pth", {"parts": [{"start": "imagenet"}]}, " --start START"),
        ("own 1, fold-0, trained on films (CC0), from random", {"budget": 20}, " --start START --budget 20"),
        ("EfficientNet-Lite0", {"final_of": "own 1, d"}, " --final MODEL"),
    ],
)
def test_the_card_tells_the_command_with_the_options_that_made_the_model(
    tmp_path: Path, start: str, plan: dict[str, Any], options: str
) -> None:
    training = a_quick_model(tmp_path / "model").card.training
    changed = training.model_copy(update={"start": start, "plan": {"recipe": "r", **plan}})
    assert command(changed) == f"mammonode train r DATA --output FOLDER{options}"


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"evaluation": {"validation": {"images": 2}}}, True),
        ({"thresholds": {"mass": 0.4}}, False),
        ({"plan": {"recipe": "r", "split": {"trained_folds": [0, 1]}}}, False),
        ({"weights": ["other"]}, False),
    ],
)
def test_another_card_of_the_same_model_keeps_the_calibration(
    tmp_path: Path, change: dict[str, Any], *, kept: bool
) -> None:
    for name in ("own", "other"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    content = Content(
        *("mass_fpn", "Research use only.", {}, {"mass": 0.3}, "random"),
        training=[Record("a.png", "P", L_CC)],
        plan={"recipe": "r", "split": {"trained_folds": [0]}},
        weights=["own"],
        evaluation={},
    )
    path = write_card(tmp_path, Provenance("one", Source("drawn")), content)
    write_calibration(tmp_path, CALIBRATION)
    write_card(tmp_path, Provenance("two", Source("drawn")), replace(content, **change))
    assert read_card(path).calibration == (CALIBRATION if kept else None)
