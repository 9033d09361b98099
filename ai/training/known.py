"""What a model that a run begins from, or is made upon, knows of the patients that are held out."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ai.datasets.folds import held_out_by, learned_from
from ai.datasets.records import Record, by_set
from ai.datasets.selection import digest_of, digests_of, known_digests
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
    if digest_of(dealt.kept) not in _digests(model):
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
    if (everybody := _split(model).get("everybody")) is not None:
        learned = learned_from(model, records)
        _refuse(model, len(dealt.kept & learned), recipe)
        return "" if digest_of(learned) == everybody else UNKNOWN.format(name=model.card.name)
    digests, by_its_sets = _digests(model), _split(model).get("held_out_of", {})
    ours = digests_of(dealt.kept, records)
    differs = any(by_its_sets.get(source, digest) != digest for source, digest in ours.items())
    for group in () if not digests else [records] if differs else [records, *by_set(records)]:
        kept = dealt.kept & {record.patient_id for record in group}
        if digest_of(kept) in digests:
            return ""
        try:
            theirs = held_out_by(model, group)
        except InvalidDataset:
            continue
        _refuse(model, len(kept - theirs), recipe)
        return ""
    return UNKNOWN.format(name=model.card.name)


def _refuse(model: Model, known: int, recipe: str) -> None:
    if known:
        raise InvalidRecipe(
            f"{recipe}: {model.card.name}, from which it is to start, was trained on {known} of the patients that are "
            "held out; give the seed or folds file that it was trained with"
        )


def unknown_of(model: Model) -> list[str]:
    """Return such sentences of a model's own: what it began from, a model that begins from it has seen, too."""
    before, after = UNKNOWN.split("{name}")
    return [note for note in model.card.use.notes if note.startswith(before) and note.endswith(after)]


def _digests(model: Model) -> set[str]:
    return known_digests(_split(model))


def _split(model: Model) -> Mapping[str, Any]:
    found: Mapping[str, Any] = model.card.training.plan.get("split", {})
    return found
