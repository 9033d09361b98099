"""A real S3 server for the tests: OpenStack Swift behind its S3 interface, in a folder of its own."""

import itertools
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import obstore

from config.policy import BucketPlace
from storage.bucket import BucketStore
from storage.files import MARK
from tests.pacs import a_free_port
from tests.peers import eventually, missing

PEERS: Final = Path(__file__).resolve().parents[1] / ".peers"
SERVER: Final = Path(__file__).with_name("swift_server.py")
BUCKET: Final = "mammonode"
KEY: Final = "test:node"
SECRET: Final = "testing"  # noqa: S105 (of the server in tests)
MAY_NOT_WRITE: Final = ("test:reader", "reading")


class SwiftServer:
    """A server with one bucket, which keeps what it has when it goes away and comes back.

    Parameters
    ----------
    folder
        Where it keeps everything.
    """

    def __init__(self, folder: Path) -> None:
        found = sorted(PEERS.glob("swift-*/bin/python"))
        self._python = found[-1] if found else Path(missing("OpenStack Swift"))
        self._folder = folder
        self._prefixes = itertools.count()
        self.port = a_free_port()
        self.start()

    def start(self) -> None:
        """Come back."""
        command = [str(self._python), "-W", "ignore", str(SERVER), str(self._folder), str(self.port), BUCKET]
        self._log = self._folder / "swift.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        # It prints its port when it listens.
        ready = eventually(lambda: self._process.poll() is not None or f"{self.port}\n" in self._log.read_text())
        assert ready, self._log.read_text()
        assert self._process.poll() is None, self._log.read_text()

    def kill(self) -> None:
        """Go away at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def place(self, prefix: str | None = None) -> BucketPlace:
        """Return a part of the bucket, by default one that is empty."""
        name = prefix or f"part{next(self._prefixes)}"
        url = f"http://127.0.0.1:{self.port}"
        return BucketPlace(BUCKET, name, url, "us-east-1", KEY, SECRET, plain_http=True, keep_bytes=10**9)


@contextmanager
def a_swift_server(folder: Path) -> Iterator[SwiftServer]:
    """Run a server; skips the test where it is not installed."""
    server = SwiftServer(folder)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def over_tls(server: SwiftServer, certificate: Path) -> Iterator[int]:
    """Let a server be reached over TLS too, at the port that is yielded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as door:

        def take(caller: socket.socket) -> None:
            with (
                suppress(OSError),
                context.wrap_socket(caller, server_side=True) as there,
                socket.create_connection(("127.0.0.1", server.port)) as here,
            ):
                back = threading.Thread(target=pass_on, args=(here, there), daemon=True)
                back.start()
                pass_on(there, here)
                here.shutdown(socket.SHUT_WR)
                back.join()
            caller.close()

        def accept() -> None:
            with suppress(OSError):
                while True:
                    threading.Thread(target=take, args=(door.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield door.getsockname()[1]
        door.shutdown(socket.SHUT_RDWR)


def pass_on(one: socket.socket, other: socket.socket) -> None:
    """Send on what comes, until one end closes."""
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)


def a_host(folder: Path, place: BucketPlace, **changes: object) -> BucketStore:
    """Return the store of a host with a folder of its own."""
    store = BucketStore(folder, replace(place, **changes))  # type: ignore[arg-type]
    store.prepare()
    return store


def objects(store: BucketStore) -> set[str]:
    """Return the names of all that the bucket has, but for the mark that says whose it is."""
    bucket = store._bucket  # noqa: SLF001 (what the server says, whatever the store thinks)
    return {each["path"] for batch in obstore.list(bucket) for each in batch} - {MARK}


def section(place: BucketPlace) -> str:
    """Return the settings that say so."""
    return (
        f'[bucket]\nurl = "s3://{place.name}/{place.prefix}"\nendpoint = "{place.endpoint}"\nplain_http = true\n'
        f'access_key_id = "{place.access_key_id}"\nsecret_access_key = "{place.secret_access_key}"\n'
    )
