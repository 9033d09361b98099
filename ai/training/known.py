"""What a model that a run begins from, or is made upon, knows of the patients that are held out."""

from collections.abc import Iterator, Sequence
from typing import Final

from ai.datasets.folds import held_out_by
from ai.datasets.records import Record
from ai.datasets.selection import digest_of
from ai.errors import InvalidDataset, InvalidRecipe
from ai.models import Model
from ai.training.deal import Dealt

UNKNOWN: Final = "Whether {name}, from which the training began, had seen patients of the held-out part is not known."
"""A sentence for every report."""


def check_upon(model: Model, dealt: Dealt, recipe: str) -> None:
    """Refuse a model to be trained upon that held out others than this run does.

    Raises
    ------
    InvalidRecipe
        When it did: it may have been trained on patients who are to be held out.
    """
    if _digest(model) != digest_of(dealt.kept):
        raise InvalidRecipe(
            f"{recipe}: {model.card.name} held out other patients than this recipe does on these data; give the data, "
            "seed or folds file that it was trained with"
        )


def check_start(model: Model, dealt: Dealt, records: Sequence[Record], recipe: str) -> str:
    """Refuse a model to start from that was trained on patients who are to be held out, as far as its card tells.

    The data may be the model's own, hold them as one set of several, or be others.

    Returns
    -------
    str
        A sentence for every report where the card does not tell; else "".

    Raises
    ------
    InvalidRecipe
        When a patient who is to be held out was not held out of the model.
    """
    digest = _digest(model)
    for group in _sets(records) if digest else ():
        kept = dealt.kept & {record.patient_id for record in group}
        if digest_of(kept) == digest:
            return ""
        try:
            theirs = held_out_by(model, group)
        except InvalidDataset:
            continue
        if known := len(kept - theirs):
            raise InvalidRecipe(
                f"{recipe}: {model.card.name}, from which it is to start, was trained on {known} of the patients that are "
                "held out; give the seed or folds file that it was trained with"
            )
        return ""
    return UNKNOWN.format(name=model.card.name)


def _digest(model: Model) -> str | None:
    found = model.card.training.plan.get("split", {}).get("held_out")
    return None if found is None else str(found)


def _sets(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """Yield all records, and those of each set of a collection."""
    yield records
    for source in sorted({record.source for record in records} - {""}):
        yield [record for record in records if record.source == source]
