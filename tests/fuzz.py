"""Hostile senders: dialogues of PDUs that no peer should send, made from a seed, and a socket that plays them.

A case is made of its seed and number alone, so that a failure names all that it takes to see it again:
``pdu_case(seed, number)``.
"""

import random
import socket
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from io import BytesIO

from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from tests.builders import quick_header

APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
MAMMOGRAM = b"1.2.840.10008.5.1.4.1.1.1.2"
ECHO = b"1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = ExplicitVRLittleEndian.encode(), ImplicitVRLittleEndian.encode()

ASSOCIATE, ACCEPT, REJECT, DATA, RELEASE, RELEASED, ABORT = range(1, 8)
"""PDU types (PS3.8 9.3.1)."""

COMMAND, LAST = 1, 2
"""Bits of the Message Control Header (PS3.8 E.2)."""

STORE_REQUEST, STORE_RESPONSE, ECHO_REQUEST = 0x0001, 0x8001, 0x0030
NO_DATA_SET, A_DATA_SET = 0x0101, 0x0001

SIZES = (0, 1, 2, 3, 5, 6, 127, 65535, 131072, 131073, 5 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
"""Lengths that are worth a lie."""


def pdu(kind: int, body: bytes = b"", claimed: int | None = None) -> bytes:
    """Return a PDU, whose length may be a lie."""
    return struct.pack(">BBL", kind, 0, len(body) if claimed is None else claimed) + body


def item(kind: int, body: bytes, claimed: int | None = None) -> bytes:
    """Return an item of an A-ASSOCIATE PDU."""
    return struct.pack(">BBH", kind, 0, (len(body) if claimed is None else claimed) & 0xFFFF) + body


def context(number: int, abstract: bytes, *syntaxes: bytes) -> bytes:
    """Return a Presentation Context Item (PS3.8 9.3.2.2)."""
    body = item(0x30, abstract) + b"".join(item(0x40, syntax) for syntax in syntaxes)
    return item(0x20, bytes((number & 0xFF, 0, 0, 0)) + body)


USUAL_CONTEXTS = context(1, MAMMOGRAM, EXPLICIT) + context(3, ECHO, IMPLICIT)
USUAL_USER = item(0x51, struct.pack(">L", 16384)) + item(0x52, b"1.2.3") + item(0x55, b"FUZZ")


def request(
    calling: bytes = b"MODALITY",
    called: bytes = b"MAMMONODE",
    contexts: bytes = USUAL_CONTEXTS,
    user: bytes = USUAL_USER,
    *,
    application: bytes = APPLICATION_CONTEXT,
    version: int = 1,
) -> bytes:
    """Return an A-ASSOCIATE-RQ."""
    head = struct.pack(">HH", version, 0) + called.ljust(16)[:16] + calling.ljust(16)[:16] + bytes(32)
    return pdu(ASSOCIATE, head + item(0x10, application) + contexts + item(0x50, user))


def fragment(data: bytes, control: int, number: int = 1, claimed: int | None = None) -> bytes:
    """Return a Presentation Data Value Item."""
    return struct.pack(">LBB", len(data) + 2 if claimed is None else claimed, number & 0xFF, control & 0xFF) + data


def element(tag: int, value: bytes) -> bytes:
    """Return an element of a command (Implicit VR Little Endian)."""
    return struct.pack("<HHL", 0, tag, len(value)) + value


def command(field: int, uid: bytes = b"", *, data_set: int = NO_DATA_SET, leave: Sequence[int] = ()) -> bytes:
    """Return a command set, a request by its field."""
    elements = {
        0x0002: (MAMMOGRAM if field == STORE_REQUEST else ECHO).ljust(28, b"\0"),
        0x0100: struct.pack("<H", field),
        0x0110: struct.pack("<H", 7),
        0x0700: struct.pack("<H", 0),
        0x0800: struct.pack("<H", data_set),
        0x1000: uid + b"\0" * (len(uid) % 2),
    }
    body = b"".join(element(tag, value) for tag, value in elements.items() if tag not in leave)
    return element(0x0000, struct.pack("<L", len(body))) + body


@cache
def small_image(uid: str) -> bytes:
    """Return the data set of a mammogram without pixels, explicit little endian."""
    header = quick_header(SOPInstanceUID=uid, StudyInstanceUID=f"{uid}.1", SeriesInstanceUID=f"{uid}.2")
    content = encode(header, is_implicit_vr=False, is_little_endian=True)
    assert content
    return content


def store(uid: str, *, content: bytes | None = None, number: int = 1) -> list[bytes]:
    """Return the PDUs of a C-STORE request."""
    told = command(STORE_REQUEST, uid.encode(), data_set=A_DATA_SET)
    body = small_image(uid) if content is None else content
    return [
        pdu(DATA, fragment(told, COMMAND | LAST, number)),
        pdu(DATA, fragment(body[: len(body) // 2], 0, number)),
        pdu(DATA, fragment(body[len(body) // 2 :], LAST, number)),
    ]


def echo() -> bytes:
    """Return the PDU of a C-ECHO request."""
    return pdu(DATA, fragment(command(ECHO_REQUEST), COMMAND | LAST, 3))


@dataclass(frozen=True)
class Case:
    """What a hostile sender does.

    Attributes
    ----------
    name
        What is wrong with it, its seed and its number.
    parts
        What it sends, one after the other; a number is the seconds that it waits at most for a word in between.
    end
        How it goes: ``close``, ``reset``, ``stay`` (it says nothing more until it is shown out) or ``run`` (it closes
        without waiting for an answer).
    """

    name: str
    parts: tuple[bytes | float, ...]
    end: str


def _garbage(rng: random.Random, _: str) -> list[bytes | float]:
    return [rng.randbytes(rng.choice((1, 5, 6, 7, 100, 5000)))]


def _truncated(rng: random.Random, uid: str) -> list[bytes | float]:
    whole = b"".join([request(), *store(uid), pdu(RELEASE, bytes(4))])
    cut = rng.randrange(1, len(whole))
    return [whole[:cut]]


def _lengths(rng: random.Random, uid: str) -> list[bytes | float]:
    lie = pdu(rng.randrange(1, 8), rng.randbytes(rng.choice((0, 10, 1000))), rng.choice(SIZES))
    first: list[bytes | float] = [request(), 1.0] if rng.random() < 0.7 else []
    return [*first, *store(uid)[: rng.randrange(3)], lie]


def _order(rng: random.Random, uid: str) -> list[bytes | float]:
    every = [
        request(),
        *store(uid),
        echo(),
        *(pdu(kind, bytes(4)) for kind in (REJECT, RELEASE, RELEASED, ABORT)),
        pdu(ACCEPT, request()[6:]),
    ]
    first: list[bytes | float] = [request(), 1.0] if rng.random() < 0.6 else []
    return [*first, *rng.choices(every, k=rng.randrange(1, 6))]


def _unknown(rng: random.Random, uid: str) -> list[bytes | float]:
    kind = rng.choice((0, 8, 9, 0x10, 0x47, 0x7F, 0x80, 0xFF))
    return [*([request(), *store(uid)[: rng.randrange(3)]] if rng.random() < 0.7 else []), pdu(kind, bytes(4))]


def _contexts(rng: random.Random, uid: str) -> list[bytes | float]:
    classes = (MAMMOGRAM, ECHO, b"1.2.840.10008.5.1.4.1.1.7", b"1.2.999", b"", b"\xff" * 70, b"1..2", b"x" * 300)
    syntaxes = (EXPLICIT, IMPLICIT, b"1.2.840.10008.1.2.1.99", b"", b"junk", b"1" * 100)
    some = [
        context(rng.randrange(256), rng.choice(classes), *rng.choices(syntaxes, k=rng.choice((0, 1, 3, 40))))
        for _ in range(rng.choice((0, 1, 128, 300)))
    ]
    return [request(contexts=b"".join(some)), 1.0, *store(uid, number=rng.randrange(256))]


def _titles(rng: random.Random, uid: str) -> list[bytes | float]:
    odd = (b"", b" " * 16, bytes(16), b"\xff" * 16, b"A\\B", b"A\nB", rng.randbytes(16), "MÖDALITY".encode(), b"\x1b$B")
    calling, called = rng.choice((b"MODALITY", *odd)), rng.choice((b"MAMMONODE", *odd))
    return [request(calling, called, version=rng.choice((1, 1, 0, 2, 65535))), *store(uid)]


def _items(rng: random.Random, uid: str) -> list[bytes | float]:
    odd = [
        item(rng.randrange(256), rng.randbytes(rng.randrange(9)), rng.choice((None, *SIZES)))
        for _ in range(rng.randrange(1, 5))
    ]
    user = b"".join(rng.sample([USUAL_USER, *odd], len(odd) + 1))
    application = rng.choice((APPLICATION_CONTEXT, b"", b"1.2.3", rng.randbytes(80)))
    extra = rng.choice((b"", *odd))
    return [request(contexts=USUAL_CONTEXTS + extra, user=user, application=application), 1.0, *store(uid)]


def _values(rng: random.Random, uid: str) -> list[bytes | float]:
    lies = [
        fragment(rng.randbytes(rng.randrange(9)), rng.randrange(256), rng.choice((1, 3, 0, 255)), rng.choice(SIZES))
        for _ in range(rng.randrange(1, 4))
    ]
    before = store(uid)[: rng.randrange(3)]
    return [request(), 1.0, *before, pdu(DATA, b"".join(lies)[: rng.choice((3, 5, 6, 100))])]


def _commands(rng: random.Random, uid: str) -> list[bytes | float]:
    fields = (STORE_REQUEST, STORE_RESPONSE, ECHO_REQUEST, 0x0020, 0x0021, 0x0010, 0x0100, 0x0130, 0x0FFF, 0, 0xFFFF)
    tags = (0x0002, 0x0100, 0x0110, 0x0700, 0x0800, 0x1000)
    told = command(
        rng.choice(fields),
        rng.choice((uid.encode(), b"", b"../../x", b"1" * 200, b"\xff\xfe", b"1.2\0.3")),
        data_set=rng.choice((NO_DATA_SET, A_DATA_SET, 0, 0xFFFF)),
        leave=rng.sample(tags, rng.choice((0, 0, 1, 2))),
    )
    if rng.random() < 0.2:
        told = rng.choice(
            (rng.randbytes(60), told[:-3], told * 3, b"", element(0x0000, b"\1") + told, told + b"\0" * 9)
        )
    control = rng.choice((COMMAND | LAST, COMMAND | LAST, COMMAND))
    sent = [pdu(DATA, fragment(told, control, rng.choice((1, 1, 3, 5))))] * rng.choice((1, 1, 2, 30))
    return [request(), 1.0, *sent, *store(uid)[rng.randrange(4) :]]


def _crumbs(rng: random.Random, uid: str) -> list[bytes | float]:
    told, body = command(STORE_REQUEST, uid.encode(), data_set=A_DATA_SET), small_image(uid)
    size = rng.choice((1, 2, 7))
    pieces = [
        fragment(told[at : at + size], COMMAND | (LAST if at + size >= len(told) else 0))
        for at in range(0, len(told), size)
    ]
    pieces += [
        fragment(body[at : at + size], LAST if at + size >= len(body) else 0) for at in range(0, len(body), size)
    ]
    for _ in range(rng.choice((0, 0, 3))):
        pieces.insert(rng.randrange(len(pieces)), fragment(b"", rng.choice((0, COMMAND))))
    if rng.random() < 0.5:
        return [request(), 1.0, pdu(DATA, b"".join(pieces))]
    return [request(), 1.0, b"".join(pdu(DATA, piece) for piece in pieces)]


def _mutated(rng: random.Random, uid: str) -> list[bytes | float]:
    parts = [bytearray(part) for part in (request(), *store(uid), echo(), pdu(RELEASE, bytes(4)))]
    for _ in range(rng.choice((1, 1, 2, 8))):
        part = rng.choice(parts)
        at = rng.randrange(len(part))
        part[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    return [bytes(part) for part in parts]


def _pipelined(rng: random.Random, uid: str) -> list[bytes | float]:
    many = [part for number in range(rng.choice((2, 5, 20))) for part in store(f"{uid}.{number}")]
    return [request(), 1.0, b"".join(many), *([pdu(ABORT, bytes(4))] if rng.random() < 0.5 else [])]


def _unfinished(rng: random.Random, uid: str) -> list[bytes | float]:
    sent = store(uid)[: rng.randrange(1, 3)]
    if rng.random() < 0.5:
        sent = [*sent, *store(f"{uid}.9")]
    return [request(), 1.0, *sent]


def _elsewhere(rng: random.Random, uid: str) -> list[bytes | float]:
    """Store under a class that is none for storing, or under a context that was not accepted."""
    told = command(STORE_REQUEST, uid.encode(), data_set=A_DATA_SET)
    told = told.replace(MAMMOGRAM.ljust(28, b"\0"), rng.choice((ECHO, b"1.2.999", b"")).ljust(28, b"\0"))
    number = rng.choice((1, 3, 5, 200))
    body = small_image(uid)
    return [
        request(),
        1.0,
        pdu(DATA, fragment(told, 3, number)),
        pdu(DATA, fragment(body, LAST, rng.choice((1, number)))),
    ]


KINDS: dict[str, Callable[[random.Random, str], list[bytes | float]]] = {
    "garbage": _garbage,
    "cut off": _truncated,
    "lying PDU lengths": _lengths,
    "wrong order": _order,
    "unknown PDU types": _unknown,
    "odd contexts": _contexts,
    "odd AE titles": _titles,
    "odd items": _items,
    "lying PDV lengths": _values,
    "odd commands": _commands,
    "crumbs": _crumbs,
    "changed bytes": _mutated,
    "pipelined": _pipelined,
    "unfinished": _unfinished,
    "elsewhere": _elsewhere,
}
"""What can be wrong with a dialogue."""


def pdu_case(seed: int, number: int) -> Case:
    """Return one case; the same for the same seed and number."""
    rng = random.Random(f"{seed}/{number}")  # noqa: S311
    name = list(KINDS)[number % len(KINDS)]
    parts = KINDS[name](rng, f"1.2.{seed}.{number}")
    end = rng.choices(("close", "run", "reset", "stay"), (6, 2, 2, 0.4))[0]
    return Case(f"{name}: pdu_case({seed}, {number})", tuple(parts), end)


def play(port: int, case: Case, *, patience: float = 0.1, stay: float = 30) -> list[str]:
    """Play a case against a door and return the instances whose storage was confirmed.

    Parameters
    ----------
    patience
        Seconds to listen for an answer after the last word.
    stay
        Seconds that a sender who stays waits to be shown out.

    Raises
    ------
    AssertionError
        When it was not shown out.
    """
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=5) as line, suppress(OSError):
        for part in case.parts:
            if isinstance(part, bytes):
                line.sendall(part)
            else:
                _listen(line, part, heard, first=True)
        if case.end == "stay":
            assert _listen(line, stay, heard), f"{case.name}: not shown out"
        elif case.end != "run":
            _listen(line, patience, heard, first=True)
        if case.end == "reset":
            line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return list(confirmed(bytes(heard)))


def _listen(line: socket.socket, seconds: float, heard: bytearray, *, first: bool = False) -> bool:
    """Hear what comes, for so long or until the first of it; True when the other side has closed."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        line.settimeout(left)
        try:
            word = line.recv(65536)
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        if not word:
            return True
        heard += word
        if first:
            return False
    return False


def confirmed(heard: bytes) -> Iterator[str]:
    """Yield the SOP Instance UIDs of the C-STORE responses that say success."""
    stream = BytesIO(heard)
    while len(head := stream.read(6)) == 6:
        kind, length = head[0], struct.unpack(">L", head[2:])[0]
        values = BytesIO(stream.read(length))
        while kind == DATA and len(size := values.read(4)) == 4:
            value = values.read(struct.unpack(">L", size)[0])
            answer = dcmread(BytesIO(value[2:]), force=True)
            if answer.get("CommandField") == STORE_RESPONSE and answer.get("Status") == 0:
                yield str(answer.get("AffectedSOPInstanceUID", ""))
