"""Whether the doors are tended: the node knocks at its own, as anybody would from outside."""

import http.client
import socket
import ssl
from collections.abc import Callable, Sequence
from threading import Event, Thread

from config.settings import TEST_AE_TITLE, Dicom, Settings
from node.errors import CannotListen
from node.progress import Part, Progress
from node.scu import Peer, Sender
from node.tls import ANYBODY, Transport

Door = tuple[Part, Callable[[], bool]]

EVERY = 120.0
PATIENCE = 360.0
"""Seconds without any answer after which a door counts as stuck: several knocks, each with time enough."""
ANSWERS_IN = 30.0
SOON = 5.0
"""Seconds in which a door answers somebody who waits for it at a terminal."""


class DoorProbe:
    """Knocks at the doors in a thread of its own.

    Any answer will do, a refusal too: who is refused for want of room has been looked at.

    Parameters
    ----------
    progress
        Expects the doors to answer.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._stopping = Event()
        self._thread: Thread | None = None

    def start(self, settings: Settings, dicom: int, web: int | None, transport: Callable[[], Transport]) -> None:
        """Begin to knock at the ports that the doors listen on, with the certificates in force."""
        peer = itself(settings, dicom)
        knocking = Dicom(ae_title=TEST_AE_TITLE, acse_timeout=ANSWERS_IN, network_timeout=ANSWERS_IN)
        part = self._progress.expect("DICOM door", PATIENCE)
        doors: list[Door] = [(part, lambda: Sender(knocking, transport()).knock(peer))]
        if web is not None:
            host, secured = reachable(settings.http.bind), bool(getattr(settings.http, "certificate", ""))
            part = self._progress.expect("HTTP door", PATIENCE)
            doors.append((part, lambda: web_answers(host, web, secured=secured)))
        self._thread = Thread(target=self._run, args=(doors,), name="door probe", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Knock no more."""
        self._stopping.set()

    def _run(self, doors: Sequence[Door]) -> None:
        while not self._stopping.wait(EVERY):
            for part, answers in doors:
                if answers():
                    part.beat()
        for part, _ in doors:
            part.end()


def itself(settings: Settings, port: int) -> Peer:
    """Return the node's own DICOM door, as one calls it from this machine; its certificate is for another address."""
    dicom = settings.dicom
    return Peer("itself", dicom.ae_title, reachable(dicom.bind), port, settings.tls.listen, ANYBODY)


def reachable(bind: str) -> str:
    """Return where a door can be reached from this machine itself."""
    return {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 (compared, not bound)


def is_open(dicom: Dicom) -> bool:
    """Tell whether somebody listens where the DICOM door of these settings is."""
    try:
        with socket.create_connection((reachable(dicom.bind), dicom.port), timeout=ANSWERS_IN):
            return True
    except OSError:
        return False


def try_address(door: str, bind: str, port: int) -> None:
    """Listen where a door is to listen, and close it at once.

    Raises
    ------
    CannotListen
        When that cannot be.
    """
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    try:
        socket.create_server((bind, port), family=family).close()
    except OSError as error:
        raise CannotListen(f"{door}, {bind}:{port}: {error.strerror}") from error


def is_tended(settings: Settings, transport: Transport) -> bool:
    """Tell whether whoever listens there answers as the DICOM door of a node does."""
    knocking = settings.dicom.model_copy(update={"ae_title": TEST_AE_TITLE, "acse_timeout": SOON})
    return Sender(knocking, transport).knock(itself(settings, settings.dicom.port))


def web_answers(host: str, port: int, *, secured: bool) -> bool:
    """Tell whether the HTTP door answers anything; who it is, is no question when one asks oneself."""
    context = ssl._create_unverified_context()  # noqa: S323, SLF001
    connection = (
        http.client.HTTPSConnection(host, port, timeout=ANSWERS_IN, context=context)
        if secured
        else http.client.HTTPConnection(host, port, timeout=ANSWERS_IN)
    )
    try:
        connection.request("GET", "/livez")
        connection.getresponse().read()
    except ssl.SSLError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True
