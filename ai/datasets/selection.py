"""Which images of a data set are used."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ai.datasets.records import Record, by_set, split_by_patient
from ai.errors import InvalidDataset
from ai.exam import STANDARD_VIEWS, View
from ai.words import counted

NAMED = 3
"""How many images or patients a message names before it says how many more there are."""


def select(
    records: Sequence[Record],
    *,
    skip_unlabelled: bool = False,
    masses_only: bool = False,
    complete_exams: bool = False,
    subset: str = "",
) -> list[Record]:
    """Return the records that all conditions leave, in their order; ``subset`` "" takes them all.

    Exams are looked at before images: an exam is complete although some of its images are left out for another reason.

    Raises
    ------
    InvalidDataset
        When an image is not labelled and ``skip_unlabelled`` is false, or when nothing is left; the reason is named.
    """
    left = of_subset(records, subset) if subset else list(records)
    if complete_exams:
        left = in_complete_exams(left)
    left = labelled(left, skip=skip_unlabelled)
    return with_masses(left) if masses_only else left


def labelled(records: Sequence[Record], *, skip: bool = False) -> list[Record]:
    """Return the labelled records; ``skip`` leaves the others out instead of refusing them.

    Raises
    ------
    InvalidDataset
        When an image is not labelled, or none is; the images are named.
    """
    without = [r.file for r in records if not r.labelled]
    if without and not skip:
        raise InvalidDataset(
            f"{len(without)} of {counted(len(records), 'image is', 'images are')} not labelled ({some(without)}): label them, "
            "or leave them out with --skip-unlabelled"
        )
    return _left([r for r in records if r.labelled], "no image is labelled")


def with_masses(records: Sequence[Record]) -> list[Record]:
    """Return the records that show a mass.

    Raises
    ------
    InvalidDataset
        When none does.
    """
    return _left([r for r in records if r.boxes], "no image shows a mass")


def in_complete_exams(records: Sequence[Record]) -> list[Record]:
    """Return the records of exams that have all four standard views; without a study, a patient's images are one exam.

    Raises
    ------
    InvalidDataset
        When no exam is complete.
    """
    views: defaultdict[tuple[str, str | None], set[View]] = defaultdict(set)
    for record in records:
        views[record.patient_id, record.study].add(record.view)
    complete = {exam for exam, seen in views.items() if seen == set(STANDARD_VIEWS)}
    return _left([r for r in records if (r.patient_id, r.study) in complete], "no exam has all four views")


def of_subset(records: Sequence[Record], subset: str) -> list[Record]:
    """Return the records of one of the publishers' parts.

    Raises
    ------
    InvalidDataset
        When there is no such part; those that there are are named.
    """
    parts = sorted({r.subset for r in records if r.subset is not None})
    return _left(
        [r for r in records if r.subset == subset],
        f"no image is in the subset {subset!r}; there are: {parts or 'none'}",
    )


def held_out_patients(records: Sequence[Record], parts: int, part: int, seed: int) -> set[str]:
    """Return the patients of one part of a data set, all of it."""
    return {patient for patient, place in split_by_patient(records, parts, seed).items() if place == part}


def digest_of(patients: Collection[str]) -> str:
    """Return a SHA-256, hexadecimal, by which the same patients are known again without being named."""
    return hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()


def digests_of(patients: Collection[str], records: Sequence[Record]) -> dict[str, str]:
    """Return the digest of those of some patients that are of each set of a collection; nothing where there is but one."""
    sets = by_set(records)
    if len(sets) < 2:
        return {}
    return {rows[0].source: digest_of({r.patient_id for r in rows}.intersection(patients)) for rows in sets}


def known_digests(split: Mapping[str, Any], who: str = "held_out") -> set[str]:
    """Return the digests by which a card's split knows some patients: of all, and of each set; older cards have none.

    Parameters
    ----------
    who
        Those whom it held out, or ``everybody`` where it held out nobody: then it has learnt from them.
    """
    return {str(each) for each in (split.get(who), *split.get(f"{who}_of", {}).values()) if each}


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _left(records: list[Record], otherwise: str) -> list[Record]:
    if not records:
        raise InvalidDataset(otherwise)
    return records
