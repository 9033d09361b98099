"""Model directories: weights as safetensors, and a card that says what they are; a wrong checksum is refused."""

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai.calibration import Calibration
from ai.errors import InvalidCard, MissingModel, MissingWeights, ModelError, UnknownReader, WrongDigest
from ai.findings import ModelIdentity
from ai.words import first_fault

CARD = "card.toml"
SHIPPED = Path(__file__).parent / "weights"
READERS: Final = ("agarwal", "madsen", "marita", "mass_fpn", "oulu")
"""Names of ai.readers.registry, for those who check a card and need no torch."""


class CardPart(BaseModel):
    """A table of a card: a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyPart = TypeVar("AnyPart", bound=CardPart)


class WeightsFile(CardPart):
    """One file of weights, in the card's folder; several are folds whose probabilities are averaged."""

    file: str = Field(pattern=r"^\w[\w.-]*$")
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Use(CardPart):
    """What the model is for.

    Attributes
    ----------
    statement
        Intended use, a sentence.
    accepts
        Presentation intents that it reads.
    notes
        Said in every report, for example that it was trained on film.
    """

    statement: str
    accepts: tuple[str, ...] = ("FOR PRESENTATION",)
    notes: tuple[str, ...] = ()


class Training(CardPart):
    """Where the weights come from: data set, its licence, attribution and caveats, start, and plan."""

    data: str
    licence: str
    attribution: str
    caveats: tuple[str, ...] = ()
    start: str
    patients: int
    images: int
    plan: Mapping[str, Any]


class ModelCard(CardPart):
    """The card.toml of a model directory.

    Attributes
    ----------
    selection
        What was chosen on which patients, as far as the training run cannot know it, a sentence each: a choice among
        models that is made on the patients a card reports makes its figures too good.
    """

    name: str
    version: str
    reader: str
    licence: str
    selection: tuple[str, ...] = ()
    architecture: Mapping[str, Any]
    thresholds: Mapping[str, float]
    use: Use
    training: Training
    weights: tuple[WeightsFile, ...] = Field(min_length=1)
    calibration: Calibration | None = None
    evaluation: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model directory whose card is valid; its weights are checked by :meth:`weights`."""

    folder: Path
    card: ModelCard

    @property
    def digest(self) -> str:
        """SHA-256 over all of the card but its figures and what they are worth; it covers the digests of the weights."""
        content = self.card.model_dump(mode="json", exclude={"evaluation", "selection"})
        if not self.card.calibration:
            del content["calibration"]
        if not self.card.training.caveats:
            del content["training"]["caveats"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, digest, and what reports need."""
        card = self.card
        return ModelIdentity(card.name, card.version, self.digest, card.use.notes, card.calibration, card.use.accepts)

    def part(self, name: str, kind: type[AnyPart]) -> AnyPart:
        """Return a free table of the card, such as its architecture, as what the reader needs.

        Raises
        ------
        InvalidCard
            When a key is missing, not known or out of its range; it is named.
        """
        try:
            return kind.model_validate(getattr(self.card, name))
        except ValidationError as error:
            raise InvalidCard(f"{self.folder / CARD}: {first_fault(error, name)}") from error

    def weights(self) -> list[Path]:
        """Return the weights files after comparing them with the card.

        Raises
        ------
        MissingWeights, WrongDigest
            When a file is not there, or is another one.
        """
        for fault in self.faults():
            raise fault
        return [self.folder / part.file for part in self.card.weights]

    def faults(self) -> Iterator[ModelError]:
        """Compare the weights files with the card, and yield what is wrong with each."""
        for part in self.card.weights:
            path = self.folder / part.file
            if not path.is_file():
                yield MissingWeights(str(path))
                continue
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != part.sha256:
                    yield WrongDigest(str(path))

    def require_reader(self) -> None:
        """Refuse a card whose reader this version does not have.

        Raises
        ------
        UnknownReader
            It names those there are.
        """
        if self.card.reader not in READERS:
            raise UnknownReader(f"{self.folder / CARD}: {self.card.reader!r}; there are {', '.join(READERS)}")


def open_model(name: str, installed: Path | None = None) -> Model:
    """Open a shipped model by name, an installed one by name, or a model directory by path.

    Parameters
    ----------
    name
        A name is looked up in this order; with a slash in it (``./mine``) it is a path alone.
    installed
        The models folder, see :mod:`ai.installation`.

    Raises
    ------
    MissingModel, InvalidCard
        When there is none, or its card is not valid.
    """
    folder = Path(name)
    if folder.name == name:
        places = [SHIPPED / name, *([installed / name] if installed else [])]
        folder = next((place for place in places if (place / CARD).is_file()), folder)
    if not (folder / CARD).is_file():
        names = [place.name for place in model_folders(installed)]
        raise MissingModel(f"{name}; the names are {', '.join(names)}" if folder.name == name else name)
    return Model(folder, read_card(folder / CARD))


def ready_model(name: str, installed: Path | None = None) -> Model:
    """Open a model that is to read: its reader is known, and its weights are those of its card. Needs no torch.

    Raises
    ------
    ai.errors.ModelError
        When it is not so.
    """
    model = open_model(name, installed)
    model.require_reader()
    model.weights()
    return model


def read_card(path: Path) -> ModelCard:
    """Read a card.

    Raises
    ------
    MissingModel, InvalidCard
        When it cannot be read, or a key is missing, not known or out of its range; it is named.
    """
    try:
        return ModelCard.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise MissingModel(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidCard(f"{path}: {error}") from error
    except ValidationError as error:
        raise InvalidCard(f"{path}: {first_fault(error)}") from error


def model_folders(installed: Path | None = None) -> list[Path]:
    """Return the model directories that can be called by their names: shipped ones, then those of a models folder."""
    places = [SHIPPED, *([installed] if installed else [])]
    cards = [card for place in places for card in sorted(place.glob(f"*/{CARD}"))]
    return [card.parent for card in cards if not card.parent.name.startswith(".")]
