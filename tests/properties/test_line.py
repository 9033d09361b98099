"""The short cut of images from the connection to the file: what comes through it is what pynetdicom makes of it."""

import random
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, cast

import pynetdicom
import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from pynetdicom.dsutils import encode
from pynetdicom.presentation import StoragePresentationContexts, VerificationPresentationContexts
from structlog.testing import capture_logs

import node.guard
from node.digests import digest
from node.guard import Messages
from storage.database import reading
from storage.index import find_instance
from tests.builders import quick_header
from tests.doors import Room, an_open_door
from tests.fuzz import (
    A_DATA_SET,
    COMMAND,
    DATA,
    LAST,
    RELEASE,
    STORE_REQUEST,
    command,
    echo,
    fragment,
    pdu,
    request,
)

if TYPE_CHECKING:
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

pytestmark = pytest.mark.sqlite_alone

UIDS = count(100_001)
ACCEPTED = b"\x02"
"""The first byte of an A-ASSOCIATE-AC (PS3.8 9.3.3)."""


def an_image(uid: str, rng: random.Random) -> bytes:
    header = quick_header(SOPInstanceUID=uid, StudyInstanceUID="1.2.3", SeriesInstanceUID="1.2.4")
    header.PixelData = rng.randbytes(2 * rng.choice((0, 1000, 150_000)))
    header["PixelData"].VR = "OW"
    content = encode(header, is_implicit_vr=False, is_little_endian=True)
    assert content
    return content


def four_images(seed: int) -> dict[str, bytes]:
    """Return data sets by UIDs that were never used; those of one seed have the same pixels."""
    uids = [f"1.2.77.{next(UIDS)}" for _ in range(4)]
    return {uid: an_image(uid, random.Random(number)) for number, uid in enumerate(uids, seed)}  # noqa: S311


def in_pieces(content: bytes, rng: random.Random) -> Iterator[bytes]:
    """Yield the PDUs of a data set: fragments of odd sizes, empty ones, several in one PDU."""
    waiting, at, most = b"", 0, rng.choice((7_000, 40_000, 131_060))
    while at < len(content):
        size = rng.choice((0, most, most, rng.randrange(1, most)))
        at += size
        waiting += fragment(content[at - size : at], LAST if at >= len(content) else 0)
        if at >= len(content) or rng.random() < 0.8:
            yield pdu(DATA, waiting)
            waiting = b""


def converse(port: int, contents: dict[str, bytes], seed: int) -> list[bytes]:
    """Send images, with an echo after them now and then, in writes of odd sizes; return the answers."""
    rng = random.Random(seed)  # noqa: S311
    requests = [request()]
    for uid, content in contents.items():
        told = command(STORE_REQUEST, uid.encode(), data_set=A_DATA_SET)
        requests.append(pdu(DATA, fragment(told, COMMAND | LAST)) + b"".join(in_pieces(content, rng)))
        requests += [echo()] if rng.random() < 0.3 else []
    answers = []
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        for sent in [*requests, pdu(RELEASE, bytes(4))]:
            at = 0
            while at < len(sent):
                size = rng.choice((1, 11, 1000, 100_000))
                line.sendall(sent[at : at + size])
                at += size
            head = line.recv(6, socket.MSG_WAITALL)
            answers.append(head + line.recv(int.from_bytes(head[2:], "big"), socket.MSG_WAITALL))
    return answers


@contextmanager
def pynetdicom_alone() -> Iterator[tuple[int, dict[str, bytes]]]:
    """Run a receiver of pynetdicom's own, nothing of it replaced; yield its port and the data sets that it is given."""
    kept: dict[str, bytes] = {}

    def keep(event: evt.Event) -> int:
        stored = cast("C_STORE", event.request)
        kept[str(stored.AffectedSOPInstanceUID)] = cast("BytesIO", stored.DataSet).getvalue()
        return 0x0000

    entity = AE("MAMMONODE")
    entity.supported_contexts = [*StoragePresentationContexts, *VerificationPresentationContexts]
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    assert server
    try:
        yield server.server_address[1], kept
    finally:
        server.shutdown()


