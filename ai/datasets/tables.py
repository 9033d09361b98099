"""CSV files of data sets: rows with their line numbers, and the values that several sets spell in their own ways."""

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ai.errors import InvalidDataset

UNKNOWN: Final = ("", "_", "NA", "N/A")
"""What stands where a set does not say."""


def read_table(path: Path, delimiter: str = ",") -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV file with a header, each with the number of its line; cells are stripped.

    Raises
    ------
    InvalidDataset
        When the file cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter)
            return [
                (reader.line_num, {k.strip(): v.strip() for k, v in row.items() if k is not None and v is not None})
                for row in reader
            ]
    except OSError as error:
        raise InvalidDataset(f"{path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidDataset(f"{path}: {error}") from error


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Name the place in a file where a value cannot be read.

    Raises
    ------
    InvalidDataset
        For every value that a block cannot read.
    """
    try:
        yield
    except KeyError as error:
        raise InvalidDataset(f"{place}: no value for {error.args[0]}") from error
    except (ValueError, TypeError) as error:
        raise InvalidDataset(f"{place}: {error}") from error


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


def density(text: str) -> int | None:
    """Return the BI-RADS density, 1 to 4, of ``1`` to ``4`` or ``a`` to ``d``; None where the set does not say.

    Raises
    ------
    ValueError
        For any other text.
    """
    if text.upper() in UNKNOWN:
        return None
    if len(text) == 1 and (place := "1A2B3C4D".find(text.upper())) >= 0:
        return place // 2 + 1
    raise ValueError(f"density {text!r}: neither 1 to 4 nor A to D")
