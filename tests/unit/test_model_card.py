"""The model card for people: what was chosen on whom, the data's caveats, small numbers, and figures of further sets."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import pytest
import tomlkit

from ai.calibration import Level
from ai.datasets.records import Record
from ai.datasets.sources import SOURCES, Source, caveats_known
from ai.errors import InvalidDataset
from ai.evaluation.calibration import Scored
from ai.evaluation.model_card import append_to_model_card, check_model_card, write_model_card
from ai.evaluation.plots import plot_roc
from ai.evaluation.predictions import Prediction
from ai.evaluation.report import report
from ai.models import CARD, Model, open_model
from tests.builders import L_CC, R_CC
from tests.models import a_quick_model
from tests.predictions import SQUARE, a_mass, a_prediction

FILMS = Source("films", "CC0", "whoever", ("They were squeezed.",))
OUTLINES = Source("outlines, type=DM", "CC BY 4.0 (not confirmed)", "its makers", ("Some are skin.",))


def said_of(count: int, **spans: tuple[int, int]) -> list[Prediction]:
    """Return one image of each of so many patients, every third of density 4 and every second a cancer."""
    told = []
    for number in range(count):
        cancer = number % 2 == 0
        view = L_CC if number % 4 < 2 else R_CC
        record = Record(
            f"{number}.png",
            f"P{number}",
            view,
            (SQUARE,),
            malignant=cancer,
            pathologies=("MALIGNANT" if cancer else "BENIGN",),
            density=4 if number % 3 == 0 else 1,
        )
        one = a_prediction(
            record, a_mass((10, 10, 10, 10)), malignancy=(60 + number % 30 if cancer else 20 + number % 30) / 100
        )
        assert one.findings
        told.append(replace(one, findings=replace(one.findings, view=view, span=spans.get(f"of_{number}", (40, 50)))))
    return told


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small model."""
    return a_quick_model(tmp_path_factory.mktemp("quick") / "model")


def carded(folder: Path, model: Model, predictions: Sequence[Prediction], *, held_out: bool = False) -> str:
    """Return the card that is written of predictions on films."""
    path = write_model_card(folder, model, FILMS, predictions, report(predictions, 0.5, 2), 2, held_out=held_out)
    return path.read_text(encoding="utf-8")


def with_card(folder: Path, model: Model, **changes: object) -> Model:
    """Return a copy of a model in whose card something else stands; a dotted name is a key of a table."""
    document = tomlkit.parse((model.folder / CARD).read_text(encoding="utf-8")).unwrap()
    for name, value in changes.items():
        *tables, key = name.split("__")
        place = document
        for table in tables:
            place = place[table]
        place[key] = value
    folder.mkdir()
    (folder / CARD).write_text(tomlkit.dumps(document), encoding="utf-8")
    return open_model(f"{folder}/")


def test_the_card_tells_how_its_threshold_was_found_and_what_was_chosen_on_whom(tmp_path: Path, model: Model) -> None:
    chosen = "That this network ships was chosen on the validation patients."
    how = {"recipe": "r", "threshold": "the best on the held-out part itself"}
    one = with_card(tmp_path / "one", model, selection=[chosen], training__plan=how, thresholds__mass=0.266)
    told = carded(tmp_path, one, said_of(12))
    assert "\n- A finding from a detection of 0.266: the best on the held-out part itself.\n" in told
    assert f"\n- {chosen}\n" in told
    assert "does not say" not in told
    assert one.card.calibration is not None
    assert f"The curves of probabilities were fitted on {one.card.calibration.population}." in told
    other = with_card(tmp_path / "other", model, selection=[], training__plan={"recipe": "r"})
    silent = carded(tmp_path, other, said_of(12))
    assert "how it was found the card does not say." in silent
    assert "\n- Which patients chose this model among others its card does not say.\n" in silent


def test_what_was_chosen_on_whom_leaves_the_digest_of_a_model(tmp_path: Path, model: Model) -> None:
    folders = [with_card(tmp_path / name, model, selection=[name]) for name in ("one", "other")]
    assert {each.digest for each in folders} == {model.digest}


@pytest.mark.parametrize("name", ["mass-fpn-pair", "mass-fpn-boxes"])
def test_a_shipped_card_says_what_was_chosen_on_its_validation_patients(name: str) -> None:
    card = open_model(name).card
    assert any("validation patients" in sentence for sentence in card.selection)
    assert "held-out part itself" in card.training.plan["threshold"]


def test_caveats_of_the_training_data_are_told_by_their_doi_where_the_card_has_none(
    tmp_path: Path, model: Model
) -> None:
    films = SOURCES["cbis-ddsm"]
    assert caveats_known(f"{films.attribution}. Images were resized.") == films.caveats
    assert caveats_known("M-SYNTH, US FDA DIDSR") == caveats_known("") == ()
    named = {"training__attribution": f"{films.attribution}. Resized.", "training__caveats": []}
    told = carded(tmp_path, with_card(tmp_path / "one", model, **named), said_of(12))
    for caveat in films.caveats:
        assert f"\n- Of the images that it was trained on: {caveat}\n" in told
    assert "\n- Of the images that it was measured on: They were squeezed.\n" in told
    own = with_card(tmp_path / "other", model, **(named | {"training__caveats": ["Ours."]}))
    told = carded(tmp_path, own, said_of(12), held_out=True)
    assert films.caveats[0] not in told
    for caveat in ("They were squeezed.", "Ours."):
        assert f"\n- Of the images that it was trained on and measured on: {caveat}\n" in told


