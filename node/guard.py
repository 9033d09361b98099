"""What the DICOM door bears: bounds that pynetdicom 3.0 does not set, and its errors caught before they end a thread.

pynetdicom believes every length, waits for ever for the rest of a PDU, dies of a command that it does not know, and
leaves the files of what was cut open. The classes here stand in for four of its own, one association each.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from queue import Empty
from threading import Event, Lock
from typing import TYPE_CHECKING, Final, cast

from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dsutils import create_file_meta
from pynetdicom.fsm import InvalidEventError, StateMachine
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from node.instance_file import InstanceFile
from node.line import IDLE, Line, Waking, has_short_cut
from node.telemetry import logger
from storage.errors import StorageError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pynetdicom.dimse_primitives import DimsePrimitiveType, DimseServiceType

log = logger("guard")

LONGEST_COMMAND = 1 << 16
"""Bytes of a command set; the elements of PS3.7 E fill a few hundred."""

LARGEST_IN_MEMORY = 4 << 20
"""Bytes of a data set that goes to memory: any but that of a C-STORE, which goes to a file. A request for the storage
commitment of 30,000 instances fits in, and pydicom makes 350 MB of nothing but empty items (measured)."""

MOST_WAITING = 64
"""Requests of one association that wait to be served. Without a negotiated window, one is all there may be (PS3.7 D.3.3.3)."""

ROOM_EVERY = 32 << 20
"""Bytes of an instance after which the disk is looked at again."""

UNREADABLE: Final = (0x01, 0x02, 0x01)
"""Result, source and diagnostic of an A-ASSOCIATE-RJ: permanent, by the ACSE provider, no reason given (PS3.8 9.3.4)."""

REQUIRED: Final = ("MessageID", "AffectedSOPClassUID", "AffectedSOPInstanceUID", "Priority")
"""Of a C-STORE request (PS3.7 9.3.1.1)."""


class BrokenProtocol(Exception):
    """The sender broke the rules of DICOM's upper layer or message exchange; the text says which."""


def watch(
    association: Association, told: Callable[[], dict[str, str]], incoming: Path, require_space: Callable[[], None]
) -> None:
    """Guard an association that was just asked for and has read nothing yet.

    Parameters
    ----------
    told
        Returns what log lines say of its sender.
    incoming
        Folder for the files of what is being received.
    require_space
        Raises when the disk is too full to go on with an instance.
    """
    messages = Messages(association, told, incoming, require_space)
    former = association.dul.socket
    if former is not None:
        association.dul.socket = Line(former, told, messages if has_short_cut() else None)
    association.dul.state_machine = Machine(association, told)
    association.acse = Negotiation(association, told)
    association.dimse = messages


class Machine(StateMachine):
    """A state machine whose errors end its association and nothing else."""

    def __init__(self, association: Association, told: Callable[[], dict[str, str]]) -> None:
        super().__init__(association.dul)
        self._told = told

    def do_action(self, event: str) -> None:
        """Do what the event asks for in this state."""
        if event == "Evt19" and not cast("Messages", self.dul.assoc.dimse).gave_up:
            log.warning("association ended: its sender sent what DICOM does not know", **self._told())
        try:
            super().do_action(event)
        except InvalidEventError:
            # Such as our acceptance after the caller has broken the rules already.
            log.info("association ended: its sender did not wait for the answer", **self._told())
            self._end()
        except Exception as error:  # noqa: BLE001 (the thread must close its connection, whatever happened)
            log.warning("association ended: an error in the protocol", **self._told(), error=type(error).__name__)
            self._end()

    def _end(self) -> None:
        association = self.dul.assoc
        if self.dul.socket is not None:
            self.dul.socket.close()
        evt.trigger(association, evt.EVT_CONN_CLOSE, {"address": ("", 0)})
        self.dul.kill_dul()


class Negotiation(ACSE):
    """Negotiates an association; what cannot be negotiated ends it and nothing else."""

    def __init__(self, association: Association, told: Callable[[], dict[str, str]]) -> None:
        super().__init__(association)
        self._told = told

    def negotiate_association(self) -> None:
        """Answer the request."""
        try:
            super().negotiate_association()
        except Exception as error:  # noqa: BLE001 (such as a context without a transfer syntax; the caller must be answered)
            log.warning("association refused: odd contexts", **self._told(), error=type(error).__name__)
            self.send_reject(*UNREADABLE)
            self.assoc.kill()


