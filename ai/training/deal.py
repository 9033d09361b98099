"""Who is trained on and who is not: patients dealt to parts and folds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ai.datasets.folds import read_folds
from ai.datasets.leaks import check_patients
from ai.datasets.records import Dataset, Record, split_by_patient
from ai.datasets.selection import select
from ai.errors import InvalidDataset, UnfitFolds
from ai.training.recipe import Recipe, Split
from ai.words import counted


@dataclass(frozen=True)
class Dealt:
    """Who is trained on and who is not.

    Attributes
    ----------
    training
        Records that are not held out, chosen as the recipe says.
    held_out
        Records that give the figures, all that are labelled.
    kept
        Who is held out, whatever is known of their images.
    fold
        Inner fold by patient.
    """

    training: tuple[Record, ...]
    held_out: tuple[Record, ...]
    kept: frozenset[str]
    fold: Mapping[str, int]

    def sides(self, fold: int, folds: int) -> tuple[list[Record], list[Record] | None]:
        """Return what a fold learns from, each image as often as an epoch shows it, and what it is validated on."""
        shown = [r for r in self.training for _ in range(r.times)]
        if folds == 1:
            return shown, None
        learnt = [r for r in shown if self.fold[r.patient_id] != fold]
        kept = [r for r in self.training if self.fold[r.patient_id] == fold]
        return learnt, kept


def deal(recipe: Recipe, dataset: Dataset, *, skip_unlabelled: bool = False, subset: str = "") -> Dealt:
    """Deal a data set's patients: first all of them to parts, then those that are not held out to folds.

    A file that the recipe names says both; else the seed does.

    ``mammonode evaluate --validation`` finds the same part by the same seed, whatever the recipe leaves out.

    Raises
    ------
    InvalidDataset
        When images are not labelled, a side is left without any, nobody to learn from has a mass, or the file does not
        fit the set.
    """
    split = recipe.split
    places = _places(split, dataset.records)
    chosen = _chosen(recipe, dataset, skip_unlabelled=skip_unlabelled, subset=subset)
    training = tuple(r for r in chosen if places[r.patient_id] != split.part)
    labelled = select(dataset.records, skip_unlabelled=skip_unlabelled)
    held_out = tuple(r for r in labelled if places[r.patient_id] == split.part)
    if not training or not held_out:
        raise InvalidDataset(f"part {split.part} of {split.parts} leaves no patient to train on, or none to evaluate")
    if not any(record.boxes for record in training):
        raise InvalidDataset("no image to train on shows a mass")
    check_patients(training, held_out)
    fold = _inner(split, training, places)
    for number in range(split.folds):
        if number not in fold.values():
            raise InvalidDataset(f"{counted(len(fold), 'patient is', 'patients are')} too few for {split.folds} folds")
    kept = frozenset(patient for patient, place in places.items() if place == split.part)
    return Dealt(training, held_out, kept, fold)


def everybody(recipe: Recipe, dataset: Dataset, *, skip_unlabelled: bool = False, subset: str = "") -> Dealt:
    """Hold nobody out: all patients of whom the recipe takes images learn; errors as `deal`."""
    chosen = tuple(_chosen(recipe, dataset, skip_unlabelled=skip_unlabelled, subset=subset))
    return Dealt(chosen, (), frozenset(), {record.patient_id: 0 for record in chosen})


def _chosen(recipe: Recipe, dataset: Dataset, *, skip_unlabelled: bool, subset: str) -> Sequence[Record]:
    return select(
        dataset.records,
        skip_unlabelled=skip_unlabelled,
        masses_only=recipe.images == "masses",
        complete_exams=recipe.complete_exams,
        subset=subset,
    )


def _places(split: Split, records: Sequence[Record]) -> Mapping[str, int]:
    if split.file is None:
        return split_by_patient(records, split.parts, split.seed)
    folds = read_folds(split.file)
    if folds.count != split.parts:
        raise UnfitFolds(f"{split.file} has {folds.count} folds, and split.parts says {split.parts}")
    return folds.of(records)


def _inner(split: Split, training: Sequence[Record], places: Mapping[str, int]) -> Mapping[str, int]:
    if split.file is None or split.folds == 1:
        return split_by_patient(training, split.folds, split.seed)
    others = [place for place in range(split.parts) if place != split.part]
    return {record.patient_id: others.index(places[record.patient_id]) for record in training}
