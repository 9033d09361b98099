"""A PACS inside the test process that behaves as told, and results that wait to be sent to it."""

import itertools
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Event

from pydicom.uid import (
    UID,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    SegmentationStorage,
)
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from sqlalchemy import Engine

from config.mix import ObjectMix
from config.policy import RetryPolicy
from node.reply import Replies, Reply
from node.results.encode import ResultObject, to_bytes
from storage.files import FolderStore, InstanceStore
from storage.jobs import JobQueue
from storage.results import ResultRecord
from tests.answers import DEFAULT_MIX, INSTALLATION, an_answer, encoded
from tests.peers import eventually
from tests.records import LEASE, NOON, POLICY, a_closed_exam

Behaviour = Callable[[evt.Event], int]
OUR_CLASSES = (SegmentationStorage, Comprehensive3DSRStorage, ComprehensiveSRStorage)
BOTH_SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


class StandInPACS:
    """Answers C-STORE as its behaviour says; remembers what it was sent, and in which encoding.

    Attributes
    ----------
    received
        SOP Instance UIDs in order of arrival.
    syntaxes
        Transfer syntax of each.
    proposed
        SOP classes that each association proposed, Verification excepted.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.received: list[str] = []
        self.syntaxes: list[UID] = []
        self.proposed: list[list[tuple[str, tuple[str, ...]]]] = []

    def store(self, event: evt.Event) -> int:
        """Receive an instance."""
        dataset = event.dataset
        self.received.append(str(dataset.SOPInstanceUID))
        self.syntaxes.append(UID(event.context.transfer_syntax))
        return self.behaviour(event)

    def accepted(self, event: evt.Event) -> None:
        """Remember what was proposed."""
        request = event.assoc.requestor.primitive
        assert request
        self.proposed.append(
            [
                (str(context.abstract_syntax), tuple(map(str, context.transfer_syntax)))
                for context in request.presentation_context_definition_list or ()
            ]
        )


@contextmanager
def a_pacs(
    behaviour: Behaviour = lambda _: 0x0000,
    *,
    port: int = 0,
    classes: Sequence[UID] = OUR_CLASSES,
    syntaxes: Sequence[UID] = BOTH_SYNTAXES,
    callers: Sequence[str] = (),
) -> Iterator[tuple[StandInPACS, int]]:
    """Run a PACS on a port, a free one by default, and yield it with its port."""
    pacs = StandInPACS(behaviour)
    entity = AE("PACS")
    entity.require_calling_aet = list(callers)
    for sop_class in classes:
        entity.add_supported_context(sop_class, list(syntaxes))
    entity.add_supported_context(Verification)
    server = entity.start_server(
        ("127.0.0.1", port),
        block=False,
        evt_handlers=[(evt.EVT_C_STORE, pacs.store), (evt.EVT_ACCEPTED, pacs.accepted)],
    )
    assert server
    try:
        yield pacs, server.server_address[1]
    finally:
        server.shutdown()
        for association in server.active_associations:
            # A connection that has asked for nothing yet cannot be aborted; whoever opened it has gone, or goes.
            eventually(partial(_has_asked_or_gone, association), seconds=5)
            if association.is_established:
                association.abort()


def answers(*statuses: int) -> Behaviour:
    """Answer one status after the other, the last one for ever."""
    left = list(statuses)
    return lambda _: left.pop(0) if len(left) > 1 else left[0]


def aborts(event: evt.Event) -> int:
    """Abort the association in the middle."""
    event.assoc.abort()
    return 0x0000


def hangs_until(released: Event) -> Behaviour:
    """Answer only when released."""

    def wait(_: evt.Event) -> int:
        released.wait(30)
        return 0x0000

    return wait


PORTS = range(20_000, 32_768)
"""Below those that Linux gives to whoever asks for any (ip_local_port_range), which another's connection may have next."""
WORKERS = 8


@cache
def _ports() -> Iterator[int]:
    """Return this process's share of the ports, each once, from any of them on."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS
    share = PORTS[worker::WORKERS]
    first = secrets.randbelow(len(share))
    return itertools.cycle([*share[first:], *share[:first]])


def a_free_port() -> int:
    """Return a port that nobody listens on, and that no other test is given meanwhile."""
    return next(filter(_is_free, _ports()))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@cache
def phantom_objects(mix: ObjectMix = DEFAULT_MIX) -> tuple[tuple[ResultObject, bytes], ...]:
    """Return the objects that answer a phantom exam, and their files."""
    return tuple((made, to_bytes(made.dataset)) for made in encoded(an_answer(), mix))


@cache
def _phantom_reply(mix: ObjectMix) -> Reply:
    """Return the reply of a phantom exam; the first one to an exam looks at no store."""
    replies = Replies(FolderStore(Path()), INSTALLATION, "settings")
    return replies.reply(an_answer(), [mix], former=None, again=(), pictures={})


def waiting_results(
    store: InstanceStore,
    engine: Engine,
    destinations: Sequence[str],
    *,
    policy: RetryPolicy = POLICY,
    mix: ObjectMix = DEFAULT_MIX,
) -> list[ResultRecord]:
    """Let a phantom's answer wait in the outbox for destinations; return what waits. The other forms lie ready."""
    queue = JobQueue(engine, policy, LEASE)
    a_closed_exam(engine)
    job = queue.claim("worker", NOON)
    assert job
    records = Replies(store, INSTALLATION, "settings").keep(_phantom_reply(mix))
    waiting = [record for record in records if record.uid in {made.instance_uid for made, _ in phantom_objects(mix)}]
    queue.finish(
        job,
        "worker",
        answer="findings",
        results=records,
        destinations={record.uid: list(destinations) for record in waiting},
        timings={"decode": 0.1, "read": 2.0, "total": 2.2},
        now=NOON,
        suspicion=61,
    )
    return waiting


def a_store(folder: Path) -> InstanceStore:
    """Return an empty store."""
    store = FolderStore(folder / "store")
    store.prepare()
    return store


def _has_asked_or_gone(association: Association) -> bool:
    return association.is_established or not association.is_alive()
