"""Model directories: weights as safetensors, and a card that says what they are; a wrong checksum is refused."""

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ai.errors import InvalidCard, MissingModel, MissingWeights, WrongDigest
from ai.findings import ModelIdentity

CARD = "card.toml"
SHIPPED = Path(__file__).parent / "weights"


class CardPart(BaseModel):
    """A table of a card: a key that it does not know is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


AnyPart = TypeVar("AnyPart", bound=CardPart)


class WeightsFile(CardPart):
    """One file of weights; several are folds whose probabilities are averaged."""

    file: str
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
    """Where the weights come from: data set, its licence and attribution, start, and plan."""

    data: str
    licence: str
    attribution: str
    start: str
    patients: int
    images: int
    plan: Mapping[str, Any]


class ModelCard(CardPart):
    """The card.toml of a model directory."""

    name: str
    version: str
    reader: str
    licence: str
    architecture: Mapping[str, Any]
    thresholds: Mapping[str, float]
    use: Use
    training: Training
    weights: tuple[WeightsFile, ...] = Field(min_length=1)
    evaluation: Mapping[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """A model directory whose card is valid; its weights are checked by :meth:`weights`."""

    folder: Path
    card: ModelCard

    @property
    def digest(self) -> str:
        """SHA-256 over everything in the card but the evaluation figures; it covers the digests of the weights."""
        content = self.card.model_dump(mode="json", exclude={"evaluation"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def identity(self) -> ModelIdentity:
        """Name, version, digest and notes for reports."""
        return ModelIdentity(self.card.name, self.card.version, self.digest, self.card.use.notes)

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
            raise _invalid(self.folder / CARD, error, name) from error

    def weights(self) -> list[Path]:
        """Return the weights files after comparing them with the card.

        Raises
        ------
        MissingWeights, WrongDigest
            When a file is not there, or is another one.
        """
        paths = []
        for part in self.card.weights:
            path = self.folder / part.file
            if not path.is_file():
                raise MissingWeights(str(path))
            if hashlib.sha256(path.read_bytes()).hexdigest() != part.sha256:
                raise WrongDigest(str(path))
            paths.append(path)
        return paths


def open_model(name: str) -> Model:
    """Open a model directory by path, or a shipped one by name.

    Raises
    ------
    MissingModel, InvalidCard
        When there is none, or its card is not valid.
    """
    folder = SHIPPED / name
    if not (folder / CARD).is_file():
        folder = Path(name)
    try:
        content = tomllib.loads((folder / CARD).read_text(encoding="utf-8"))
        return Model(folder, ModelCard.model_validate(content))
    except OSError as error:
        raise MissingModel(name) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidCard(f"{folder / CARD}: {error}") from error
    except ValidationError as error:
        raise _invalid(folder / CARD, error) from error


def shipped_models() -> list[Model]:
    """Return the models that came with this version."""
    return [open_model(card.parent.name) for card in sorted(SHIPPED.glob(f"*/{CARD}"))]


def _invalid(card: Path, error: ValidationError, *parents: str) -> InvalidCard:
    first = error.errors()[0]
    where = ".".join(str(part) for part in (*parents, *first["loc"]))
    return InvalidCard(f"{card}: {where}: {first['msg']}")
