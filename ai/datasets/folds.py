"""Folds fixed in a file: who is in which, so that everyone who has the file deals a data set alike."""

import csv
import hashlib
import io
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from ai.datasets.records import Record, by_set
from ai.datasets.selection import digest_of, held_out_patients, known_digests, some
from ai.datasets.tables import Naming, column, read_table
from ai.errors import InvalidDataset, UnfitFolds, Unwritable
from ai.models import Model
from ai.words import counted

COLUMNS: Final = ("patient_id", "fold")
NOT_ITS_OWN: Final = (
    "these are not the images that {name} was trained on, or they have other patients, labels or folds by now: "
    "the patients held out cannot be told from the others; give the set that it was trained on, as it was then"
)


@dataclass(frozen=True)
class Folds:
    """Patients dealt to folds.

    Attributes
    ----------
    fold
        By patient, 0 to ``count - 1``; no fold is empty.
    """

    fold: Mapping[str, int]

    @property
    def count(self) -> int:
        """How many folds there are."""
        return max(self.fold.values()) + 1

    def patients(self, number: int) -> set[str]:
        """Return who is in a fold."""
        return {patient for patient, fold in self.fold.items() if fold == number}

    def of(self, records: Iterable[Record]) -> Mapping[str, int]:
        """Return the fold of each patient of a data set, once it is seen that these are the file's.

        Raises
        ------
        UnfitFolds
            When a patient of the set is not in the file, or one of the file not in the set; they are named.
        """
        there = {record.patient_id for record in records}
        missing, unknown = sorted(there - self.fold.keys()), sorted(self.fold.keys() - there)
        faults = [
            f"{counted(len(names), f'patient of the {here} is', f'patients of the {here} are')} not in the {there}: "
            + some(names)
            for here, there, names in (("set", "file", missing), ("file", "set", unknown))
            if names
        ]
        if faults:
            raise UnfitFolds("; ".join(faults))
        return self.fold


def read_folds(path: Path) -> Folds:
    """Read a CSV file with the columns ``patient_id`` and ``fold``, the first fold being 0.

    Raises
    ------
    InvalidDataset
        When the file cannot be read, a fold is no whole number, or a patient stands there twice.
    UnfitFolds
        When it has fewer than two folds, or leaves one out.
    """
    fold: dict[str, int] = {}
    for number, row in read_table(path):
        with Naming(f"{path}, line {number}"):
            patient, value = (column(row, name) for name in COLUMNS)
            if not value.isdecimal():
                raise ValueError(f"the fold {value!r} is no whole number from 0 on")
            if patient in fold:
                raise ValueError(f"the patient {patient} stands there twice")
            fold[patient] = int(value)
    found = sorted(set(fold.values()))
    if len(found) < 2 or found != list(range(len(found))):
        raise UnfitFolds(f"{path}: the folds are {found}, and must be 0, 1 and so on without a gap, at least two")
    return Folds(fold)


def write_folds(folds: Folds, path: Path) -> None:
    """Write folds as :func:`read_folds` takes them, by patient; what a file holds is never replaced.

    Raises
    ------
    Unwritable
        When the file is there and holds anything else.
    """
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(COLUMNS)
    table.writerows(sorted(folds.fold.items()))
    text = written.getvalue().encode()
    if path.exists() and path.read_bytes() != text:
        raise Unwritable(f"{path}: holds something else, and nothing is overwritten; name another file")
    path.write_bytes(text)


