"""Log lines: one form for our events and the libraries' warnings, and no patient names."""

import io
import json
import logging

import pytest
from pydicom.config import debug
from structlog.contextvars import bound_contextvars

from node.events import events
from node.logs import configure
from node.telemetry import logger
from storage.errors import DatabaseUnavailable


def test_an_event_is_one_line_of_json_with_what_is_bound_to_it() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    with bound_contextvars(association="a1"):
        logger("intake").info("instance received", exam="e1")
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["exam"], line["association"]) == ("instance received", "e1", "a1")
    assert (line["level"], line["logger"]) == ("info", "node.intake")
    assert line["timestamp"].endswith("Z")


def test_a_stream_that_is_gone_costs_lines_and_not_what_they_tell_of(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    configure("auto", "info", stream)
    stream.close()
    logger("intake").info("instance received")
    assert "I/O operation on closed file" in capsys.readouterr().err


def test_without_stdout_lines_go_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout", None)
    configure()
    logger("serving").info("ready")
    assert json.loads(capsys.readouterr().err)["event"] == "ready"


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


def test_a_terminal_is_told_nothing_that_it_would_obey() -> None:
    stream = io.StringIO()
    configure("text", "info", stream)
    logger("web").info("request", path="/\x1b[31m\x9b2J\u202e", told="two\nlines")
    assert r"/\x1b[31m\x9b2J\u202e" in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_traceback_stays_in_its_line() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    try:
        int("bad")
    except ValueError:
        logger("delivery").exception("lane failed")
    [line] = map(json.loads, stream.getvalue().splitlines())
    told = line["exception"].splitlines()
    assert told[0].startswith("  test_telemetry.py:")
    assert told[-1] == "builtins.ValueError"


def test_an_exception_is_told_without_the_words_of_strangers() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    try:
        try:
            int("Doe^Anne")
        except ValueError as error:
            raise DatabaseUnavailable("locked") from error
    except DatabaseUnavailable:
        logger("delivery").exception("lane failed")
    logging.getLogger("pynetdicom.events").error("a handler failed", exc_info=ValueError("Doe^Anne"))
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert "Doe" not in stream.getvalue()
    assert first["exception"].splitlines()[1:3] == ["builtins.ValueError", "which led to"]
    assert first["exception"].endswith("that the URL is right. (locked)")
    assert second["exception"] == "builtins.ValueError"


@pytest.mark.parametrize("level", ["info", "warning", "error", "critical"])
def test_what_is_grave_says_its_phase_and_what_to_check(level: str) -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    getattr(logger("delivery"), level)("lane waits")
    logger("delivery").warning("lane waits", check="something else")
    line, special = map(json.loads, stream.getvalue().splitlines())
    assert line["phase"] == "deliver"
    assert line.get("check") == (None if level == "info" else events()["lane waits"].check)
    assert special["check"] == "something else"


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
    debug(debug_on=False, default_handler=False)  # as pydicom does when it is imported only now
    logging.getLogger("pydicom.pixels.decoders.base").error("Invalid value for VR PN: Doe^Anne")
    assert stream.getvalue() == ""


def test_what_reading_tells_by_the_standard_library_keeps_its_data_and_no_other() -> None:
    stream = io.StringIO()
    configure("json", "info", stream)
    told = {"was_read": "one picture at a time", "patient": "Doe^Anne"}
    logging.getLogger("ai.readers.memory").warning("memory did not suffice to read an image", extra=told)
    [line] = map(json.loads, stream.getvalue().splitlines())
    assert (line["was_read"], line["level"], line["logger"]) == (
        "one picture at a time",
        "warning",
        "ai.readers.memory",
    )
    assert line["check"] == events()["memory did not suffice to read an image"].check
    assert "Doe" not in stream.getvalue()
