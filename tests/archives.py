"""An archive that commits to what it holds (Storage Commitment SCP) and can be queried, inside the test process."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import Any

from pydicom import Dataset
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
    StudyRootQueryRetrieveInformationModelFind,
)

from tests.pacs import BOTH_SYNTAXES, OUR_CLASSES

SUCCESSFUL, FAILURES_EXIST = 1, 2


def a_report(transaction_uid: str, committed: Sequence[str] = (), failed: Mapping[str, int] | None = None) -> Dataset:
    """Return the event information of a report."""
    report = Dataset()
    report.TransactionUID = transaction_uid
    for keyword, uids in (("ReferencedSOPSequence", committed), ("FailedSOPSequence", failed or {})):
        items = []
        for uid in uids:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.4", uid
            if failed and uid in failed:
                item.FailureReason = failed[uid]
            items.append(item)
        if items:
            setattr(report, keyword, items)
    return report


@dataclass
class Archive:
    """Takes what it is sent, and remembers what it was asked.

    Attributes
    ----------
    held
        What it has: SOP Instance UID → its data set.
    asked
        Action information of every N-ACTION.
    queries
        Identifiers of every C-FIND.
    action_status
        What an N-ACTION is answered with.
    find_status
        What a C-FIND ends with.
    reports_at_once
        Whether it reports on the association on which it was asked.
    reasons
        SOP Instance UID → Failure Reason that it reports, whatever it has.
    told
        What its reports were answered with.
    """

    port: int = 0
    held: dict[str, Dataset] = field(default_factory=dict)
    asked: list[Dataset] = field(default_factory=list)
    queries: list[Dataset] = field(default_factory=list)
    action_status: int = 0x0000
    find_status: int = 0x0000
    reports_at_once: bool = False
    reasons: dict[str, int] = field(default_factory=dict)
    told: list[int | None] = field(default_factory=list)

    def report_for(self, asked: Dataset) -> Dataset:
        """Return its honest report on a request, the ``reasons`` excepted."""
        uids = [str(item.ReferencedSOPInstanceUID) for item in asked.ReferencedSOPSequence]
        failed = {uid: 0x0112 for uid in uids if uid not in self.held}
        failed |= {uid: reason for uid, reason in self.reasons.items() if uid in uids}
        return a_report(asked.TransactionUID, [uid for uid in uids if uid not in failed], failed)

    def report(self, port: int, report: Dataset, *, calling: str = "PACS", kind: int = 0, instance: str = "") -> int:
        """Report on a new association, as its SCP, and return the status that came back."""
        association = AE(calling).associate(
            "127.0.0.1",
            port,
            contexts=[build_context(StorageCommitmentPushModel)],
            ae_title="MAMMONODE",
            ext_neg=[build_role(StorageCommitmentPushModel, scp_role=True)],
        )
        assert association.is_established
        [context] = association.accepted_contexts
        assert context.as_scp
        answer, _ = association.send_n_event_report(
            report,
            kind or (FAILURES_EXIST if "FailedSOPSequence" in report else SUCCESSFUL),
            StorageCommitmentPushModel,
            instance or StorageCommitmentPushModelInstance,
        )
        association.release()
        return int(answer.Status)

    def store(self, event: evt.Event) -> int:
        """Take an instance."""
        self.held[str(event.dataset.SOPInstanceUID)] = event.dataset
        return 0x0000

    def act(self, event: evt.Event) -> tuple[int, None]:
        """Take a request for commitment."""
        self.asked.append(event.action_information)
        if self.reports_at_once and self.action_status == 0x0000:
            Thread(target=self._report_there, args=(event.assoc, self.asked[-1]), daemon=True).start()
        return self.action_status, None

    def _report_there(self, association: Association, asked: Dataset) -> None:
        report = self.report_for(asked)
        kind = FAILURES_EXIST if "FailedSOPSequence" in report else SUCCESSFUL
        with suppress(RuntimeError):
            answer, _ = association.send_n_event_report(
                report, kind, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
            )
            self.told.append(answer.get("Status"))

    def find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        """Answer a query."""
        query = event.identifier
        self.queries.append(query)
        for dataset in self.held.values():
            same = (dataset.StudyInstanceUID, dataset.SeriesInstanceUID) == (
                query.StudyInstanceUID,
                query.SeriesInstanceUID,
            )
            if same and query.SOPInstanceUID in {"", None, dataset.SOPInstanceUID}:
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.SOPInstanceUID = dataset.SOPInstanceUID
                yield 0xFF00, match
        if self.find_status:
            yield self.find_status, None


@contextmanager
def an_archive(*, commits: bool = True, finds: bool = True, port: int = 0) -> Iterator[Archive]:
    """Run an archive on a port, a free one by default."""
    archive = Archive()
    entity = AE("PACS")
    for sop_class in OUR_CLASSES:
        entity.add_supported_context(sop_class, list(BOTH_SYNTAXES))
    if commits:
        entity.add_supported_context(StorageCommitmentPushModel)
    if finds:
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelFind)
    handlers: list[Any] = [
        (evt.EVT_C_STORE, archive.store),
        (evt.EVT_N_ACTION, archive.act),
        (evt.EVT_C_FIND, archive.find),
    ]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server
    archive.port = server.server_address[1]
    try:
        yield archive
    finally:
        server.shutdown()
        for association in server.active_associations:
            association.abort()