@pytest.mark.parametrize("seed", [1, 2, 3, pytest.param(range(4, 20), marks=pytest.mark.slow)])
def test_a_conversation_has_the_answers_and_data_sets_that_pynetdicom_alone_gives_it(
    room: Room, seed: int | range
) -> None:
    for each in [seed] if isinstance(seed, int) else seed:
        contents = four_images(each)
        with an_open_door(room) as door:
            ours = converse(door.port, contents, each)
        with pynetdicom_alone() as (port, kept):
            theirs = converse(port, contents, each)
        # The first answer names the implementation, and the longest PDU that it takes (PS3.7 D.3.3).
        assert ours[0][:1] == theirs[0][:1] == ACCEPTED
        assert ours[1:] == theirs[1:], each
        assert kept == contents, each
        for uid, content in contents.items():
            with reading(room.engine) as connection:
                record = find_instance(connection, uid)
            assert record, each
            assert room.store.resolve(record.path).read_bytes().endswith(content), each


@pytest.mark.parametrize("seed", [1, 2, 3, pytest.param(range(4, 60), marks=pytest.mark.slow)])
def test_a_conversation_has_the_same_answers_and_files_with_and_without_it(
    room: Room, monkeypatch: pytest.MonkeyPatch, seed: int | range
) -> None:
    seeds = [seed] if isinstance(seed, int) else list(seed)
    for each in seeds:
        heard, files = [], []
        for has_short_cut in (True, False):
            monkeypatch.setattr(node.guard, "has_short_cut", lambda answer=has_short_cut: answer)
            contents = four_images(each)
            with an_open_door(room) as door:
                answers = converse(door.port, contents, each)
            for number, (uid, content) in enumerate(contents.items()):
                answers = [answer.replace(uid.encode(), f"{number}".encode()) for answer in answers]
                with reading(room.engine) as connection:
                    record = find_instance(connection, uid)
                assert record, each
                kept = room.store.resolve(record.path).read_bytes()
                assert kept.endswith(content), each
                assert record.digest == digest(room.store.resolve(record.path), len(kept) - len(content)), each
                files.append(dcmread(room.store.resolve(record.path)).file_meta.TransferSyntaxUID)
            heard.append(answers)
        assert heard[0] == heard[1], each
        assert len(set(files)) == 1


def test_most_of_an_image_takes_it(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    take = Messages.take

    def counted(self: Messages, parts: Sequence[memoryview]) -> bool:
        taken.extend(map(len, parts))
        return take(self, parts)

    monkeypatch.setattr(Messages, "take", counted)
    content = an_image("1.2.78.1", random.Random(0))  # noqa: S311
    content += bytes(20 * 65536 - len(content) % 65536)
    pieces = [content[at : at + 65536] for at in range(0, len(content), 65536)]
    with an_open_door(room) as door, socket.create_connection(("127.0.0.1", door.port), timeout=20) as line:
        line.sendall(request())
        line.recv(65536)
        told = command(STORE_REQUEST, b"1.2.78.1", data_set=A_DATA_SET)
        sent = [fragment(told, COMMAND | LAST), *(fragment(piece, 0) for piece in pieces[:-1])]
        line.sendall(b"".join(pdu(DATA, each) for each in [*sent, fragment(pieces[-1], LAST)]))
        line.recv(65536)
    assert sum(taken) > 0.5 * len(content)


def test_another_pynetdicom_receives_without_it_and_says_so(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynetdicom, "__version__", "3.1.0")
    monkeypatch.setattr(Messages, "take", None)
    with capture_logs() as lines, an_open_door(room) as door:
        content = an_image("1.2.79.1", random.Random(3))  # noqa: S311
        converse(door.port, {"1.2.79.1": content}, 1)
    assert [line["pynetdicom"] for line in lines if line["event"] == "images are received more slowly"] == ["3.1.0"]
    with reading(room.engine) as connection:
        assert find_instance(connection, "1.2.79.1")


def test_a_data_set_that_stops_in_the_middle_of_a_fragment_is_not_waited_for(room: Room) -> None:
    with (
        capture_logs() as lines,
        an_open_door(room, network_timeout=1) as door,
        socket.create_connection(("127.0.0.1", door.port), timeout=20) as line,
    ):
        line.sendall(request())
        line.recv(65536)
        told = command(STORE_REQUEST, b"1.2.80.1", data_set=A_DATA_SET)
        line.sendall(pdu(DATA, fragment(told, COMMAND | LAST)) + pdu(DATA, fragment(bytes(100_000), 0))[:70_000])
        assert line.recv(65536) == b""
    assert [each["event"] for each in lines if "PDU" in each["event"]] == [
        "association cut: a PDU that did not end in time"
    ]
    assert list(room.store.incoming.iterdir()) == []
