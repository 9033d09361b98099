"""The journal's native protocol, with a stand-in for journald's socket."""

import array
import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from node import journal
from node.events import events
from node.logs import configure
from node.telemetry import logger


class Journald:
    """Takes datagrams, and files where an entry was too large for one."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(10)

    def entry(self) -> list[tuple[str, str]]:
        """Return the fields of the next entry."""
        room = array.array("i").itemsize
        data, ancillary, _, _ = self._socket.recvmsg(1 << 20, socket.CMSG_SPACE(room))
        for _, _, rights in ancillary:
            [file] = array.array("i", rights)
            with os.fdopen(file, "rb") as sealed:
                sealed.seek(0)
                data = sealed.read()
        return list(parsed(data))

    def close(self) -> None:
        """End."""
        self._socket.close()


def parsed(data: bytes) -> Iterator[tuple[str, str]]:
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            [length] = struct.unpack("<Q", data[:8])
            value, end, data = data[8 : 8 + length], data[8 + length : 9 + length], data[9 + length :]
            assert end == b"\n"
        yield name.decode(), value.decode()


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journald]:
    taking = Journald(tmp_path / "socket")
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "socket")
    configure("journal", "debug")
    yield taking
    for handler in logging.getLogger().handlers:
        handler.close()
    taking.close()


def test_an_event_becomes_an_entry_with_a_field_for_each_key(journald: Journald) -> None:
    logger("delivery").error("result refused for good", exam="3f2a", delivery=7, tried=["SR", "SEG"], ok=False)
    entry = journald.entry()
    fields = dict(entry)
    assert fields["MESSAGE"].startswith('result refused for good exam=3f2a delivery=7 tried=["SR", "SEG"] ok=false ')
    assert fields["PRIORITY"] == "3"
    assert fields["MAMMONODE_EVENT"] == "result refused for good"
    assert fields["MESSAGE_ID"] == events()["result refused for good"].message_id
    assert (fields["MAMMONODE_EXAM"], fields["MAMMONODE_DELIVERY"], fields["MAMMONODE_OK"]) == ("3f2a", "7", "false")
    assert fields["MAMMONODE_PHASE"] == "deliver"
    assert fields["MAMMONODE_CHECK"] == events()["result refused for good"].check
    assert fields["SYSLOG_IDENTIFIER"] == "mammonode"
    assert [value for name, value in entry if name == "MAMMONODE_TRIED"] == ["SR", "SEG"]


@pytest.mark.parametrize(
    ("level", "priority"), [("critical", "2"), ("error", "3"), ("warning", "4"), ("info", "6"), ("debug", "7")]
)
def test_its_level_is_its_priority(journald: Journald, level: str, priority: str) -> None:
    getattr(logger("scp"), level)("listening")
    assert dict(journald.entry())["PRIORITY"] == priority


def test_a_traceback_and_odd_values_survive(journald: Journald) -> None:
    try:
        int("bad")
    except ValueError:
        logger("delivery").exception("lane failed", destination="zwölf\n=\x80", **{"odd-Key é": "\ud800"})
    fields = dict(journald.entry())
    assert fields["MESSAGE"].endswith("builtins.ValueError")
    assert "test_journal.py" in fields["MESSAGE"].splitlines()[-2]
    assert fields["MAMMONODE_DESTINATION"] == "zwölf\n=\x80"
    assert fields["MAMMONODE_ODD_KEY__"] == "?"


def test_what_is_too_large_for_a_datagram_goes_as_a_file(journald: Journald) -> None:
    logger("scp").info("presentation contexts rejected", contexts="x" * (1 << 20))
    assert dict(journald.entry())["MAMMONODE_CONTEXTS"] == "x" * (1 << 20)


def test_what_the_journal_does_not_take_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SOCKET", tmp_path / "nobody")
    stream = io.StringIO()
    configure("journal", "info", stream)
    logger("scp").warning("association refused: unknown caller", calling_ae="WHO")
    assert "MAMMONODE_CALLING_AE=WHO\n" in stream.getvalue()
    for handler in logging.getLogger().handlers:
        handler.close()


def test_the_journal_is_known_by_the_stream_that_systemd_has_connected(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert journal.is_the_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not journal.is_the_journal(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino + 1}"})
        assert not journal.is_the_journal(stream, {})
    assert not journal.is_the_journal(io.StringIO(), {"JOURNAL_STREAM": "1:1"})