class Messages(DIMSEServiceProvider):
    """Puts fragments together into messages, as far as they follow the rules; instances go to files that it answers for.

    Attributes
    ----------
    asking
        Held by who asks the peer for something: one operation at a time is what was negotiated (PS3.7 D.3.3.3).
    gave_up
        Whether this node has ended the association because it could not keep what came: no fault of the sender's.
    """

    def __init__(
        self,
        association: Association,
        told: Callable[[], dict[str, str]],
        incoming: Path,
        require_space: Callable[[], None],
    ) -> None:
        super().__init__(association)
        self._told = told
        self._incoming = incoming
        self._require_space = require_space
        self._file: InstanceFile | None = None
        self._files: dict[Path, InstanceFile] = {}
        self._lock = Lock()
        self._contexts: frozenset[int | None] = frozenset()
        self._context = 0
        self._commanded = False
        self._size = 0
        self.asking = Lock()
        self.gave_up = False
        self._sending = Lock()
        self._taken = False
        self._answered = time.monotonic()
        self._news = Event()
        self.msg_queue = Waking(self._news.set)
        self.dul.to_user_queue = Waking(self._news.set)

    def receive_primitive(self, primitive: P_DATA) -> None:
        """Take the fragments of one PDU; end the association when they break the rules."""
        with self._refusing():
            for number, value in primitive.presentation_data_value_list:
                self._check(number, value)
                # One at a time: pynetdicom drops what follows the end of a message within a PDU.
                single = P_DATA()
                single.presentation_data_value_list = [[number, value]]  # type: ignore[list-item]  # tuples it refuses
                super().receive_primitive(single)
                self._after(value)

    @property
    def awaiting(self) -> int:
        """Number of the context on which fragments of an instance's data set are to come; 0 while none are."""
        return self._context if self._file is not None else 0

    def take(self, parts: Sequence[memoryview]) -> bool:
        """Take parts of such fragments; end the association, and return False, when that fails."""
        is_taken = False
        with self._refusing():
            if self._file is None:  # cleared away
                raise BrokenProtocol("data after the end")
            self._grow(sum(map(len, parts)))
            self._file.take(parts)
            is_taken = True
        return is_taken  # noqa: RET504 (the context above swallows what is raised)

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """End the association when what has come cannot be taken."""
        try:
            yield
        except (OSError, StorageError) as error:
            log.error("instance not received", **self._told(), error=str(error))  # noqa: TRY400 (the cause says it)
            self.gave_up = True
            self.dul.event_queue.put("Evt19")
        except Exception as error:  # noqa: BLE001 (odd bytes make pydicom raise what it likes)
            reason = str(error) if isinstance(error, BrokenProtocol) else f"an odd command ({type(error).__name__})"
            log.warning("message refused", **self._told(), reason=reason)
            self.dul.event_queue.put("Evt19")

    @property
    def silence(self) -> float:
        """Seconds since the last answer to the peer; 0 while it asks, or waits for an answer."""
        is_busy = self.message is not None or self.msg_queue.unfinished_tasks
        return 0.0 if is_busy else time.monotonic() - self._answered

    def get_msg(self, block: bool = False) -> tuple[int, "DimseServiceType"] | tuple[None, None]:  # noqa: FBT001, FBT002 (pynetdicom's)
        """Return the next message; when waiting, the answer to a request of ours.

        What the peer asks at the same moment crosses it on the line. pynetdicom takes it for an answer, and aborts; here it
        is served meanwhile, by the thread that waits, as a peer may not answer us before we have answered it.
        """
        if not block and self._taken:  # has been served when the next is asked for
            self._taken = False
            self._note_answer()
        if not block and self.msg_queue.empty():  # pynetdicom would ask again a millisecond later
            self._news.wait(IDLE)
            self._news.clear()
        while True:
            number, message = super().get_msg(block)
            if number is None or message is None:
                return None, None
            if not block:
                self._taken = True
                return number, message
            if message.is_valid_request:
                self.assoc._serve_request(message, number)  # noqa: SLF001 (as pynetdicom's loop would, which rests now)
            self._note_answer()
            if not message.is_valid_request:
                return number, message

    def send_msg(self, primitive: "DimsePrimitiveType", context_id: int) -> None:
        """Send a message, whose fragments no other message comes between (PS3.8 E.2)."""
        with self._sending:
            super().send_msg(primitive, context_id)

    def _note_answer(self) -> None:
        self._answered = time.monotonic()
        self.msg_queue.task_done()

    def hand_over(self, path: Path) -> str:
        """Leave a file to whoever takes it from here, and return the digest of its data set."""
        with self._lock:
            return self._files.pop(path).digest

    def clear_away(self) -> str | None:
        """Remove the files that nobody takes any more; return the UID of an instance that its sender cut off."""
        message, self.message = self.message, None
        while True:
            try:
                self.msg_queue.get_nowait()
            except Empty:
                break
        self.msg_queue.put((None, None))
        with suppress(OSError):  # a full disk does not take what is still in the buffer, and the file goes anyhow
            self._close()
        with self._lock:
            for path in self._files:
                path.unlink(missing_ok=True)
            self._files.clear()
        if isinstance(message, C_STORE_RQ) and not self.gave_up:
            return str(message.command_set.get("AffectedSOPInstanceUID", ""))
        return None

    def _check(self, number: int, value: bytes) -> None:
        if not value:
            raise BrokenProtocol("a fragment without its control header")
        is_command = bool(value[0] & 1)
        if self.message is None:
            self._begin(number)
        if number != self._context:
            raise BrokenProtocol("fragments of two messages mixed, or of a context that was not accepted")
        if is_command is self._commanded:
            raise BrokenProtocol("data before its command, or a command within the data")
        if isinstance(self.message, C_STORE_RQ) and not is_command:
            self._grow(len(value) - 1)
            return
        self._size += len(value) - 1
        if is_command:
            if self._size > LONGEST_COMMAND:
                raise BrokenProtocol("a command that does not end")
        elif self._size > LARGEST_IN_MEMORY:
            raise BrokenProtocol("a data set too large for such a request")

    def _grow(self, number: int) -> None:
        self._size += number
        if self._size % ROOM_EVERY < number:
            self._require_space()

    def _begin(self, number: int) -> None:
        self._contexts = self._contexts or frozenset(context.context_id for context in self.assoc.accepted_contexts)
        if self.msg_queue.qsize() >= MOST_WAITING:
            raise BrokenProtocol("too many requests at once")
        self._context = number if number in self._contexts else 0
        self._commanded = False
        self._size = 0

    def _after(self, value: bytes) -> None:
        is_command, is_last = bool(value[0] & 1), bool(value[0] & 2)
        if is_last and not is_command:
            self._close()
        if self.message is None or not (is_last and is_command):
            return
        self._commanded, self._size = True, 0
        if isinstance(self.message, C_STORE_RQ):
            self._open(self.message)

    def _open(self, message: C_STORE_RQ) -> None:
        """Let the data set of an instance go to a file.

        pynetdicom does the same when a switch of the whole process is set, in the process's folder for temporary files,
        and closes the file only when the instance is served.
        """
        _check_store(message.command_set)
        [syntax] = [cx.transfer_syntax for cx in self.assoc.accepted_contexts if cx.context_id == self._context]
        head = BytesIO()
        head.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(
            head,  # type: ignore[arg-type]  # any file will do
            create_file_meta(
                sop_class_uid=UID(message.command_set.AffectedSOPClassUID),
                sop_instance_uid=UID(message.command_set.AffectedSOPInstanceUID),
                transfer_syntax=UID(syntax[0]),
            ),
        )
        self._file = file = InstanceFile(self._incoming, head.getvalue())
        path = Path(file.name)
        with self._lock:
            self._files[path] = file
        message._data_set_file, message._data_set_path = file, path  # type: ignore[assignment]  # noqa: SLF001

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


def _check_store(command: "Dataset") -> None:
    if missing := [keyword for keyword in REQUIRED if command.get(keyword) in {None, ""}]:
        raise BrokenProtocol(f"a C-STORE without {', '.join(missing)}")
    if uid_to_service_class(str(command.AffectedSOPClassUID)) is not StorageServiceClass:
        raise BrokenProtocol("a C-STORE of a class that is not stored")
