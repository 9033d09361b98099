"""Several data sets as one: what is taken of each, where its files are, who is whose, and what is refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ai.datasets.folds import held_out_by, learned_from
from ai.datasets.records import Dataset, Record
from ai.datasets.registry import open_dataset
from ai.datasets.selection import digest_of, digests_of, held_out_patients
from ai.datasets.truth import fills_of_mask
from ai.errors import InvalidDataset, InvalidRecipe
from ai.evaluation.predictions import Prediction
from ai.evaluation.report import report
from ai.training.deal import Dealt, deal
from ai.training.known import check_start, check_upon
from ai.training.recipe import open_recipe
from node.cli import app
from tests.builders import L_CC
from tests.datasets import a_mask, a_picture, card_of, write_csv, write_png
from tests.drawn import a_data_set

COLLECTION = """
[[sets]]
path = "films/manifest.csv"

[[sets]]
path = "digital"
where = { type = "DM" }
malignancy = false
compact = 0.4
times = 3
"""
SHEET = 'name = "{0}"\nlicence = "CC BY {1}"\nattribution = "whom"\ncaveats = ["beware of {0}"]\n'


def a_digital_set(folder: Path) -> Path:
    """Write three women with masks: a square, a square and a thin L, and a subtracted image."""
    thin = a_mask((10, 20, 40))
    thin[24:60, 14:50] = 0
    for name, mask in {"a.png": a_mask((10, 20, 20)), "b.png": thin, "c.png": a_mask((20, 30, 20))}.items():
        write_png(folder / "images" / name, a_picture())
        write_png(folder / "masks" / name, mask)
    row = {"laterality": "L", "view": "CC", "pathology": "Malignant"}
    kinds = {"a.png": ("W1", "DM"), "b.png": ("W2", "DM"), "c.png": ("W3", "CM")}
    write_csv(folder / "manifest.csv", [{"file": f, "patient_id": p, "type": t, **row} for f, (p, t) in kinds.items()])
    return folder


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    a_data_set(tmp_path / "films", 12)
    a_digital_set(tmp_path / "digital")
    (tmp_path / "films" / "source.toml").write_text(SHEET.format("films", "3.0"), encoding="utf-8")
    (tmp_path / "digital" / "source.toml").write_text(SHEET.format("digital", "4.0"), encoding="utf-8")
    path = tmp_path / "both.toml"
    path.write_text(COLLECTION, encoding="utf-8")
    return path


def records_of(dataset: Dataset, source: str) -> list[Record]:
    return [record for record in dataset.records if record.source == source]


def test_each_set_gives_what_is_asked_of_it(collection: Path) -> None:
    opened = open_dataset(collection)
    films, digital = records_of(opened, "films"), records_of(opened, "digital")
    whole = open_dataset(collection.parent / "films").records
    assert [replace(r, folder="", source="") for r in films] == [replace(r, folder="") for r in whole]
    assert [(r.file, r.patient_id, r.malignant, r.pathologies, r.times) for r in digital] == [
        ("a.png", "W1", None, (), 3)
    ]
    for record in opened.records:
        assert (opened.folder / record.path).is_file()
        assert all((opened.folder / mask).is_file() for mask in record.masks)
    assert digital[0].boxes == ((10.0, 20.0, 20.0, 20.0),)
    assert opened.notes == ("left out 1 image of digital with a mass that fills less than 0.4",)
    source = opened.source
    assert source.name == "films and digital"
    assert source.licence == "films: CC BY 3.0; digital: CC BY 4.0"
    assert source.attribution == "whom"
    assert source.caveats == ("films: beware of films", "digital: beware of digital")


def test_a_region_fills_a_part_of_its_box() -> None:
    ring = a_mask((10, 20, 40)) > 0
    ring[24:60, 14:50] = False
    square = a_mask((80, 100, 10)) > 0
    assert fills_of_mask(ring | square) == ((1600 - 36 * 36) / 1600, 1.0)


def test_an_epoch_shows_an_image_as_often_as_its_set_says(collection: Path) -> None:
    opened, recipe = open_dataset(collection), open_recipe("mass-fpn/random").dealt(parts=2)
    (part,) = (n for n in (0, 1) if "W1" not in deal(recipe.dealt(part=n), opened).kept)
    dealt = deal(recipe.dealt(part=part), opened)
    learnt, validation = dealt.sides(0, 1)
    assert validation is None
    assert Counter(r.patient_id for r in learnt) == {r.patient_id: r.times for r in dealt.training}
    for fold in (0, 1):
        learnt, validation = deal(recipe.dealt(part=part, folds=2), opened).sides(fold, 2)
        shown = Counter(r.patient_id for r in learnt), Counter(r.patient_id for r in validation or ())
        assert (shown[0]["W1"], shown[1]["W1"]) in {(3, 0), (0, 1)}


def test_each_set_is_dealt_as_it_is_without_the_others_and_its_patients_are_known_again(
    collection: Path, tmp_path: Path
) -> None:
    opened, recipe = open_dataset(collection), open_recipe("mass-fpn/random").dealt(parts=3, part=1, seed=4)
    films = open_dataset(collection.parent / "films")
    kept, alone = deal(recipe, opened).kept, deal(recipe, films).kept
    assert kept & {r.patient_id for r in films.records} == alone
    split = {
        "folds": 3,
        "fold": 1,
        "seed": 4,
        "held_out": digest_of(kept),
        "held_out_of": digests_of(kept, opened.records),
    }
    model = card_of(tmp_path / "model", split)
    assert held_out_by(model, opened.records) == kept
    assert held_out_by(model, films.records) == alone
    with pytest.raises(InvalidDataset, match="give the set that it was trained on"):
        held_out_by(model, [r for r in films.records if r.patient_id != min(alone)])


def test_figures_are_told_for_each_set(collection: Path) -> None:
    predictions = [Prediction(record, None, "no breast") for record in open_dataset(collection).records]
    (strata,) = (group for group in report(predictions, 0.5, repeats=2).groups if group.key == "strata")
    told = {row.name.partition(",")[0] for row in strata.rows}
    assert {name for name in told if name.startswith("set ")} == {"set films", "set digital"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sets = [", "both.toml: "),
        ('name = "none"', "sets: Field required"),
        ('[[sets]]\npath = "films"\nweight = 2', "sets.0.weight: there is no such key"),
        ('[[sets]]\npath = "films"\ntimes = 0', "sets.0.times: Input should be greater"),
        ('[[sets]]\npath = "both.toml"', "both.toml is a collection itself; name its sets"),
        ('[[sets]]\npath = "gone"', "gone: is not there"),
        (
            '[[sets]]\npath = "films"\n[[sets]]\npath = "films"',
            "two sets are named films; give one another name in its source",
        ),
        (
            '[[sets]]\npath = "films"\n[[sets]]\npath = "again"',
            "12 patients of again have names of another set: P0, P1, ",
        ),
        ('[[sets]]\npath = "digital"\nwhere = { type = "XR" }', "no image is left"),
        ('[[sets]]\npath = "digital"\nwhere = { patient_id = "W2" }\ncompact = 0.4', "digital: no image is left"),
    ],
)
def test_what_is_no_collection_is_refused(collection: Path, content: str, message: str) -> None:
    a_data_set(collection.parent / "again", 12)
    collection.write_text(content, encoding="utf-8")
    with pytest.raises(InvalidDataset) as error:
        open_dataset(collection)
    assert message in str(error.value)


def test_a_user_looks_at_a_collection_and_deals_it(collection: Path) -> None:
    told = CliRunner().invoke(app, ["data", str(collection), "--quick"])
    assert told.exit_code == 0, told.output
    assert "caveat: digital: beware of digital" in told.output
    folds = collection.parent / "folds.csv"
    dealt = CliRunner().invoke(app, ["folds", str(collection), "-o", str(folds), "--parts", "3"])
    assert dealt.exit_code == 0, dealt.output
    assert "\nW1," in folds.read_text(encoding="utf-8")


def a_set_of_films(source: str = "") -> tuple[Record, ...]:
    return tuple(Record(f"{n}", f"P{n}", L_CC, malignant=n % 2 == 0, source=source) for n in range(20))


A_DIGITAL_ONE = Record("w", "W1", L_CC, source="digital")


@pytest.mark.parametrize(
    "records", [a_set_of_films(), (*a_set_of_films("films"), A_DIGITAL_ONE)], ids=["its own set", "one set of two"]
)
def test_a_model_to_start_from_must_not_know_who_is_held_out(tmp_path: Path, records: tuple[Record, ...]) -> None:
    theirs = held_out_patients(a_set_of_films(), 5, 1, 3)
    model = card_of(tmp_path, {"folds": 5, "fold": 1, "seed": 3, "held_out": digest_of(theirs)})
    assert check_start(model, dealt_of(theirs), records, "recipe") == ""
    assert check_start(model, dealt_of({*sorted(theirs)[1:]}), records, "recipe") == ""
    other = sorted({f"P{n}" for n in range(20)} - theirs)
    with pytest.raises(
        InvalidRecipe, match=r"recipe: mass-fpn-boxes.* was trained on 2 of the patients that are held out"
    ):
        check_start(model, dealt_of({*theirs, *other[:2]}), records, "recipe")


def test_a_model_of_both_sets_must_know_nobody_of_either(tmp_path: Path) -> None:
    films, digital = a_set_of_films("films"), tuple(Record(f"w{n}", f"W{n}", L_CC, source="digital") for n in range(4))
    kept = {"P1", "P2", "W1"}
    split = {"folds": 5, "fold": 1, "seed": 3, "file": "folds.csv", "held_out": digest_of(kept)}
    split["held_out_of"] = digests_of(kept, (*films, *digital))
    model = card_of(tmp_path, split)
    assert check_start(model, dealt_of(kept), (*films, *digital), "recipe") == ""
    assert check_start(model, dealt_of({"P1", "P2"}), films, "recipe") == ""
    assert "is not known" in check_start(model, dealt_of({"P1", "P2", "W2"}), (*films, *digital), "recipe")
    assert "is not known" in check_start(model, dealt_of({"P1"}), films, "recipe")


def test_a_model_that_has_learnt_from_all_of_two_sets_begins_no_run_that_holds_one_of_them_out(tmp_path: Path) -> None:
    films, digital, others = (
        tuple(Record(f"{name}{n}", f"{name}{n}", L_CC, source=name) for n in range(4)) for name in "ABC"
    )
    both = {record.patient_id for record in (*films, *digital)}
    split = {"everybody": digest_of(both), "everybody_of": digests_of(both, (*films, *digital))}
    model = card_of(tmp_path, split)
    of_films, of_others = ({record.patient_id for record in each} for each in (films, others))
    for records in ((*films, *digital), (*digital, *films, *others), films):
        assert learned_from(model, records) == both & {record.patient_id for record in records}
        with pytest.raises(InvalidRecipe, match="trained on 4 of the patients that are held out"):
            check_start(model, dealt_of(of_films), records, "recipe")
        with pytest.raises(InvalidRecipe, match="held out other patients"):
            check_upon(model, dealt_of(of_films), "recipe")
    assert check_start(model, dealt_of(of_others), (*films, *digital, *others), "recipe") == ""
    assert "is not known" in check_start(model, dealt_of(of_others), (*films, *digital[1:], *others), "recipe")


def test_a_model_of_other_data_to_start_from_is_told_of_in_every_report(tmp_path: Path) -> None:
    split = {"folds": 5, "fold": 1, "seed": 3, "held_out": digest_of({"someone"})}
    unknown = (
        "Whether mass-fpn-boxes, from which the training began, had seen patients of the held-out part is not known."
    )
    assert check_start(card_of(tmp_path, split), dealt_of({"P3"}), a_set_of_films(), "recipe") == unknown
    del split["held_out"]
    assert check_start(card_of(tmp_path, split), dealt_of({"P3"}), a_set_of_films(), "recipe") == unknown


def dealt_of(kept: set[str]) -> Dealt:
    return Dealt((), (), frozenset(kept), {})
