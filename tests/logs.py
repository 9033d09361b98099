"""Tests that configure the log leave it as it was."""

import logging
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Put handlers, level and warnings back; a module that imports this has it around each of its tests."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        yield
    root.handlers = handlers
    root.setLevel(level)
