"""A sender that costs next to nothing, so that it is the receiver that is measured.

Run: python -m benchmarks.sender WAY FOLDER PORT CONNECTIONS COUNT
WAY is `store` (C-STORE), `stow` (STOW-RS) or `raw` (a length, and so many bytes, answered by one byte). Sends so many
images of FOLDER in all, and prints seconds, and CPU seconds, as JSON. Ends with an error when one is not taken.
"""

import http.client
import json
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from threading import Thread

from benchmarks.images import Image, Stream, names

EXPLICIT, IMPLICIT = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2"
BOUNDARY = "5d41402abc4b2a76b9719d911017c592"
Names = Iterable[dict[str, bytes]]


class Store:
    """One association that stores."""

    def __init__(self, port: int, image: Image) -> None:
        self._socket = _connection(port)
        self._socket.sendall(associate(image.sop_class))
        kind, accepted = self._answer()
        if kind != 2:
            raise SystemExit(f"association not accepted: PDU type {kind}")
        self._stream = _stream(image, min(_maximum(accepted) or 131072, 131072))

    def send(self, names: Names) -> None:
        """Store images."""
        for number, each in enumerate(names, start=1):
            self._socket.sendall(self._stream.request(each, number % 65535))
            self._socket.sendall(self._stream.rest)
            _, response = self._answer()
            at = response.find(b"\0\0\0\x09\2\0\0\0")  # Status (0000,0900)
            if at < 0 or response[at + 8 : at + 10] != b"\0\0":
                raise SystemExit(f"not stored: {response!r}")

    def close(self) -> None:
        """Release the association."""
        self._socket.sendall(struct.pack(">BBII", 5, 0, 4, 0))
        self._answer()
        self._socket.close()

    def _answer(self) -> tuple[int, bytes]:
        kind, _, length = struct.unpack(">BBI", exactly(self._socket, 6))
        return kind, exactly(self._socket, length)


class Stow:
    """One HTTP connection that stores."""

    def __init__(self, port: int, image: Image) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._image = image
        meta = _explicit(0x10, b"UI", EXPLICIT) + _explicit(0x12, b"UI", b"1.2.3.4")
        self._meta = meta
        self._before = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + bytes(128) + b"DICM"
        self._after = f"\r\n--{BOUNDARY}--\r\n".encode()

    def send(self, names: Names) -> None:
        """Store images."""
        for each in names:
            group = (
                _explicit(0x02, b"UI", self._image.sop_class) + _explicit(0x03, b"UI", each["instance"]) + self._meta
            )
            group = b"\2\0\1\0OB\0\0\2\0\0\0\0\1" + group
            head = (
                self._before + _explicit(0x00, b"UL", struct.pack("<I", len(group))) + group + self._image.under(each)
            )
            length = len(head) + len(self._image.pixels) + len(self._after)
            self._connection.putrequest("POST", "/dicom-web/studies")
            self._connection.putheader(
                "Content-Type", f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
            )
            self._connection.putheader("Accept", "application/dicom+json")
            self._connection.putheader("Content-Length", str(length))
            self._connection.endheaders()
            for part in (head, self._image.pixels, self._after):
                self._connection.send(part)
            response = self._connection.getresponse()
            answer = response.read()
            if response.status != 200:
                raise SystemExit(f"not stored: {response.status} {answer[:200]!r}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


class Raw:
    """One connection that sends bytes and their number."""

    def __init__(self, port: int, image: Image) -> None:
        self._socket, self._image = _connection(port), image

    def send(self, names: Names) -> None:
        """Send as many bytes as the images have."""
        length = struct.pack(">Q", len(self._image.head) + len(self._image.pixels))
        for _ in names:
            self._socket.sendall(length + self._image.head)
            self._socket.sendall(self._image.pixels)
            exactly(self._socket, 1)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


WAYS: dict[str, Callable[[int, Image], Store | Stow | Raw]] = {"store": Store, "stow": Stow, "raw": Raw}


def main() -> None:
    """Send."""
    way, folder, port, connections, count = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:6])
    image, failures = Image.load(folder), []
    WAYS[way](port, image).close()  # its PDUs are ready now

    def work(share: int) -> None:
        try:
            line = WAYS[way](port, image)
            line.send(names(share))
            line.close()
        except BaseException as error:  # noqa: BLE001 - told below, by the main thread
            failures.append(repr(error))

    # Whole exams, as modalities send them.
    exams = count // 4
    shares = [4 * (exams // connections + (n < exams % connections)) for n in range(connections)]
    threads = [Thread(target=work, args=(share,)) for share in shares]
    began, used = time.perf_counter(), time.process_time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit(failures[0])
    print(json.dumps({"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}))


@cache
def _stream(image: Image, maximum: int) -> Stream:
    return Stream(image, maximum)


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def exactly(connection: socket.socket, count: int) -> bytes:
    """Return so many bytes; an error when the other side closes before."""
    data = bytearray()
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError
        data += part
    return bytes(data)


def _explicit(number: int, kind: bytes, value: bytes) -> bytes:
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, number, kind, len(value)) + value


def _item(kind: int, value: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(value)) + value


def associate(sop_class: bytes) -> bytes:
    """Return an A-ASSOCIATE-RQ (PS3.8 9.3.2) with one context."""
    context = _item(0x20, b"\1\0\0\0" + _item(0x30, sop_class) + _item(0x40, EXPLICIT) + _item(0x40, IMPLICIT))
    user = _item(0x50, _item(0x51, struct.pack(">I", 16384)) + _item(0x52, b"1.2.3.4") + _item(0x55, b"BENCHMARK"))
    body = struct.pack(">HH", 1, 0) + b"MAMMONODE".ljust(16) + b"BENCHMARK".ljust(16) + bytes(32)
    body += _item(0x10, b"1.2.840.10008.3.1.1.1") + context + user
    return struct.pack(">BBI", 1, 0, len(body)) + body


def _maximum(accepted: bytes) -> int:
    """Return the Maximum Length (PS3.8 D.1) of an A-ASSOCIATE-AC without its header."""
    at = 68
    while at < len(accepted):
        kind, _, length = struct.unpack_from(">BBH", accepted, at)
        if kind == 0x50:
            found: int = struct.unpack_from(">I", accepted, accepted.index(b"\x51\0\0\4", at) + 4)[0]
            return found
        at += 4 + length
    return 16384


if __name__ == "__main__":
    main()
