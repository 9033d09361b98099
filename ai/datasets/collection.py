"""Several data sets as one: a TOML file that names them, and says what of each is learnt from."""

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai.datasets.records import Dataset, Record
from ai.datasets.selection import some
from ai.datasets.sources import SHEET, Source
from ai.datasets.truth import fills_of_mask, read_mask
from ai.errors import InvalidDataset
from ai.words import counted, first_fault

SUFFIX: Final = ".toml"


class Member(BaseModel):
    """A table ``[[sets]]``.

    Attributes
    ----------
    path
        Of the set, relative to the file; no further collection.
    kind
        As for :func:`ai.datasets.registry.open_dataset`.
    where
        Columns of a manifest and the values that a row must have to be taken.
    malignancy
        Whether malignancy is learnt and judged here. A set whose images are all malignant would teach what distinguishes
        the sets.
    compact
        Only images are taken all of whose masks fill at least this part of the box around them, 0 to 1. Drawn skin,
        ducts and vessels fill less of theirs.
    times
        How often an epoch shows each image.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    kind: str = "auto"
    where: dict[str, str] = Field(default_factory=dict)
    malignancy: bool = True
    compact: float = Field(0.0, ge=0, le=1)
    times: int = Field(1, ge=1)


class Collection(BaseModel):
    """The file.

    Attributes
    ----------
    name
        For cards and tables; the names of the sets if not given.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = ""
    sets: tuple[Member, ...] = Field(min_length=1)


Open = Callable[[Path, str, Mapping[str, str]], Dataset]
"""Path, kind and conditions to a data set."""


def is_collection(path: Path) -> bool:
    """Tell whether a path looks like a collection's."""
    return path.is_file() and path.suffix == SUFFIX


def read_collection(path: Path, opened: Open) -> Dataset:
    """Read the sets that a file names.

    Records name their set as their source, where an evaluation has a stratum for each.

    Parameters
    ----------
    opened
        Opens each set.

    Raises
    ------
    InvalidDataset
        When the file or a set cannot be read, or a patient stands in two sets: then they cannot be dealt to parts.
    """
    collection = _file(path)
    sets = []
    for member in collection.sets:
        if is_collection(path.parent / member.path):
            raise InvalidDataset(f"{path}: {member.path} is a collection itself; name its sets")
        sets.append(opened(path.parent / member.path, member.kind, member.where))
    names = [each.source.name for each in sets]
    if len(set(names)) < len(names):
        twice = some(sorted({name for name in names if names.count(name) > 1}))
        raise InvalidDataset(f"{path}: two sets are named {twice}; give one another name in its {SHEET}")
    _check_patients(path, sets)
    folder = Path(os.path.commonpath([each.folder.resolve() for each in sets]))
    records: list[Record] = []
    notes: list[str] = []
    for member, each in zip(collection.sets, sets, strict=True):
        taken = [r for r in each.records if _compact(r, each.folder, member.compact)]
        if not taken:
            raise InvalidDataset(f"{path}: {each.source.name}: no image is left")
        if left := len(each.records) - len(taken):
            notes.append(
                f"left out {counted(left, 'image')} of {each.source.name} with a mass that fills less than {member.compact:g}"
            )
        notes += [f"{each.source.name}: {note}" for note in each.notes]
        records += [_record(r, member, each, folder) for r in taken]
    return Dataset(_source(collection.name, [each.source for each in sets]), folder, tuple(records), tuple(notes))


def _file(path: Path) -> Collection:
    try:
        return Collection.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidDataset(f"{path}: {error}") from error
    except ValidationError as error:
        raise InvalidDataset(f"{path}: {first_fault(error)}") from error


def _check_patients(path: Path, sets: Sequence[Dataset]) -> None:
    seen: dict[str, int] = {}
    for number, each in enumerate(sets):
        twice = sorted({r.patient_id for r in each.records if seen.setdefault(r.patient_id, number) != number})
        if twice:
            raise InvalidDataset(
                f"{path}: {counted(len(twice), f'patient of {each.source.name} has a name', f'patients of {each.source.name} have names')} of another set: {some(twice)}"
            )


def _compact(record: Record, folder: Path, least: float) -> bool:
    return not least or all(fill >= least for mask in record.masks for fill in fills_of_mask(read_mask(folder / mask)))


def _record(record: Record, member: Member, dataset: Dataset, folder: Path) -> Record:
    """Return a record with paths that hold from the common folder."""
    below = dataset.folder.resolve().relative_to(folder)
    known = record if member.malignancy else replace(record, malignant=None, pathologies=())
    return replace(
        known,
        folder=str(below / record.folder),
        masks=tuple(str(below / mask) for mask in record.masks),
        source=dataset.source.name,
        times=member.times,
    )


def _source(name: str, sources: Sequence[Source]) -> Source:
    def told(words: Sequence[str]) -> str:
        """Return one word for all, or each with its set."""
        if len(set(words)) == 1:
            return words[0]
        return "; ".join(f"{each.name}: {word}" for each, word in zip(sources, words, strict=True))

    return Source(
        name or " and ".join(each.name for each in sources),
        told([each.licence for each in sources]),
        told([each.attribution for each in sources]),
        tuple(f"{each.name}: {caveat}" for each in sources for caveat in each.caveats),
    )
