"""An answer becomes what is kept of it and what each destination gets; a later one names what it supersedes (R1, R2)."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from config.mix import ObjectMix, ResultKind
from config.settings import Destination
from node.entries import entry_of
from node.results.answer import Answer, AnswerStatus, Predecessor
from node.results.changes import changes
from node.results.edition import REPORTS, Edition, Pictures
from node.results.encode import ResultObject, encode, to_bytes
from node.results.facts import FACTS, facts, kept_facts
from node.results.uids import ObjectUIDs
from storage.files import InstanceReference, InstanceStore
from storage.results import ResultRecord


@dataclass(frozen=True)
class Issue:
    """Results that were handed over before, oldest first.

    Attributes
    ----------
    revision
        Of the exam that they answered.
    records
        What was issued.
    moved
        What was issued for exams that this one stands in for since an identity was corrected (rule R6), by exam.
    """

    revision: int
    records: tuple[ResultRecord, ...]
    moved: Mapping[str, tuple[ResultRecord, ...]] = field(default_factory=dict)

    def objects(self, *, reports: bool) -> tuple[Predecessor, ...]:
        """Return the reports, or the objects that stand in series of their own; the preferred form before the other."""
        moved = [record for records in self.moved.values() for record in records]
        # Under a wrong identity nothing may stay: a rejection note names the reports too.
        wrong = {record.uid for record in moved}
        records = (*moved, *self.records)
        others = {record.fallback_uid for record in records}
        return tuple(
            Predecessor(record.study_uid, record.series_uid, record.sop_class_uid, record.uid)
            for record in sorted(records, key=lambda record: record.uid in others)
            if record.kind not in (FACTS, ResultKind.REJECTION)
            and ((record.kind in REPORTS) is reports or (not reports and record.uid in wrong))
        )


@dataclass(frozen=True)
class Reply:
    """An answer with the names of its facts, the objects of each object mix, and what the facts alone tell: distances."""

    answer: Answer
    uids: ObjectUIDs
    objects: Mapping[ObjectMix, tuple[ResultObject, ...]]
    distances: Mapping[str, float] = field(default_factory=dict)

    def addressed(self, destinations: Iterable[Destination]) -> dict[str, list[str]]:
        """Return SOP Instance UID → names of the destinations that get it; of two forms the one that is preferred."""
        names: dict[str, list[str]] = {}
        for destination in destinations:
            if destination.mix.negatives or not self._is_plain_negative(destination.mix):
                for each in self.objects[destination.mix]:
                    names.setdefault(each.instance_uid, []).append(destination.name)
        return names

    def _is_plain_negative(self, mix: ObjectMix) -> bool:
        """Tell whether the answer says nothing but "no findings": it hides none and follows no other."""
        shown = self.answer.shown_above(mix.threshold)
        return shown.status is AnswerStatus.NO_FINDINGS and not shown.hidden and not shown.predecessors


def with_distances(told: dict[str, Any], distances: Mapping[str, float]) -> dict[str, Any]:
    """Return facts with the distance from the gate's reference beside the warnings of each image that was measured."""
    for image in told["images"]:
        if image["uid"] in distances:
            image["reference_distance"] = round(distances[image["uid"]], 1)
    return told


class Replies:
    """Makes replies and keeps them in the store.

    Parameters
    ----------
    store
        Where results lie.
    installation
        Random identifier of this installation (rule R1).
    settings_digest
        Digest of every setting that changes the objects' content, the mixes apart (rule R1).
    """

    def __init__(self, store: InstanceStore, installation: str, settings_digest: str) -> None:
        self._store = store
        self._installation = installation
        self._settings_digest = settings_digest

    def reply(
        self,
        answer: Answer,
        mixes: Sequence[ObjectMix],
        *,
        former: Issue | None,
        again: Sequence[Issue],
        pictures: Pictures,
        distances: Mapping[str, float] = MappingProxyType({}),
    ) -> Reply:
        """Give the answer as it was issued last for this revision (rule R1), or as successor of what was issued (R2).

        What was issued before the last is superseded: an answer that says it once more is a successor of the last.

        Parameters
        ----------
        answer
            What the exam is told.
        mixes
            What its destinations get.
        former
            What was issued for the last revision that was answered; None for the first.
        again
            What earlier runs of jobs have issued for this revision, oldest first.
        pictures
            The images that could be decoded, where a mix shows them.
        distances
            SOP Instance UID → how far an image is from the gate's reference; no object tells it.
        """
        known = {record.uid for issue in again[-1:] for record in issue.records}
        for issue in (former, *again):
            whole = self._succeeding(answer, issue, 0)
            uids = ObjectUIDs.of(whole, self._installation, self._settings_digest, "")
            if uids.instance(FACTS) in known:
                break
        objects = {
            mix: encode(
                Edition.of(
                    self._succeeding(answer, issue, mix.threshold),
                    mix,
                    installation=self._installation,
                    settings_digest=self._settings_digest,
                    pictures=pictures,
                )
            )
            for mix in mixes
        }
        return Reply(whole, uids, objects, distances)

    def keep(self, reply: Reply) -> list[ResultRecord]:
        """Put everything on the disk for good, the facts first, and return the records."""
        made = [each for objects in reply.objects.values() for each in objects]
        forms = [form for each in made for form in (each.fallback, each) if form is not None]
        # Whoever looks here sees one form of each object: the preferred one.
        shown = {each.instance_uid for each in made}
        return [
            self._keep_facts(reply),
            *(self._keep_object(form, shown=form.instance_uid in shown) for form in forms),
        ]

    def _succeeding(self, answer: Answer, issue: Issue | None, threshold: int) -> Answer:
        """Return the answer as successor of what was issued, for those who see findings from a threshold on."""
        if issue is None:
            return answer
        told = changes(self._facts_of(issue), answer, issue.revision, threshold) if issue.records else ()
        anew = tuple(
            f"Issued anew under the corrected identity: stands in for the answer of exam {exam}."
            for exam in issue.moved
        )
        return replace(
            answer,
            predecessors=issue.objects(reports=True),
            superseded=issue.objects(reports=False),
            changes=(*told, *anew),
        )

    def _facts_of(self, issue: Issue) -> Mapping[str, Any] | None:
        """Return the facts that were kept of an answer; those of the first release are not."""
        kept = [record.path for record in issue.records if record.kind == FACTS]
        return kept_facts(self._store, kept[-1]) if kept else None

    def _keep_facts(self, reply: Reply) -> ResultRecord:
        uids = reply.uids
        data = json.dumps(with_distances(facts(reply.answer, uids), reply.distances)).encode()
        reference = InstanceReference(uids.study, uids.series(FACTS), uids.instance(FACTS))
        return ResultRecord(
            uid=reference.instance_uid,
            kind=FACTS,
            sop_class_uid="",
            series_uid=reference.series_uid,
            study_uid=reference.study_uid,
            image_uid=None,
            path=self._store.write_result(reference, data, "json"),
            size=len(data),
        )

    def _keep_object(self, made: ResultObject, *, shown: bool) -> ResultRecord:
        data = to_bytes(made.dataset)
        reference = InstanceReference(made.study_uid, made.series_uid, made.instance_uid)
        return ResultRecord(
            uid=made.instance_uid,
            kind=made.kind,
            sop_class_uid=made.sop_class_uid,
            series_uid=made.series_uid,
            study_uid=made.study_uid,
            image_uid=made.image_uid,
            path=self._store.write_result(reference, data),
            size=len(data),
            fallback_uid=made.fallback.instance_uid if made.fallback else None,
            entry=entry_of(made.dataset) if shown else None,
        )
