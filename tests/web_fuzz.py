"""Hostile requests over HTTP, made from a seed, and what becomes of them: ``python -m tests.web_fuzz --cases 10000``.

A case is made of its seed and number alone, so that a failure names all that it takes to see it again:
``http_case(seed, number)``.
"""

import argparse
import gc
import gzip
import json
import os
import random
import socket
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from node.results.encode import to_bytes
from storage.database import migrate, open_database
from storage.workitems import GLOBAL
from tests.doors import a_room, phantom_images
from tests.web import BOUNDARY, Service, a_service, content_type, related, served

IMAGE = phantom_images()[0]
STUDY, SERIES, INSTANCE = (
    str(IMAGE[keyword].value) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
)
NAMES = ("1.2", "", "..", "../../etc/passwd", "%00", "%2e%2e%2f", "9" * 65, "x" * 5000, "1.2.", "-1", "%ff%fe", "🦴")
TAILS = (
    *("", "/metadata", "/rendered", "/thumbnail", "/frames/1", "/frames/1,2,1", "/frames/0", "/frames/99999999"),
    *(
        "/frames/1/rendered",
        "/frames/x/thumbnail",
        "/bulkdata/7FE00010",
        "/bulkdata/00081140/1/00081155",
        "/bulkdata/zz",
    ),
    *("/series", "/instances", "/nonsense", "/bulkdata/" + "00081140/1/" * 50),
)
QUERIES = (
    *("limit=-1", "limit=99999999999999999999", "offset=1e9", "includefield=all", "includefield=,,", "StudyDate=-"),
    *("PatientName=%00", "PatientName=*%3F[", "PatientName='%3B--", "StudyInstanceUID=1,2,,", "00100010=x&00100010=y"),
    *(
        "viewport=99999,99999",
        "viewport=1,1,0,0,0,0",
        "window=1e400,1,linear",
        "quality=1000",
        "accept=%00",
        "fuzzymatching=true",
    ),
    *(
        "Rows=99999999999",
        "ModalitiesInStudy=" + "A" * 9000,
        "00404021.0020000D=1.2",
        "=&=&&",
        "%=%25",
        "StudyTime=2460",
    ),
)
ACCEPTS = (
    *("", "*/*", "application/dicom", "application/dicom+json", "application/dicom+xml", "image/png", "text/html"),
    *(
        'multipart/related; type="application/dicom"; transfer-syntax=*',
        "multipart/related; type=application/octet-stream",
    ),
    *("multipart/related; type=", "a/b;q=nan", ";;;", '"', "x" * 9000, "image/jpeg; transfer-syntax=1.2", "*/*;q=0"),
)
ENCODINGS = ("identity", "gzip", "deflate", "br", "gzip, gzip", "")
METHODS = ("GET", "GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "G\x01T")


@dataclass(frozen=True)
class HttpCase:
    """A request, whether its client goes away before the answer, and whether the server may wait for more of it."""

    data: bytes
    leaves: bool = False
    cut: bool = False


def http_case(seed: int, number: int) -> HttpCase:
    """Return a request that is probably none."""
    chance = random.Random(f"{seed}-{number}")  # noqa: S311 - reproducible on purpose
    kind = chance.random()
    if kind < 0.05:
        return HttpCase(_noise(chance), cut=True)
    method, path = chance.choice(METHODS), _path(chance)
    headers: dict[str, str] = {}
    body = b""
    if method in {"POST", "PUT"} or kind > 0.9:
        headers, body = _body(chance)
        if chance.random() < 0.5:
            method, path = "POST", "/dicom-web/studies" + chance.choice(("", f"/{STUDY}", "/1.2", "/x"))
    if accept := chance.choice(ACCEPTS):
        headers["Accept"] = accept
    if chance.random() < 0.1:
        headers[
            chance.choice(("Host", "Range", "Expect", "Transfer-Encoding", "X-Forwarded-For", "Cookie", "Upgrade"))
        ] = chance.choice(("", "x", "100-continue", "chunked", "websocket", "bytes=0-", "\x7f", "9" * 3000))
    headers.setdefault("Content-Length", str(len(body)))
    if chance.random() < 0.05:
        headers["Content-Length"] = chance.choice(("-1", "x", "0", str(len(body) + 10), str(1 << 62), "1, 2"))
    lines = "".join(
        f"{name}: {value}\r\n" for name, value in {"Host": "localhost", "Connection": "close", **headers}.items()
    )
    head = f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")
    data = head + body
    if chance.random() < 0.05:
        data = _damaged(chance, data)
    whole = data == head + body and headers["Content-Length"] == str(len(body)) and "Transfer-Encoding" not in headers
    return HttpCase(data, leaves=chance.random() < 0.05, cut=not whole)


def _noise(chance: random.Random) -> bytes:
    return chance.choice(
        (
            chance.randbytes(chance.randrange(1, 2000)),
            b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        )
    )


def _path(chance: random.Random) -> str:
    def uid(known: str) -> str:
        return known if chance.random() < 0.7 else chance.choice(NAMES)

    level = chance.randrange(6)
    if level == 5:
        item = uid(GLOBAL)
        tails = ("", "/state", "/cancelrequest", "/subscribers/A", "/subscribers/" + "A" * 20, "/subscribers/A/suspend")
        path = chance.choice((f"/workitems/{item}{chance.choice(tails)}", "/workitems", "/subscribers/A"))
    else:
        path = ("", f"/studies/{uid(STUDY)}")[level > 0]
        path += f"/series/{uid(SERIES)}" if level > 1 else ""
        path += f"/instances/{uid(INSTANCE)}" if level > 2 else ""
        path += chance.choice(TAILS)
    if chance.random() < 0.4:
        path += "?" + "&".join(chance.sample(QUERIES, chance.randrange(1, 4)))
    return "/dicom-web" + path


FILE = to_bytes(IMAGE)[:20_000]
DOCUMENT = json.dumps(
    [{"00080018": {"vr": "UI", "Value": ["1.2.3"]}, "7FE00010": {"vr": "OW", "BulkDataURI": "x"}}]
).encode()
ASKED = json.dumps(
    [
        {
            "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
            "00404021": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": ["1.2"]}}]},
        }
    ]
).encode()


def _body(chance: random.Random) -> tuple[dict[str, str], bytes]:
    kind = chance.choice(("application/dicom", "application/dicom+json", "text/plain"))
    part = {"application/dicom": FILE, "application/dicom+json": chance.choice((DOCUMENT, ASKED))}.get(kind, b"x")
    if chance.random() < 0.6:
        part = _damaged(chance, part)
    parts = [part] * chance.randrange(0, 4)
    if chance.random() < 0.3:
        headers, body = {"Content-Type": kind}, part
    else:
        headers, body = {"Content-Type": content_type(kind)}, related(parts, kind)
        if chance.random() < 0.3:
            headers["Content-Type"] = headers["Content-Type"].replace(
                BOUNDARY, chance.choice(("", "x", "--", "b" * 500))
            )
    if chance.random() < 0.2:
        body = _damaged(chance, body)
    if chance.random() < 0.2:
        headers["Content-Encoding"] = chance.choice(ENCODINGS)
        if chance.random() < 0.5:
            body = gzip.compress(body, 1)
    return headers, body


def _damaged(chance: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(chance.randrange(1, 20)):
        if not damaged:
            break
        at = chance.randrange(len(damaged))
        match chance.randrange(4):
            case 0:
                damaged[at] = chance.randrange(256)
            case 1:
                del damaged[at : at + chance.randrange(1, 50)]
            case 2:
                damaged[at:at] = chance.randbytes(chance.randrange(1, 50))
            case _:
                del damaged[at:]
    return bytes(damaged)


@dataclass
class Verdict:
    """What became of many requests.

    Attributes
    ----------
    statuses
        Number of answers by status; 0 for none.
    bad
        Numbers of the cases that were answered with 500, or with a traceback.
    """

    statuses: Counter[int] = field(default_factory=Counter)
    bad: list[int] = field(default_factory=list)


def play(port: int, seed: int, numbers: Sequence[int], verdict: Verdict) -> None:
    """Send cases, each on a connection of its own, and note what comes back."""
    for number in numbers:
        answer = _sent(port, http_case(seed, number))
        head = answer.split(b" ", 2)
        status = int(head[1]) if len(head) > 1 and head[1].isdigit() else 0
        verdict.statuses[status] += 1
        if status == 500 or b"Traceback" in answer:
            verdict.bad.append(number)


def _sent(port: int, case: HttpCase) -> bytes:
    answer = b""
    with (
        suppress(OSError),
        socket.create_connection(("127.0.0.1", port), timeout=30) as client,
    ):
        client.sendall(case.data)
        if case.leaves:
            return b""
        if case.cut:
            client.shutdown(socket.SHUT_WR)
        while len(answer) < 1 << 20 and (data := client.recv(1 << 16)):
            answer += data
    return answer


def memory() -> int:
    """Return the resident bytes of this process."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def attacked(service: Service, seed: int, count: int) -> Verdict:
    """Play so many cases against a service."""
    verdict = Verdict()
    with served(service.app) as url:
        play(int(url.rpartition(":")[2]), seed, range(count), verdict)
    return verdict


def main() -> None:
    """Play many cases and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        engine = open_database(f"sqlite:///{folder}/fuzz.sqlite")
        migrate(engine)
        with a_service(a_room(Path(folder), engine)) as service:
            service.store(*phantom_images())
            verdict = attacked(
                service, options.seed, options.cases // 10
            )  # everything is imported and warm after these
            before = memory()
            verdict = attacked(service, options.seed + 1, options.cases)
            print(f"cases {options.cases}, statuses {dict(sorted(verdict.statuses.items()))}")  # noqa: T201
            print(f"500 or traceback: {len(verdict.bad)} {verdict.bad[:20]}")  # noqa: T201
            print(f"resident memory before {before / 1e6:.0f} MB, after {memory() / 1e6:.0f} MB")  # noqa: T201
            print(f"temporary files left: {len(service.leftovers())}")  # noqa: T201
            print(f"still answers: {service.get('/studies').status_code}")  # noqa: T201
        engine.dispose()


if __name__ == "__main__":
    main()
