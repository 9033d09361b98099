"""Folds in a file: how patients are dealt, what a file must say, and that it must fit the set."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from ai.datasets.folds import Folds, balance, held_out_by, learned_from, read_folds, stratified, write_folds
from ai.datasets.manifest import read_manifest
from ai.datasets.records import Dataset, Record
from ai.datasets.selection import digest_of, held_out_patients
from ai.datasets.sources import Source
from ai.errors import InvalidDataset, InvalidRecipe, UnfitFolds, Unwritable
from ai.training.deal import deal
from ai.training.recipe import open_recipe
from node.cli import app
from tests.builders import L_CC
from tests.datasets import card_of
from tests.drawn import a_data_set


def a_record(patient: str, number: int = 0, **known: Any) -> Record:
    return replace(Record(f"{patient}-{number}", patient, L_CC), **known)


women = st.lists(
    st.tuples(st.sampled_from(["malignant", "mass", "neither"]), st.integers(1, 3)), min_size=6, max_size=40
)


@given(women, st.integers(2, 6), st.integers(0, 9), st.randoms())
def test_every_patient_is_in_one_fold_and_folds_are_alike(
    women: list[tuple[str, int]], count: int, seed: int, random: Any
) -> None:
    kind = {f"P{n}": worst for n, (worst, _) in enumerate(women)}
    records = [
        a_record(f"P{n}", k, malignant=worst == "malignant", boxes=() if worst == "neither" else ((1, 2, 3, 4),))
        for n, (worst, images) in enumerate(women)
        for k in range(images)
    ]
    dealt = stratified(records, count, seed)
    assert dealt.of(records) == dealt.fold
    assert dealt.count == count
    for worst in ("malignant", "mass", "neither", None):
        counts = Counter(fold for patient, fold in dealt.fold.items() if worst in (None, kind[patient]))
        assert max(counts[f] for f in range(count)) - min(counts[f] for f in range(count)) <= 1
    random.shuffle(records)
    assert stratified(records, count, seed) == dealt


def test_folds_share_density_and_the_size_of_masses_too() -> None:
    records = [
        a_record(f"P{n}", malignant=True, density=1 + n % 4, boxes=((0, 0, 10 + 7 * (n % 3), 10),)) for n in range(120)
    ]
    dealt = stratified(records, 5, 1)
    for what in ("density", "boxes"):
        counts = Counter((getattr(r, what), dealt.fold[r.patient_id]) for r in records)
        values = {key for key, _ in counts}
        assert all(max(row) - min(row) <= 1 for row in ([counts[v, f] for f in range(5)] for v in values))
    assert stratified(records, 5, 2) != dealt
    assert balance(records, dealt) == {
        "patients": [24] * 5,
        "patients with a malignant image": [24] * 5,
        "images": [24] * 5,
        "masses": [24] * 5,
        **{f"images of density {word}": [6] * 5 for word in "abcd"},
    }


def test_those_of_an_earlier_model_are_fold_0_and_the_others_are_dealt_to_the_rest() -> None:
    records = [a_record(f"P{n}") for n in range(9)]
    dealt = stratified(records, 3, 1, {"P3", "P4", "nobody"})
    assert dealt.patients(0) == {"P3", "P4"}
    assert {len(dealt.patients(number)) for number in (1, 2)} == {3, 4}
    with pytest.raises(InvalidDataset, match="3 patients are too few for 4 folds"):
        stratified(records[:3], 4, 1)


def test_a_file_says_what_was_written_into_it(tmp_path: Path) -> None:
    folds = Folds({"P2": 1, "P1, the first": 0})
    write_folds(folds, tmp_path / "folds.csv")
    assert (tmp_path / "folds.csv").read_text() == 'patient_id,fold\n"P1, the first",0\nP2,1\n'
    assert read_folds(tmp_path / "folds.csv") == folds


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("patient_id,fold\nP1,0\nP1,1\n", InvalidDataset, r"folds\.csv, line 3: the patient P1 stands there twice"),
        ("patient_id,fold\nP1,0\nP2,-1\n", InvalidDataset, r"line 3: the fold '-1' is no whole number"),
        ("patient_id,fold\nP1,\n", InvalidDataset, r"line 2: no value for fold"),
        ("patient,part\nP1,0\n", InvalidDataset, r"line 2: no value for patient_id"),
        ("patient_id,fold\nP1,0\nP2,2\n", UnfitFolds, r"the folds are \[0, 2\], and must be 0, 1"),
        ("patient_id,fold\nP1,0\n", UnfitFolds, "at least two"),
        ("patient_id,fold\n", UnfitFolds, "at least two"),
    ],
)
def test_a_file_that_says_something_else_is_refused(
    tmp_path: Path, content: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "folds.csv").write_text(content, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_folds(tmp_path / "folds.csv")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"gone\.csv: No such file"):
        read_folds(tmp_path / "gone.csv")


def test_a_file_of_other_patients_is_refused_with_their_names() -> None:
    folds = Folds({"P1": 0, "P2": 1, "P3": 1})
    with pytest.raises(UnfitFolds, match="1 patient of the set is not in the file: P4; 2 patients of the file are not"):
        folds.of([a_record("P1"), a_record("P4")])


def a_set(count: int) -> Dataset:
    records = (a_record(f"P{n}", malignant=n % 2 == 0, boxes=((1, 2, 3, 4),)) for n in range(count))
    return Dataset(Source("set"), Path(), tuple(records))


def a_recipe(folder: Path, split: str) -> str:
    (folder / "mine.toml").write_text(f'extends = "thesis-table-5/unet-ft05"\ncomplete_exams = false\n[split]\n{split}')
    return str(folder / "mine.toml")


def test_a_recipe_deals_by_the_file_beside_it(tmp_path: Path) -> None:
    recipe = open_recipe(a_recipe(tmp_path, 'file = "folds.csv"\nparts = 4\npart = 1\nfolds = 3\n'))
    dataset = a_set(12)
    write_folds(Folds({f"P{n}": n % 4 for n in range(12)}), tmp_path / "folds.csv")
    dealt = deal(recipe, dataset)
    assert dealt.kept == {"P1", "P5", "P9"} == {r.patient_id for r in dealt.held_out}
    assert dealt.fold == {f"P{n}": {0: 0, 2: 1, 3: 2}[n % 4] for n in range(12) if n % 4 != 1}
    single = deal(recipe.dealt(folds=1), dataset)
    assert (single.kept, set(single.fold.values())) == (dealt.kept, {0})
    with pytest.raises(UnfitFolds, match="1 patient of the set is not in the file: P12"):
        deal(recipe, a_set(13))
    with pytest.raises(UnfitFolds, match=r"folds\.csv has 4 folds, and split\.parts says 5"):
        deal(recipe.dealt(parts=5, folds=1), dataset)
    with pytest.raises(InvalidRecipe, match="with a file of 4 folds 1, or 3"):
        recipe.dealt(folds=2)


def test_who_was_held_out_is_known_by_the_file_alone(tmp_path: Path) -> None:
    records, folds = a_set(6).records, Folds({f"P{n}": n % 3 for n in range(6)})
    split = {"file": "folds.csv", "folds": 3, "fold": 1, "seed": 1, "held_out": digest_of({"P1", "P4"})}
    model = card_of(tmp_path, split)
    assert held_out_by(model, records, folds) == {"P1", "P4"}
    with pytest.raises(InvalidDataset, match=r"dealt by folds\.csv; give that with --folds-file"):
        held_out_by(model, records)
    with pytest.raises(InvalidDataset, match="give the set that it was trained on"):
        held_out_by(model, records, Folds({f"P{n}": n % 2 for n in range(6)}))
    with pytest.raises(UnfitFolds):
        held_out_by(model, records[1:], folds)


def test_whom_a_model_learned_from_is_told_where_its_card_tells(tmp_path: Path) -> None:
    records, folds = a_set(6).records, Folds({f"P{n}": n % 3 for n in range(6)})
    kept = held_out_patients(records, 3, 1, 1)
    own = card_of(tmp_path / "own", {"folds": 3, "fold": 1, "seed": 1, "held_out": digest_of(kept)})
    assert learned_from(own, records) == {r.patient_id for r in records} - kept
    assert learned_from(own, [r for r in records if r.patient_id != min(kept)]) == set()
    collected = [*(replace(r, source="own") for r in records), replace(records[0], patient_id="Q", source="other")]
    assert learned_from(own, collected) == {r.patient_id for r in records} - kept
    split = {"folds": 3, "fold": 1, "seed": 1}
    assert learned_from(card_of(tmp_path / "old", split), records) == set()
    filed = card_of(tmp_path / "filed", {**split, "file": "folds.csv", "held_out": digest_of({"P1", "P4"})})
    assert learned_from(filed, records) == set()
    assert learned_from(filed, records, folds) == {"P0", "P2", "P3", "P5"}


def test_a_file_of_folds_is_never_replaced_by_others(tmp_path: Path) -> None:
    file = tmp_path / "folds.csv"
    for _ in range(2):  # again, the same
        write_folds(Folds({"P1": 0, "P2": 1}), file)
    with pytest.raises(Unwritable, match="nothing is overwritten"):
        write_folds(Folds({"P1": 1, "P2": 0}), file)
    assert read_folds(file).fold == {"P1": 0, "P2": 1}


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_the_command_writes_folds_that_the_others_take(tmp_path: Path) -> None:
    manifest, file = a_data_set(tmp_path / "set", 12), tmp_path / "folds.csv"
    shown = cli("folds", manifest, "-o", file, "--parts", 3)
    assert shown.exit_code == 0, shown.output
    records = read_manifest(manifest)
    assert read_folds(file) == stratified(records, 3, 1)
    assert "patients with a malignant image" in shown.stdout
    told = json.loads(cli("data", manifest, "--quick", "--folds-file", file, "--json").stdout)
    assert told["shares"]["fold"] == {"0": 4, "1": 4, "2": 4}
    file.write_text(file.read_text().replace("P3", "P99"), encoding="utf-8")
    refused = cli("data", manifest, "--quick", "--folds-file", file)
    assert refused.exit_code == 1
    assert "1 patient of the set is not in the file: P3; 1 patient of the file is not in the set: P99" in refused.stderr


def test_the_command_keeps_those_that_a_model_was_measured_on(tmp_path: Path) -> None:
    manifest, file = a_data_set(tmp_path / "set", 12), tmp_path / "folds.csv"
    kept = held_out_patients(read_manifest(manifest), 4, 2, 7)
    card_of(tmp_path / "model", {"folds": 4, "fold": 2, "seed": 7, "held_out": digest_of(kept)})
    shown = cli("folds", manifest, "-o", file, "--parts", 3, "--held-out-of", tmp_path / "model")
    assert shown.exit_code == 0, shown.output
    assert read_folds(file).patients(0) == kept


def test_any_fold_of_a_file_can_be_held_out_however_many_parts_the_recipe_has(tmp_path: Path) -> None:
    assert open_recipe("thesis-table-5/r22fpn-ft07").split.parts == 4
    write_folds(Folds({f"P{n}": n for n in range(5)}), tmp_path / "folds.csv")
    dealt = ("--folds-file", tmp_path / "folds.csv", "--part", 4, "--start", "random")
    result = cli("train", "thesis-table-5/r22fpn-ft07", tmp_path / "gone", "-o", tmp_path / "out", *dealt)
    assert "gone: is not there" in str(result.exception)