def stratified(records: Sequence[Record], count: int, seed: int, first: Collection[str] = ()) -> Folds:
    """Deal the patients of a data set so that folds are alike in all that it tells.

    Patients are put in order by whether they have a malignant image, a mass or neither, then by their number of images,
    density and size of their largest mass in thirds, then by chance, and dealt in turn: so the coarser a distinction, the
    more exactly the folds share it.

    Parameters
    ----------
    count
        Of folds.
    seed
        Of the chance.
    first
        Who is fold 0, whatever that does to the balance: those whom an earlier model was measured on. The others are
        dealt to the other folds.

    Raises
    ------
    InvalidDataset
        When there are too few patients.
    """
    images: dict[str, list[Record]] = {}
    for record in records:
        images.setdefault(record.patient_id, []).append(record)
    largest = {
        patient: max((w * h for r in rows for *_, w, h in r.boxes), default=0) for patient, rows in images.items()
    }
    thirds = np.quantile([area for area in largest.values() if area] or [0], (1 / 3, 2 / 3))

    def stratum(patient: str) -> tuple[int, ...]:
        rows = images[patient]
        worst = 2 if any(r.malignant for r in rows) else 1 if largest[patient] else 0
        dense = max(r.density or 0 for r in rows)
        return worst, len(rows), dense, int((largest[patient] > thirds).sum())

    def chance(patient: str) -> bytes:
        return hashlib.sha256(f"{seed}|{patient}".encode()).digest()

    dealt = sorted(images.keys() - set(first), key=lambda patient: (stratum(patient), chance(patient)))
    fold = dict.fromkeys(images.keys() & set(first), 0)
    free = range(1 if fold else 0, count)
    if len(dealt) < len(free) or not free:
        raise InvalidDataset(f"{counted(len(images), 'patient is', 'patients are')} too few for {count} folds")
    fold |= {patient: free[place % len(free)] for place, patient in enumerate(dealt)}
    return Folds(fold)


def balance(records: Sequence[Record], folds: Folds) -> Mapping[str, list[int]]:
    """Return how many patients, images and so on are in each fold."""
    counts: dict[str, list[int]] = {}

    def add(what: str, patient: str, number: int = 1) -> None:
        counts.setdefault(what, [0] * folds.count)[folds.fold[patient]] += number

    malignant = {r.patient_id for r in records if r.malignant}
    for patient in folds.fold:
        add("patients", patient)
        add("patients with a malignant image", patient, patient in malignant)
    for record in records:
        add("images", record.patient_id)
        add("masses", record.patient_id, len(record.boxes))
    for record in sorted(records, key=lambda r: r.density or 0):
        add(f"images of density {'abcd'[record.density - 1] if record.density else 'not stated'}", record.patient_id)
    return counts


def learnt_from_all(model: Model) -> bool:
    """Tell whether a model's card says that it held out nobody."""
    return "everybody" in model.card.training.plan.get("split", {})


def held_out_by(model: Model, records: Sequence[Record], folds: Folds | None = None) -> set[str]:
    """Return the patients of a data set that a model's card kept for validation; of one that learnt from all, nobody.

    Parameters
    ----------
    folds
        The file that the model's patients were dealt by, where its card says that there was one.

    Raises
    ------
    InvalidDataset
        When the card does not say who was kept, or these are not the patients that it speaks of.
    """
    name, split = model.card.name, model.card.training.plan.get("split")
    if split is None:
        raise InvalidDataset(f"{name}: its card does not say which patients were kept")
    if learnt_from_all(model):
        if digest_of({record.patient_id for record in records}) not in known_digests(split, "everybody"):
            raise InvalidDataset(NOT_ITS_OWN.format(name=name))
        return set()
    if "file" in split and folds is None:
        raise InvalidDataset(f"{name}: its patients were dealt by {split['file']}; give that with --folds-file")
    if folds is None:
        kept = held_out_patients(records, split["folds"], split["fold"], split["seed"])
    else:
        folds.of(records)
        kept = folds.patients(split["fold"])
    if (known := known_digests(split)) and digest_of(kept) not in known:  # older cards do not say
        raise InvalidDataset(NOT_ITS_OWN.format(name=name))
    return kept


def learned_from(model: Model, records: Sequence[Record], folds: Folds | None = None) -> set[str]:
    """Return the patients of a data set whom a model may have been trained on, as far as its card tells.

    These are all whom it did not keep, where the data set is the model's own or holds it as one set of several; of any
    other set nobody is known.
    """
    if not (learnt_from_all(model) or known_digests(model.card.training.plan.get("split", {}))):
        return set()  # any patients would do for the model's own

    def learned(group: Sequence[Record]) -> set[str]:
        try:
            return {record.patient_id for record in group} - held_out_by(model, group, folds)
        except InvalidDataset:
            return set()

    return set().union(*map(learned, by_set(records))) or learned(records)
