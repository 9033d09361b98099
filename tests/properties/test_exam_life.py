"""An exam's whole life against a model of it, on both databases: the rules of docs/exam-life.md in any order."""

import hashlib
import tempfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from sqlalchemy import Engine, select, true

from config.mix import ResultKind
from config.settings import Settings, Storage
from node.clock import ExamClock
from node.corrections import Corrections
from node.intake import Intake, Outcome
from node.judging import Rules
from node.parts import Parts
from node.rereading import read_again
from node.views import ImageKind
from node.withdrawals import Rejection
from storage.conflicts import list_conflicts
from storage.database import reading, writing
from storage.deliveries import Delivery
from storage.errors import CannotRetry, LeaseLost
from storage.exams import ExamRecord, images_of, list_exams
from storage.files import FolderStore
from storage.jobs import Job, JobQueue
from storage.outbox import Outbox
from storage.states import DeliveryState, ExamState, JobState, Plan
from storage.tables import conflicts, instances
from storage.waiving import Wanted, waive
from tests.builders import key_objects, quick_header
from tests.chain import QUIET
from tests.databases import wipe
from tests.doors import ROOM_ENOUGH, Clock, Room
from tests.records import LEASE, MODEL, POLICY, a_result, resent

Key = tuple[str, str]
"""Patient ID and Study UID: an exam (rule R5)."""

VIEWS = (("R", "CC"), ("L", "CC"), ("R", "MLO"), ("L", "MLO"), ("L", "ML"))
NOTE = "1.7."
"""How the UIDs of rejection notes begin."""
ENDED = {ExamState.ANSWERED, ExamState.FAILED}


@dataclass(frozen=True)
class Copy:
    """One copy of an image as a modality sends it; two copies with one UID differ in the rest."""

    study: int
    view: int
    number: int = 1
    patient: str = ""
    name: str = "Doe^Anne"
    kvp: int = 30

    @property
    def uid(self) -> str:
        return f"1.{self.study}.{self.view + 1}.{self.number}"

    @property
    def key(self) -> Key:
        return self.patient or f"P{self.study}", f"1.{self.study}"

    @property
    def identity(self) -> tuple[str, ...]:
        return (*self.key, self.name)

    @property
    def usable(self) -> bool:
        return self.view < 4

    def image(self) -> Dataset:
        side, position = VIEWS[self.view]
        header = quick_header(
            SOPInstanceUID=self.uid,
            StudyInstanceUID=self.key[1],
            SeriesInstanceUID=f"{self.key[1]}.9",
            PatientID=self.key[0],
            PatientName=self.name,
            ImageLaterality=side,
            ViewPosition=position,
            KVP=str(self.kvp),
            Rows=4,
            Columns=4,
            BitsAllocated=16,
            BitsStored=12,
            HighBit=11,
            PixelRepresentation=0,
            PhotometricInterpretation="MONOCHROME2",
        )
        header.PixelData = bytes(32)
        return header


