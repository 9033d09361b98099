"""Log lines: one form for our events and the libraries' warnings, and no patient names."""

import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
import structlog
from structlog.contextvars import bound_contextvars

from node.telemetry import configure, logger


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        yield
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_an_event_is_one_line_of_json_with_what_is_bound_to_it() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    with bound_contextvars(association="a1"):
        logger("intake").info("instance received", exam="e1")
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["exam"], line["association"]) == ("instance received", "e1", "a1")
    assert (line["level"], line["logger"]) == ("info", "node.intake")
    assert line["timestamp"].endswith("Z")


def test_the_level_holds_for_us_and_libraries_speak_from_warning_on() -> None:
    stream = io.StringIO()
    configure("json", "debug", stream)
    logger("scp").debug("ours")
    logging.getLogger("pynetdicom.association").info("theirs")
    logging.getLogger("pynetdicom.association").warning("their trouble")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours", "their trouble"]
    stream.truncate(0)
    configure("json", "error", stream)
    logger("scp").warning("too little")
    assert not stream.getvalue().strip("\0")


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    try:
        int("bad")
    except ValueError:
        logger("delivery").exception("lane failed")
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert "ValueError: invalid literal" in line["exception"]


def test_a_stream_that_is_no_terminal_gets_json_unless_text_is_asked_for() -> None:
    automatic, text = io.StringIO(), io.StringIO()
    configure("auto", "info", automatic)
    logger("scp").info("listening", port=104)
    assert json.loads(automatic.getvalue())["port"] == 104
    configure("text", "info", text)
    logger("scp").info("listening", port=104)
    assert "listening" in text.getvalue()
    assert "port=104" in text.getvalue()
    assert "\x1b" not in text.getvalue()


def test_what_pydicom_quotes_from_odd_headers_is_not_told() -> None:
    stream = io.StringIO()
    configure("json", "debug", stream)
    logging.getLogger("pydicom").error("Invalid value for VR PN: Doe^Anne")
    assert stream.getvalue() == ""
