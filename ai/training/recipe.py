"""Recipes: everything that decides what a training run learns, in files that a card can repeat.

A file holds what its rows share, and a table for each row that says what is its own:

    title = "..."                        # shared keys: those of Recipe
    [parts.network]                      # parts by their role, in their order
    network = "resnet22_fpn"
    [parts.network.phases.first]         # phases by any name, in their order
    loss = "thesis_focal_tversky_07"
    [rows.r34fpn.parts.network]          # thesis-table-5/r34fpn: tables are merged, values and lists replaced
    network = "resnet34_fpn"

``extends`` names another file, or one row of it, to begin with; a row begins with that file's row of its name. Where
something is published, on what it was trained and with which figures is never inherited.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, PositiveInt, ValidationError, model_validator

from ai.errors import InvalidRecipe
from ai.models import CardPart
from ai.training.phases import Part
from ai.words import place_and_fault

SHIPPED: Final = Path(__file__).parents[1] / "recipes"
_OWN: Final = ("table", "data", "published", "same_as")


class Split(CardPart):
    """Who is trained on and who is not; patients are never divided.

    Attributes
    ----------
    seed
        Of the deal.
    parts, part
        Patients are dealt to so many parts, and this one is held out: it gives the figures, nothing else.
    folds
        The other patients are dealt to so many folds. Each fold is left out once and gives the validation loss of the
        networks that learn from the rest; 1 trains one set of networks on all of them, without validation.
    file
        Where the deal is fixed (see :mod:`ai.datasets.folds`), from the recipe's folder on: its folds are the parts, and
        those that are not held out the inner folds. None: patients are dealt by the seed.
    """

    seed: int = 1
    parts: int = Field(default=5, ge=2)
    part: int = Field(default=0, ge=0)
    folds: PositiveInt = 5
    file: Path | None = None

    @model_validator(mode="after")
    def _there(self) -> "Split":
        if self.part >= self.parts:
            raise ValueError(f"there is no part {self.part} of {self.parts}, the first is 0")
        if self.file and self.folds not in (1, self.parts - 1):
            raise ValueError(f"folds: with a file of {self.parts} folds 1, or {self.parts - 1}: those not held out")
        return self


class Tables(CardPart):
    """What the card of the trained model gets, beside what the run measures; see the reader's card.

    Attributes
    ----------
    architecture, thresholds
        Keys of these tables. A missing ``thresholds.mass`` is chosen after training.
    """

    architecture: Mapping[str, Any] = Field(default_factory=dict)
    thresholds: Mapping[str, float] = Field(default_factory=dict)


class Recipe(CardPart):
    """A training run.

    Attributes
    ----------
    name
        File and row, as ``mammonode train`` takes it.
    title
        What it reproduces.
    paper, table
        Where that is published.
    system
        Key of :data:`ai.training.systems.SYSTEMS`.
    data
        What the paper trained on, a sentence.
    same_as
        Another recipe that trains the same networks, which the paper evaluated elsewhere; of a file's rows, the row of
        the same name.
    images
        ``masses`` leaves out images without a mass.
    complete_exams
        Only exams with all four views, as in the thesis.
    split, seed
        Who is trained on, and the seed of every other random choice.
    parts
        One for each network of the system.
    reader
        Tables for the model's card.
    published
        Metric to value as printed, by the data set that was evaluated.
    """

    name: str
    title: str
    paper: str = ""
    table: str = ""
    system: str
    data: str = ""
    same_as: str = ""
    images: Literal["all", "masses"] = "all"
    complete_exams: bool = False
    split: Split = Split()
    seed: int = Field(default=1, ge=0)
    parts: tuple[Part, ...] = Field(min_length=1)
    reader: Tables = Tables()
    published: Mapping[str, Mapping[str, float]] = Field(default_factory=dict)

    def part(self, role: str) -> Part:
        """Return the part of a role; the system has made sure that there is one."""
        return next(part for part in self.parts if part.role == role)

    def at_random(self) -> "Recipe":
        """Return the recipe with all parts starting at random."""
        return self.model_copy(
            update={"parts": tuple(part.model_copy(update={"start": "random"}) for part in self.parts)}
        )

    def dealt(self, **split: int | Path | None) -> "Recipe":
        """Return the recipe with other values of its split; None leaves one as it is.

        Raises
        ------
        InvalidRecipe
            When there is no such split.
        """
        values = self.split.model_dump() | {key: value for key, value in split.items() if value is not None}
        try:
            return self.model_copy(update={"split": Split.model_validate(values)})
        except ValidationError as error:
            raise InvalidRecipe(f"{self.name}: split: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True)
class _File:
    """A recipe file: what its rows share, and each row's own."""

    shared: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]