@cache
def digest_of(copy: Copy) -> str:
    """Return the digest of the data set, without the File Meta Information, as it goes over the network."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, copy.image())
    return f"xxh128:{xxhash.xxh3_128_hexdigest(buffer.getvalue())}"


# Few images, so that much happens to each.
COPIES = st.builds(Copy, st.integers(1, 2), st.sampled_from([0, 0, 1, 4]), st.sampled_from([1, 1, 2]))
CORRECTIONS: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{"name": "Doe^Ann"}, {"patient": "P9"}])


@dataclass
class Model:
    """What the node should know."""

    in_force: dict[str, Copy] = field(default_factory=dict)
    aside: dict[str, list[Copy]] = field(default_factory=dict)
    undecided: dict[int, tuple[Copy, bool]] = field(default_factory=dict)
    moved: set[Key] = field(default_factory=set)
    withdrawn: set[str] = field(default_factory=set)
    notes: int = 0
    revisions: dict[str, int] = field(default_factory=dict)
    issued: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of_exam(self, key: Key) -> list[Copy]:
        return [copy for copy in self.in_force.values() if copy.key == key]

    def held(self, key: Key) -> bool:
        return any(whose and self.in_force[copy.uid].key == key for copy, whose in self.undecided.values())


class ExamLife(RuleBasedStateMachine):
    """Images arrive, again, late or changed; time passes; workers finish, fail or die; an operator decides."""

    claims: Bundle[tuple[Job, str]] = Bundle("claims")

    def __init__(self, engine: Engine) -> None:
        super().__init__()
        wipe(engine)
        self.engine = engine
        self.folder = tempfile.TemporaryDirectory()
        store = FolderStore(Path(self.folder.name))
        store.prepare()
        self.clock = Clock()
        self.room = Room(store, engine, Intake(store, engine, ROOM_ENOUGH, clock=self.clock))
        self.corrections = Corrections(engine, store, frozenset({ImageKind.FOR_PRESENTATION}), self.clock)
        self.exam_clock = ExamClock(engine, QUIET, MODEL, self.clock)
        self.queue = JobQueue(engine, POLICY, LEASE)
        self.outbox = Outbox(engine, POLICY)
        settings = Settings(storage=Storage(folder=Path(self.folder.name)))
        self.parts = Parts(settings, engine, store, self.queue, self.outbox)
        self.model = Model()

    @rule(copy=COPIES)
    def an_image_arrives_perhaps_again(self, copy: Copy) -> None:
        self.receive(copy)

    @precondition(lambda self: self.model.in_force)
    @rule(data=st.data(), kvp=st.integers(31, 32))
    def another_image_comes_under_a_known_uid(self, data: st.DataObject, kvp: int) -> None:
        self.receive(replace(self.known(data), kvp=kvp))

    @precondition(lambda self: self.model.in_force)
    @rule(data=st.data(), correction=CORRECTIONS)
    def an_image_comes_again_with_another_identity(self, data: st.DataObject, correction: dict[str, Any]) -> None:
        self.receive(replace(self.known(data), **correction))

    @precondition(lambda self: self.model.in_force)
    @rule()
    def all_is_answered_in_peace(self) -> None:
        self.clock.forward(QUIET.hard_cap)
        self.exam_clock.tick()
        while job := self.queue.claim("carl", self.clock()):
            self.finish(job, "carl")

    @rule(copy=COPIES, rejection=st.sampled_from(Rejection))
    def an_image_is_withdrawn_perhaps_before_it_comes(self, copy: Copy, rejection: Rejection) -> None:
        before = self.exams()
        self.model.notes += 1
        note = key_objects([copy.image()], rejection.code, uid=f"{NOTE}{self.model.notes}")
        assert self.room.receive(note).outcome is Outcome.STORED
        exams = self.exams()
        known = self.model.in_force.get(copy.uid)
        if known and copy.uid not in self.model.withdrawn:
            was, now = self.by_key(before)[known.key], self.by_key(exams)[known.key]
            assert now.state is ExamState.COLLECTING
            assert now.revision == was.revision + (was.state is not ExamState.COLLECTING)
            if rejection.recalls:
                self.nothing_waits(now)
            before[now.uid] = now
        assert exams == before
        self.model.withdrawn.add(copy.uid)

    @precondition(lambda self: self.model.undecided)
    @rule(data=st.data())
    def an_operator_accepts_a_later_copy(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.undecided)))
        copy, whose = self.model.undecided.pop(number)
        former, before = self.model.in_force[copy.uid], self.by_key(self.exams())
        [joined, *_] = self.corrections.accept(number)
        self.model.in_force[copy.uid] = copy
        self.model.aside[copy.uid].remove(copy)
        self.model.aside[copy.uid].append(former)
        self.model.moved.discard(copy.key)
        exams = self.by_key(self.exams())
        assert exams[copy.key] == joined
        assert joined.state is ExamState.COLLECTING
        left = exams[former.key]
        if not self.model.of_exam(former.key):
            self.model.moved.add(former.key)
            assert (left.state, left.revision) == (ExamState.MOVED, before[former.key].revision)
        elif former.key != copy.key:
            assert left.state is ExamState.COLLECTING
        if whose:
            self.nothing_waits(left)

    @precondition(lambda self: self.model.undecided)
    @rule(data=st.data())
    def an_operator_rejects_a_later_copy(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.model.undecided)))
        before = self.exams()
        del self.model.undecided[number]
        self.corrections.reject(number)
        assert {uid: replace(exam, held=False) for uid, exam in self.exams().items()} == {
            uid: replace(exam, held=False) for uid, exam in before.items()
        }

    @rule(seconds=st.sampled_from([1, 11, 31, 301, 7201, 90000]))
    def time_passes(self, seconds: int) -> None:
        self.clock.forward(timedelta(seconds=seconds))
        self.exam_clock.tick()

    @rule(target=claims, owner=st.sampled_from(["ann", "ben"]))
    def a_worker_claims(self, owner: str) -> Any:
        job = self.queue.claim(owner, self.clock())
        return (job, owner) if job else multiple()

    @rule(claim=consumes(claims))
    def a_worker_dies(self, claim: tuple[Job, str]) -> None:
        """It is never heard of again."""

    @rule(claim=consumes(claims))
    def a_worker_finishes(self, claim: tuple[Job, str]) -> None:
        self.finish(*claim)

    @rule(claim=consumes(claims))
    def a_worker_fails(self, claim: tuple[Job, str]) -> None:
        job, owner = claim
        try:
            self.queue.fail(job, owner, "broken", self.clock())
        except LeaseLost:
            assert not self.holds(claim)

    @rule(data=st.data())
    def an_operator_has_an_exam_read_again(self, data: st.DataObject) -> None:
        jobs = self.queue.list_jobs(999)
        if jobs:
            job = data.draw(st.sampled_from(jobs))
            try:
                self.queue.retry(job.id, self.clock())
            except CannotRetry:
                present = {e.id: e.revision for e in self.exams().values() if e.state is not ExamState.MOVED}
                idle = job.state not in {JobState.RUNNING, JobState.SUPERSEDED}
                assert not (idle and present.get(job.exam_id) == job.revision)

    @rule(data=st.data(), one_breast_suffices=st.booleans())
    def an_operator_has_an_exam_judged_anew(self, data: st.DataObject, *, one_breast_suffices: bool) -> None:
        exams = list(self.exams().values())
        if exams:
            exam = data.draw(st.sampled_from(exams))
            jobs = [job for job in self.queue.list_jobs(99, exam_id=exam.id) if job.revision == exam.revision]
            try:
                again = read_again(
                    self.parts, Rules(one_breast_suffices=one_breast_suffices), MODEL, exam, self.clock()
                )
            except CannotRetry:
                left = {ExamState.COLLECTING, ExamState.MOVED}
                assert exam.state in left or any(job.state is JobState.RUNNING for job in jobs)
            else:
                now = self.exams()[exam.uid]
                assert (now.state, now.revision) == (ExamState.QUEUED, exam.revision + again.anew)
                assert self.queue.list_jobs(1, exam_id=exam.id)[0].id == again.job

    @rule()
    def a_lane_sends_what_is_due(self) -> None:
        for delivery in self.due():
            self.outbox.sent(delivery, 0, self.clock())

    @rule(again=st.booleans())
    def a_destination_refuses_what_is_due_or_is_away(self, *, again: bool) -> None:
        for delivery in self.due():
            if again:
                self.outbox.again(delivery, "no connection", None, self.clock())
            else:
                self.outbox.refused(delivery, "no", 0x0122, self.clock())

    @rule(gone=st.booleans())
    def an_operator_waives_what_will_not_be_taken(self, *, gone: bool) -> None:
        for exam in self.exams().values():
            before = {delivery.id: delivery.state for delivery in self.outbox.of_exam(exam.id)}
            with writing(self.engine) as connection:
                wanted = Wanted(frozenset() if gone else frozenset({"pacs"}))
                waived = waive(connection, exam.id, wanted, "waived by eve", self.clock())
            after = {delivery.id: delivery.state for delivery in self.outbox.of_exam(exam.id)}
            lost = {DeliveryState.REFUSED, DeliveryState.EXPIRED, *([DeliveryState.WAITING] if gone else [])}
            assert {each.id for each in waived} == {number for number, state in before.items() if state in lost}
            assert after == before | {each.id: DeliveryState.WAIVED for each in waived}

    @rule()
    def an_operator_sends_again(self) -> None:
        for exam in self.exams().values():
            before = {delivery.id: delivery.state for delivery in self.outbox.of_exam(exam.id)}
            resent(self.engine, exam.id, self.clock(), {"pacs": ResultKind})
            for delivery in self.outbox.of_exam(exam.id):
                was = before[delivery.id]
                assert delivery.state is (was if was is DeliveryState.RECALLED else DeliveryState.WAITING)

    @invariant()
    def nothing_that_was_acknowledged_is_lost(self) -> None:
        with reading(self.engine) as connection:
            in_force, aside = (
                [tuple(row) for row in connection.execute(select(*columns).where(which))]
                for columns, which in (
                    ((instances.c.uid, instances.c.digest, instances.c.path), instances.c.opens_exam),
                    ((conflicts.c.instance_uid, conflicts.c.digest, conflicts.c.path), true()),
                )
            )
        told = [copy for copies in self.model.aside.values() for copy in copies]
        assert sorted(row[:2] for row in in_force) == sorted(
            (copy.uid, digest_of(copy)) for copy in self.model.in_force.values()
        )
        assert sorted(row[:2] for row in aside) == sorted((copy.uid, digest_of(copy)) for copy in told)
        paths = [path for *_, path in (*in_force, *aside)]
        assert len(set(paths)) == len(paths)
        assert all(self.room.store.resolve(path).is_file() for path in paths)

    @invariant()
    def revisions_only_grow(self) -> None:
        for uid, exam in self.exams().items():
            assert exam.revision >= self.model.revisions.get(uid, 1)
            self.model.revisions[uid] = exam.revision

    @invariant()
    def deliveries_of_a_held_exam_stand_still(self) -> None:
        held = {exam.uid for exam in self.exams().values() if exam.held}
        assert held == {exam.uid for key, exam in self.by_key(self.exams()).items() if self.model.held(key)}
        assert not held & {delivery.exam_uid for delivery in self.due()}

    @invariant()
    def what_is_issued_goes_out_once(self) -> None:
        waiting = [delivery.result_uid for exam in self.exams().values() for delivery in self.outbox.of_exam(exam.id)]
        assert sorted(waiting) == sorted(self.model.issued)

    def teardown(self) -> None:
        """Leave the node alone with one worker that is well: every exam ends answered, on the images in force."""
        try:
            self.settle()
        finally:
            self.folder.cleanup()

    def settle(self) -> None:
        for _ in range(3):
            self.clock.forward(QUIET.hard_cap + LEASE + POLICY.slow)
            self.exam_clock.tick()
            while job := self.queue.claim("last", self.clock()):
                self.finish(job, "last")
        exams = self.by_key(self.exams())
        assert set(exams) == {copy.key for copy in self.model.in_force.values()} | self.model.moved
        for key, exam in exams.items():
            if key in self.model.moved:
                assert exam.state is ExamState.MOVED
                self.nothing_waits(exam)
            else:
                self.is_answered(key, exam)

    def is_answered(self, key: Key, exam: ExamRecord) -> None:
        assert exam.state in ENDED
        [job] = [job for job in self.queue.list_jobs(99, exam_id=exam.id) if job.revision == exam.revision]
        assert job.state in {JobState.DONE, JobState.DEAD}
        with reading(self.engine) as connection:
            images = images_of(connection, exam.id, exam.revision)
        copies = self.model.of_exam(key)
        # Notes belong to the study too, and to none of its views.
        assert {image.instance_uid for image in images if not image.instance_uid.startswith(NOTE)} == {
            copy.uid for copy in copies
        }
        assert {image.view for image in images if image.chosen} == {
            " ".join(VIEWS[copy.view]) for copy in copies if self.can_be_read(copy)
        }
        assert (job.plan is Plan.READ) == any(self.can_be_read(copy) for copy in copies)
        if job.answer is not None:
            sent = [d for d in self.outbox.of_exam(exam.id) if d.revision == exam.revision]
            assert [d.result_uid for d in sent] == [self.result_of(job)]

    def known(self, data: st.DataObject) -> Copy:
        return self.model.in_force[data.draw(st.sampled_from(sorted(self.model.in_force)))]

    def can_be_read(self, copy: Copy) -> bool:
        return copy.usable and copy.uid not in self.model.withdrawn

    def nothing_waits(self, exam: ExamRecord) -> None:
        """Nothing of an exam is read or sent until it is closed anew."""
        assert not [d for d in self.outbox.of_exam(exam.id) if d.state is DeliveryState.WAITING]
        unfinished = {JobState.QUEUED, JobState.RUNNING}
        assert not [job for job in self.queue.list_jobs(99, exam_id=exam.id) if job.state in unfinished]

    def receive(self, copy: Copy) -> None:
        """Let a copy come: a new UID opens or revises its exam, and nothing else does."""
        before = self.exams()
        known = copy.uid in self.model.in_force
        expected = self.again(copy) if known else Outcome.STORED
        assert self.room.receive(copy.image()).outcome is expected
        after = self.exams()
        if not known:
            self.model.in_force[copy.uid] = copy
            self.model.moved.discard(copy.key)
            was, now = self.by_key(before).get(copy.key), self.by_key(after)[copy.key]
            assert now.state is ExamState.COLLECTING
            assert now.revision == (1 if was is None else was.revision + (was.state is not ExamState.COLLECTING))
            return
        assert [(exam.uid, exam.revision) for exam in after.values()] == [
            (exam.uid, exam.revision) for exam in before.values()
        ]
        if expected is Outcome.CONFLICT:
            self.model.aside.setdefault(copy.uid, []).append(copy)
            with reading(self.engine) as connection:
                number = max(conflict.id for conflict in list_conflicts(connection))
            self.model.undecided[number] = copy, copy.identity != self.model.in_force[copy.uid].identity

    def again(self, copy: Copy) -> Outcome:
        kept = (self.model.in_force[copy.uid], *self.model.aside.get(copy.uid, ()))
        return Outcome.KNOWN if copy in kept else Outcome.CONFLICT

    def finish(self, job: Job, owner: str) -> None:
        held = self.holds((job, owner))
        result = a_result(self.result_of(job))
        try:
            self.queue.finish(
                job,
                owner,
                answer="failed" if job.exhausted else "findings",
                results=[result],
                destinations={result.uid: ["pacs"]},
                timings={},
                now=self.clock(),
                error="broken" if job.exhausted else None,
            )
        except LeaseLost:
            assert not held
            return
        assert held
        self.model.issued[result.uid] = (job.exam_uid, job.revision)

    def result_of(self, job: Job) -> str:
        """Return the one result of a job: the same for the same reading (rule R1)."""
        with reading(self.engine) as connection:
            images = images_of(connection, job.exam_id, job.revision)
        name = repr((job.exam_uid, job.revision, images))
        return f"2.25.{int(hashlib.sha256(name.encode()).hexdigest()[:30], 16)}"

    def holds(self, claim: tuple[Job, str]) -> bool:
        job, owner = claim
        [present] = [each for each in self.queue.list_jobs(999) if each.id == job.id]
        mine = (present.lease_owner, present.attempts) == (owner, job.attempts)
        return present.state is JobState.RUNNING and mine

    def exams(self) -> dict[str, ExamRecord]:
        with reading(self.engine) as connection:
            return {exam.uid: exam for exam in list_exams(connection, 99)}

    @staticmethod
    def by_key(exams: dict[str, ExamRecord]) -> dict[Key, ExamRecord]:
        return {(exam.patient.patient_id, exam.study_uid): exam for exam in exams.values()}

    def due(self) -> list[Delivery]:
        found = self.outbox.due("pacs", self.clock(), 999)
        assert all(delivery.state is DeliveryState.WAITING for delivery in found)
        return found


@pytest.mark.timeout(900)
def test_an_exam_lives_by_its_rules(engine: Engine) -> None:
    class OnEngine(ExamLife):
        def __init__(self) -> None:
            super().__init__(engine)

    # Each step goes through the store and the database: a third of the usual count takes some seconds.
    run_state_machine_as_test(OnEngine, settings=settings(max_examples=max(settings().max_examples // 3, 5)))
