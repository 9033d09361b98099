"""Commands configure the log, and each test leaves it as it was: their place to write to is closed with their test."""

import logging
import warnings
from collections.abc import Iterator

import pytest

from node.logs import ROOMS


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Put handlers, levels and warnings back; all tests have it around them."""
    root, rooms = logging.getLogger(), [logging.getLogger(room) for room in ROOMS]
    handlers, levels = root.handlers[:], [each.level for each in (root, *rooms)]
    with warnings.catch_warnings():
        yield
    root.handlers = handlers
    for each, level in zip((root, *rooms), levels, strict=True):
        each.setLevel(level)
