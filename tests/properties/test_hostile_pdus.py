"""Hostile senders at the DICOM door: whatever they send, the next modality is served, and nothing of theirs stays.

The cases come from a seed; MAMMONODE_FUZZ_SEED takes another. A failure names the case: ``pdu_case(seed, number)``.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from structlog.testing import capture_logs

from config.policy import Watermark
from node.scp import StorageSCP
from storage.database import reading
from storage.errors import DiskLow
from storage.index import find_instance
from tests.doors import Room, an_image, an_open_door, open_files
from tests.fuzz import (
    A_DATA_SET,
    COMMAND,
    DATA,
    ECHO,
    ECHO_REQUEST,
    LAST,
    MAMMOGRAM,
    STORE_REQUEST,
    USUAL_CONTEXTS,
    Case,
    command,
    confirmed,
    context,
    fragment,
    pdu,
    pdu_case,
    play,
    request,
    small_image,
    store,
)
from tests.peers import eventually

SEED = int(os.environ.get("MAMMONODE_FUZZ_SEED", "1"))
BATCH = 250
UIDS = count(1)
STAY = 30
"""Seconds in which a sender that stays is shown out: many more than a hurried door takes, fewer than one that waits for it."""

pytestmark = [
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.sqlite_alone,
]


@contextmanager
def a_hurried_door(room: Room, **settings: Any) -> Iterator[StorageSCP]:
    """Open a door that waits for a second at most; afterwards nothing of the senders may be left."""
    threads = threading.active_count()
    hurried = {"network_timeout": 1, "acse_timeout": 1, "dimse_timeout": 1, "maximum_associations": 64}
    with an_open_door(room, **(hurried | settings)) as door:
        yield door
        assert_calm(room, door, threads + 1)


def assert_calm(room: Room, door: StorageSCP, threads: int) -> None:
    """Check that no association, thread, connection or file of a sender is left."""
    assert eventually(lambda: door.associations == 0), f"{door.associations} associations hang"
    assert eventually(lambda: threading.active_count() <= threads), [each.name for each in threading.enumerate()]
    left = list(room.store.incoming.iterdir())
    assert left == []
    assert eventually(lambda: not open_files(room.store.incoming))


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def is_taken(door: StorageSCP) -> bool:
    """Tell whether a modality that calls gets its association."""
    entity = AE("MODALITY")
    entity.add_requested_context(Verification)
    association = entity.associate("127.0.0.1", door.port, ae_title="MAMMONODE")
    taken: bool = association.is_established
    association.release()
    return taken


def assert_serves(door: StorageSCP) -> None:
    """Check that a modality is served as ever."""
    entity = AE("MODALITY")
    image = an_image(SOPInstanceUID=f"1.2.77.{next(UIDS)}")
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    entity.add_requested_context(image.SOPClassUID)
    association = entity.associate("127.0.0.1", door.port, ae_title="MAMMONODE")
    assert association.is_established
    assert association.send_c_store(image).Status == 0
    association.release()


def play_batch(room: Room, door: StorageSCP, seed: int, numbers: range) -> None:
    """Play cases, eight at a time, and check that nobody was told of a success that was none."""
    cases = [pdu_case(seed, number) for number in numbers]
    with ThreadPoolExecutor(8) as senders:
        told = senders.map(lambda case: play(door.port, case), cases)
        for case, uids in zip(cases, told, strict=True):
            for uid in uids:
                with reading(room.engine) as connection:
                    record = find_instance(connection, uid)
                assert record, f"{case.name}: {uid} was confirmed and is not there"
                assert room.store.resolve(record.path).stat().st_size == record.size, case.name


@contextmanager
def nothing_said() -> Iterator[None]:
    """Let nothing be logged: pytest keeps every record, with the PDU that it tells of, and that would seem a leak."""
    logging.disable(logging.CRITICAL)
    with capture_logs() as lines:
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)
            del lines[:]


def play_cases(room: Room, total: int) -> None:
    with a_hurried_door(room) as door, nothing_said():
        assert_serves(door)
        threads = threading.active_count()
        before = resident()
        for first in range(0, total, BATCH):
            play_batch(room, door, SEED, range(first, first + BATCH))
            assert_serves(door)
            assert_calm(room, door, threads)
        assert resident() - before < 100e6


def test_no_sequence_of_pdus_harms_the_door(room: Room) -> None:
    play_cases(room, 500)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_long_sequence_of_pdus_harms_the_door(room: Room) -> None:
    play_cases(room, 20_000)


def test_the_same_seed_gives_the_same_case() -> None:
    assert [pdu_case(3, number) for number in range(60)] == [pdu_case(3, number) for number in range(60)]


HALF_A_PDU: dict[str, tuple[bytes | float, ...]] = {
    "a byte": (b"\x01",),
    "half of a request": (request()[:100],),
    "half of an instance": (request(), 20.0, b"".join(store("1.2.3"))[:300]),
    "a length of 2 GB": (pdu(DATA, b"x", claimed=1 << 31),),
    "a length of 2 GB within an association": (request(), 20.0, pdu(DATA, b"x", claimed=1 << 31)),
}


@pytest.mark.parametrize("name", HALF_A_PDU)
def test_a_pdu_that_does_not_end_is_not_waited_for(room: Room, name: str) -> None:
    with a_hurried_door(room) as door, capture_logs() as lines:
        play(door.port, Case(name, HALF_A_PDU[name], "stay"), stay=STAY)
        assert eventually(lambda: door.associations == 0)
        assert_serves(door)
    assert [line for line in lines if line["event"].startswith("association cut: a PDU")]


def test_a_pdu_that_comes_byte_by_byte_has_the_same_time(room: Room) -> None:
    with a_hurried_door(room) as door, socket.create_connection(("127.0.0.1", door.port)) as line:
        began = time.monotonic()
        with suppress(OSError):
            for byte in request():
                line.sendall(bytes([byte]))
                time.sleep(0.1)
        assert time.monotonic() - began < 15  # the whole would take 24


def test_a_claimed_length_costs_no_memory(room: Room) -> None:
    with a_hurried_door(room) as door, socket.create_connection(("127.0.0.1", door.port)) as line:
        before = resident()
        sent = 0
        with suppress(OSError):
            line.sendall(pdu(DATA, bytes(100), claimed=(1 << 32) - 1))
            for sent in range(300):  # noqa: B007
                line.sendall(bytes(1 << 20))
        assert sent < 100
        assert resident() - before < 50e6


def test_connections_that_ask_for_nothing_hold_no_place(room: Room) -> None:
    with a_hurried_door(room, maximum_associations=2, acse_timeout=60) as door:
        for _ in range(8):
            socket.create_connection(("127.0.0.1", door.port)).close()
        # The door may not have come to them all yet; a place that is held is held for the 60 s of acse_timeout.
        assert eventually(lambda: is_taken(door), seconds=30)
        assert eventually(lambda: door.associations == 0, seconds=20)
        assert_serves(door)


def test_a_crowd_of_connections_is_bounded(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("node.scp.CROWD", 4)
    with a_hurried_door(room, maximum_associations=2, acse_timeout=60) as door, capture_logs() as lines:
        crowd = [socket.create_connection(("127.0.0.1", door.port)) for _ in range(16)]
        assert eventually(lambda: bool(lines) and door.associations <= 7)
        for line in crowd:
            line.close()
        assert eventually(lambda: is_taken(door), seconds=30)
        assert eventually(lambda: door.associations == 0)
        assert_serves(door)
    assert {line["event"] for line in lines} >= {"connection closed: too many at once"}


TOLD = command(STORE_REQUEST, b"1.2.3", data_set=A_DATA_SET)
BROKEN = {
    "an unknown command": [fragment(command(0x7777), COMMAND | LAST)],
    "no command field": [fragment(command(STORE_REQUEST, leave=[0x0100]), COMMAND | LAST)],
    "an empty fragment": [b"\0\0\0\1\1"],
    "data without a command": [fragment(b"xx", LAST)],
    "a second command within the data": [fragment(TOLD, COMMAND | LAST), fragment(TOLD, COMMAND | LAST)],
    "an instance in a context that was not accepted": [fragment(TOLD, COMMAND | LAST, 9)],
    "data in another context than their command": [fragment(TOLD, COMMAND | LAST), fragment(b"xx", 0, 3)],
    "an instance without a UID": [fragment(command(STORE_REQUEST, data_set=A_DATA_SET, leave=[0x1000]), 3)],
    "an instance without a message ID": [fragment(command(STORE_REQUEST, b"1.2", data_set=1, leave=[0x0110]), 3)],
    "an instance of the class of an echo": [fragment(TOLD.replace(MAMMOGRAM, ECHO.ljust(27, b"\0")), 3)],
    "a command that does not end": [fragment(bytes(16000), COMMAND)] * 6,
    "an echo with data that do not end": [fragment(command(ECHO_REQUEST, data_set=1), 3, 3)]
    + [fragment(bytes(1 << 20), 0, 3)] * 18,
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_rules_ends_the_association_and_leaves_no_file(room: Room, name: str) -> None:
    parts: tuple[bytes | float, ...] = (request(), 20.0, *(pdu(DATA, value) for value in BROKEN[name]))
    with a_hurried_door(room, network_timeout=60) as door, capture_logs() as lines:
        play(door.port, Case(name, parts, "stay"), stay=STAY)
    assert "message refused" in [line["event"] for line in lines] or "does not know" in str(lines)
    assert room.files() == set()


def test_instances_that_wait_when_their_sender_goes_leave_no_file(room: Room) -> None:
    many = b"".join(part for number in range(20) for part in store(f"1.2.{number}"))
    with a_hurried_door(room) as door:
        play(door.port, Case("pipelined", (request(), 20.0, many), "run"))
    kept, _, _ = room.rows()
    assert len(room.files()) == kept


def test_a_context_without_a_transfer_syntax_is_answered(room: Room) -> None:
    with a_hurried_door(room) as door, socket.create_connection(("127.0.0.1", door.port), timeout=30) as line:
        line.sendall(request(contexts=USUAL_CONTEXTS + context(5, b"1.2.840.10008.5.1.4.1.1.7")))
        assert line.recv(1) == b"\x03"


def test_requests_that_share_a_pdu_are_all_answered(room: Room) -> None:
    body = small_image("1.2.3")
    shared = [fragment(TOLD, COMMAND | LAST), fragment(body, LAST), fragment(command(ECHO_REQUEST), COMMAND | LAST, 3)]
    with a_hurried_door(room) as door, socket.create_connection(("127.0.0.1", door.port), timeout=30) as line:
        line.sendall(request())
        line.recv(65536)
        line.sendall(pdu(DATA, b"".join(shared)))
        heard = bytearray()
        while heard.count(b"\x30\x80") < 1:  # the Command Field of the C-ECHO response
            heard += line.recv(65536)
        assert list(confirmed(bytes(heard))) == ["1.2.3"]


def test_an_instance_that_does_not_end_stops_at_the_watermark(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def full(watermark: Watermark) -> None:
        looked.append(watermark)
        raise DiskLow("nothing left")

    monkeypatch.setattr("node.guard.ROOM_EVERY", 1 << 20)
    parts: tuple[bytes | float, ...] = (
        request(),
        20.0,
        pdu(DATA, fragment(TOLD, 3)),
        *[pdu(DATA, fragment(bytes(1 << 17), 0))] * 12,
    )
    with a_hurried_door(room) as door, capture_logs() as lines:
        monkeypatch.setattr(room.store, "require_space", full)
        play(door.port, Case("endless", parts, "stay"), stay=STAY)
        monkeypatch.undo()
    assert looked
    told = [line["event"] for line in lines]
    assert "instance not received" in told
    # It is this node's disk, and no fault of the sender's.
    assert not [event for event in told if event.startswith(("association ended", "association cut"))]
    assert room.files() == set()