def test_strata_tell_how_many_they_are_and_no_figure_of_fewer_than_ten_masses(tmp_path: Path, model: Model) -> None:
    told = carded(tmp_path, model, said_of(24))
    rows = {line.split(" | ")[0].strip("| "): line.strip("| ").split(" | ") for line in told.splitlines()}
    assert rows["stratum"][1:] == [
        "masses",
        "images",
        "at 0.25 per image",
        "at 0.5 per image",
        "at 1 per image",
        "IoU >= 0.5 at 0.44 per image",
        "centre in box at 0.5 per image",
    ]
    assert rows["density 1"][1:3] == ["16", "16"]
    assert rows["density 1"][3:] == ["1.000 (1.000 to 1.000)"] * 5
    assert rows["density 4"][1:] == ["8", "8", *["fewer than 10"] * 5]
    assert rows["pathology malignant"][1:3] == ["12", "12"]


def test_targets_in_strata_are_counted_by_their_own_rules() -> None:
    beside = (10, 16, 10, 10)  # IoU 0.25, and the centre on the border
    record = Record("a.png", "P", L_CC, (SQUARE,), density=2)
    told = report([a_prediction(record, a_mass(beside))], 0.5, 2).plain()["strata"]
    assert told["density 2, at 0.5 per image"][0] == 1
    assert told["density 2, IoU >= 0.5 at 0.44 per image"][0] == 0
    far = report([a_prediction(record, a_mass((10, 10, 10, 34)))], 0.5, 2).plain()["strata"]
    assert far["density 2, centre in box at 0.5 per image"][0] == 0
    assert far["density 2, at 0.5 per image"][0] == 1


def test_breasts_are_told_apart_by_how_far_the_parts_of_the_model_are(tmp_path: Path, model: Model) -> None:
    predictions = said_of(24, of_1=(10, 50), of_3=(10, 49))
    told = report(predictions, 0.5, 2).plain()
    name = "AUC of breasts, parts 5 to 14 points apart"
    assert told["counts"][f"doubt: {name}"] == {"breasts": 22, "cancers": 12}
    assert told["doubt"][name][0] == 1
    assert told["counts"]["doubt: AUC of breasts, parts 30 to 39 points apart"] == {"breasts": 1, "cancers": 0}
    assert told["counts"]["doubt: AUC of breasts, parts 40 to 100 points apart"] == {"breasts": 1, "cancers": 0}
    assert f"| {name} | 22 | 12 | 1.000" in carded(tmp_path, model, predictions)
    silent = [replace(p, findings=p.findings and replace(p.findings, span=None)) for p in predictions]
    why = report(silent, 0.5, 2).plain()["not_defined"]
    assert why[f"doubt: {name}"] == "the reader tells no span"


def test_a_further_set_is_added_to_the_card_that_is_there_and_added_again_replaced(
    tmp_path: Path, model: Model
) -> None:
    with pytest.raises(InvalidDataset, match="no card yet"):
        check_model_card(tmp_path, model)
    before = carded(tmp_path, model, said_of(12))
    check_model_card(tmp_path, model)
    other = with_card(tmp_path / "other", model, thresholds__mass=0.9)
    with pytest.raises(InvalidDataset, match="not the card of"):
        check_model_card(tmp_path, other)
    drawn = [replace(p, dice=0.5) for p in said_of(6)]
    for predictions in (said_of(5), drawn):
        path = append_to_model_card(tmp_path, OUTLINES, report(predictions, 0.5, 2))
    append_to_model_card(tmp_path, replace(OUTLINES, name="others"), report(said_of(3), 0.5, 2))
    after = path.read_text(encoding="utf-8")
    assert after.count("\n## Elsewhere: outlines, type=DM\n\n6 images of 6 patients, 6 masses; ") == 1
    assert after.count("\n## Elsewhere: ") == 2
    for words in (
        "| licence of the data | CC BY 4.0 (not confirmed) |",
        "| Dice of all candidates that were asked for, misses 0 | 0.500 (0.500 to 0.500) |",
        "### Findings at the threshold 0.5",
        "- Some are skin.",
    ):
        assert words in after
    # The rest stays, and the limits stay last.
    limits = before[before.index("## Limits") :]
    assert after.startswith(before.removesuffix(limits))
    assert after.endswith(limits)


def test_the_roc_lies_above_the_diagonal_for_scores_that_tell_cancers(tmp_path: Path) -> None:
    scored = [Scored(f"P{n}", 30 + n % 40 + 20 * (n % 2), bool(n % 2)) for n in range(80)]
    curves = []
    for name, some in (("told", scored), ("alike", [replace(one, score=50) for one in scored])):
        picture = cv2.imread(str(plot_roc({Level.EXAM: some}, tmp_path / f"{name}.png", "drawn")))
        assert picture is not None
        rows, columns = picture.shape[:2]
        upper_left = picture[: int(0.4 * rows), : columns // 2].astype(int)
        curves.append(int((upper_left[..., 0] - upper_left[..., 2] > 100).sum()))
    assert curves[0] > 100
    assert curves[1] == 0
