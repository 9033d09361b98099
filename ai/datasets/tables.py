"""CSV files of data sets: rows with their line numbers, and the values that several sets spell in their own ways."""

import csv
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from ai.errors import InvalidDataset

Value = TypeVar("Value")

UNKNOWN: Final = ("", "_", "0", "NA", "N/A", "NAN")
"""What stands where a set does not say."""


def read_table(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file with a header, each with the number of its line; cells are stripped.

    Cells are parted by commas, or by semicolons where the header has more of those.

    Raises
    ------
    InvalidDataset
        When the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=";" if header.count(";") > header.count(",") else ",")
            rows = (
                (reader.line_num, {k.strip(): v.strip() for k, v in row.items() if k is not None and v is not None})
                for row in reader
            )
            return [(number, row) for number, row in rows if any(row.values())]
    except OSError as error:
        raise InvalidDataset(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{path}: is no CSV text in UTF-8: {error}") from error


@dataclass(frozen=True)
class Naming(AbstractContextManager[None]):
    """Names the place in a file where a value cannot be read: an ``InvalidDataset`` for what a block raises.

    Attributes
    ----------
    place
        As the message says it.
    """

    place: str

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Translate what cannot be read."""
        if isinstance(error, KeyError):
            raise InvalidDataset(f"{self.place}: no value for {error.args[0]}") from error
        if isinstance(error, (ValueError, TypeError)):
            raise InvalidDataset(f"{self.place}: {error}") from error


def column(row: dict[str, str], *names: str) -> str:
    """Return the first of these columns that has a value.

    Raises
    ------
    KeyError
        When none has; it holds all the names.
    """
    for name in names:
        if row.get(name):
            return row[name]
    raise KeyError(" or ".join(names))


def known(values: Mapping[str, Value], text: str, what: str) -> Value:
    """Return what a word stands for.

    Raises
    ------
    ValueError
        When it stands for nothing; the words that there are are named.
    """
    if text not in values:
        raise ValueError(f"{what} {text!r}: none of {', '.join(v for v in values if v)}")
    return values[text]


def density(text: str) -> int | None:
    """Return the BI-RADS density, 1 to 4, of ``1`` to ``4`` or ``a`` to ``d``; None where the set does not say.

    Raises
    ------
    ValueError
        For any other text.
    """
    word = text.upper().removesuffix(".0")
    if word in UNKNOWN:
        return None
    if len(word) == 1 and (place := "1A2B3C4D".find(word)) >= 0:
        return place // 2 + 1
    raise ValueError(f"density {text!r}: neither 1 to 4 nor A to D")
