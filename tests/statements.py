"""The conformance statement as tests read it: chapters and the tables in them."""

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from config.settings import ENVIRONMENT_PREFIX, Settings, load_settings
from node.conformance import statement

ROOT = Path(__file__).parents[1]
CONFIGURATION = ROOT / "docs" / "conformance.toml"
DOCUMENT = ROOT / "docs" / "conformance.md"

Row = dict[str, str]


def documented_settings() -> Settings:
    """Return the configuration of the statement that is checked in, whatever the environment says."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(ENVIRONMENT_PREFIX)]:
            patch.delenv(name)
        return load_settings(CONFIGURATION)


@cache
def printed() -> str:
    """Return the statement of the documented configuration, as the code prints it now; that takes many seconds."""
    return statement(documented_settings())


@cache
def documented() -> str:
    """Return the statement that is checked in; `test_conformance` holds it against what the code prints."""
    return DOCUMENT.read_text(encoding="utf-8")


def section(number: str, text: str | None = None) -> str:
    """Return the text under a heading, its subsections included."""
    lines = (documented() if text is None else text).splitlines()
    [start] = [at for at, line in enumerate(lines) if re.match(rf"#+ {re.escape(number)} ", line)]
    depth = lines[start].index(" ")
    ends = (at for at in range(start + 1, len(lines)) if re.match(rf"#{{1,{depth}}} ", lines[at]))
    return "\n".join(lines[start : next(ends, len(lines))])


def tables(text: str) -> Iterator[list[Row]]:
    """Yield the tables of a text, each as rows by column name."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        header, _, *lines = [_cells(line) for line in block.splitlines()]
        yield [dict(zip(header, line, strict=True)) for line in lines]


def table(text: str, *columns: str) -> list[Row]:
    """Return the rows of the one table of a text that has these columns."""
    [found] = [rows for rows in tables(text) if rows and set(columns) <= set(rows[0])]
    return found


def _cells(line: str) -> list[str]:
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