def open_recipe(name: str) -> Recipe:
    """Open a recipe: ``table/row`` of those that come with this version, ``file.toml`` or ``file.toml#row``.

    Raises
    ------
    InvalidRecipe
        When there is none, or a key of it is missing, not known or out of its range; it is named.
    """
    path, row = _place(name, Path())
    file = _read(path, ())
    if row:
        if row not in file.rows:
            raise InvalidRecipe(f"{path}: there is no row {row!r}; there are {', '.join(file.rows) or 'none'}")
        return _recipe(path, row, _merged(file.shared, file.rows[row]))
    if file.rows:
        one = f"{name}{'#' if name.endswith('.toml') else '/'}{next(iter(file.rows))}"
        raise InvalidRecipe(f"{path} has the rows {', '.join(file.rows)}: name one, as {one}")
    return _recipe(path, "", file.shared)


def list_recipes() -> Iterator[Recipe]:
    """Yield the recipes that come with this version, file by file and row by row."""
    for path in sorted(SHIPPED.glob("*.toml")):
        file = _read(path, ())
        for row, own in (file.rows or {"": {}}).items():
            yield _recipe(path, row, _merged(file.shared, own))


def _place(name: str, beside: Path) -> tuple[Path, str]:
    """Return the file and the row that a name means; files of one's own end in .toml."""
    file, _, row = name.partition("#")
    if file.endswith(".toml"):
        return beside / file, row
    file, _, row = name.partition("/")
    path = SHIPPED / f"{file}.toml"
    if not path.is_file():
        known = ", ".join(p.stem for p in sorted(SHIPPED.glob("*.toml")))
        raise InvalidRecipe(f"there is no {name!r}; there are {known}, and files of your own end in .toml")
    return path, row


def _name(path: Path, row: str) -> str:
    if path.parent == SHIPPED:
        return f"{path.stem}/{row}" if row else path.stem
    return f"{path.name}#{row}" if row else path.name


def _read(path: Path, before: tuple[Path, ...]) -> _File:
    if path in before:
        raise InvalidRecipe(f"{path} extends itself")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRecipe(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRecipe(f"{path}: {error}") from error
    rows, extends = content.pop("rows", {}), content.pop("extends", "")
    if not isinstance(rows, dict) or not all(isinstance(row, dict) for row in rows.values()):
        raise InvalidRecipe(f"{path}: rows: each is a table, [rows.NAME]")
    for table in (content, *rows.values()):
        split = table.get("split")
        if isinstance(split, dict) and isinstance(split.get("file"), str):
            split["file"] = str(path.parent / split["file"])
    if not extends:
        return _File(content, rows)
    base = _base(str(extends), path, before)
    shared = _merged(base.shared, content)
    return _File(shared, {name: _merged(base.rows.get(name, {}), own) for name, own in rows.items()} or base.rows)


def _base(extends: str, path: Path, before: tuple[Path, ...]) -> _File:
    """Return the file that another extends, or one row of it, without its figures."""
    other, row = _place(extends, path.parent)
    file = _read(other, (*before, path))
    rows = {name: _without(own) for name, own in file.rows.items()}
    if not row:
        return _File(_without(file.shared), rows)
    if row not in rows:
        raise InvalidRecipe(f"{path}: extends: {other} has no row {row!r}")
    return _File(_merged(_without(file.shared), rows[row]), {})


def _without(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in _OWN}


def _merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged, keeping the base's order; values and lists replace."""
    result = dict(base)
    for key, value in own.items():
        old = result.get(key)
        result[key] = _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _recipe(path: Path, row: str, content: Mapping[str, Any]) -> Recipe:
    name = _name(path, row)
    if "name" in content:
        raise InvalidRecipe(f"{name}: name: the file and the row are its name")
    if row and content.get("same_as"):
        content = {**content, "same_as": f"{content['same_as']}/{row}"}
    try:
        return Recipe.model_validate({"name": name, **content, "parts": _parts(content.get("parts", []))})
    except ValidationError as error:
        place, what = place_and_fault(error)
        raise InvalidRecipe(f"{name}: {'.'.join(_place_in(content, place))}: {what}") from error


def _place_in(content: Any, place: Sequence[int | str]) -> Iterator[str]:
    """Name a place as the file does, which gives parts by their role and phases by a name."""
    for step in place:
        known = list(content) if isinstance(content, Mapping) else []
        key = known[step] if isinstance(step, int) and step < len(known) else step
        yield str(key)
        if isinstance(content, Sequence) and isinstance(step, int) and step < len(content):
            content = content[step]
        else:
            content = content.get(key) if isinstance(content, Mapping) else None


def _parts(parts: Any) -> Any:
    """Parts by role, and their phases by name, as lists."""
    if not isinstance(parts, Mapping):
        return parts
    result = []
    for role, part in parts.items():
        if isinstance(part, Mapping) and isinstance(part.get("phases"), Mapping):
            result.append({"role": role, **part, "phases": list(part["phases"].values())})
        else:
            result.append({"role": role, **part} if isinstance(part, Mapping) else part)
    return result
