"""The exam clock: looks at the exams that collect images and closes those that are complete, or overdue."""

from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine

from config.policy import CompletionPolicy, PriorPolicy
from node.exams import Candidate, Close, assemble, decide, prior_of
from node.telemetry import logger
from node.views import ImageKind
from storage import exams
from storage.database import reading, writing
from storage.errors import ExamChanged, StorageError
from storage.exams import ExamRecord
from storage.figures import unanswered
from storage.index import instances_of_exam
from storage.removals import removed_of_exam
from storage.states import ExamState, Plan
from storage.withdrawals import withdrawn_of_exam

log = logger("clock")

NO_PRIORS = PriorPolicy()


class ExamClock:
    """Closes exams into jobs.

    Parameters
    ----------
    engine
        The database.
    policy
        When an exam is complete or overdue.
    model_digest
        The model that is to read.
    clock
        Gives the aware time.
    priors
        Which exams are priors, and whether they are answered.
    one_breast_suffices
        The site's setting, see ``node.exams.assemble``.
    accepts
        Kinds of image that the model reads; of those that came for another one, too.
    """

    def __init__(
        self,
        engine: Engine,
        policy: CompletionPolicy,
        model_digest: str,
        clock: Callable[[], datetime],
        *,
        priors: PriorPolicy = NO_PRIORS,
        one_breast_suffices: bool = False,
        accepts: Collection[ImageKind] = frozenset({ImageKind.FOR_PRESENTATION}),
    ) -> None:
        self._engine = engine
        self._accepts = accepts
        self._policy = policy
        self._model_digest = model_digest
        self._clock = clock
        self._priors = priors
        self._one_breast_suffices = one_breast_suffices
        self._seen: dict[int, ExamRecord] = {}
        self.collecting = 0
        """How many exams awaited images when it last looked."""
        self.unanswered = 0
        """How many awaited their answer then, those included."""

    def tick(self) -> int:
        """Look at every exam that collects, and return how many were closed; one that fails holds up no other.

        Raises
        ------
        storage.errors.StorageError
            When the database does not answer.
        """
        with reading(self._engine) as connection:
            waiting, waits = exams.collecting(connection), unanswered(connection)
        now, self.collecting = self._clock(), len(waiting)
        self.unanswered = waits.number if waits else 0
        self._seen = {exam.id: self._seen[exam.id] for exam in waiting if exam.id in self._seen}
        closed = 0
        for exam in waiting:
            if self._seen.get(exam.id) == exam and exam.due_at and exam.last_image_at <= now < exam.due_at:
                continue  # nothing has come since it was looked at
            try:
                closed += self._look(exam)
            except StorageError:
                raise
            except Exception:
                log.exception("exam not judged", **exam.log_context(), check="an error in the program: report it")
        return closed

    def _look(self, exam: ExamRecord) -> bool:
        with reading(self._engine) as connection:
            withdrawn = withdrawn_of_exam(connection, exam.id)
            removed = removed_of_exam(connection, exam.id)
            records = instances_of_exam(connection, exam.id)
        candidates = [
            Candidate.of(record, withdrawn.get(record.uid), removed=record.uid in removed, accepts=self._accepts)
            for record in records
        ]
        now = self._clock()
        if max(exam.opened_at, exam.last_image_at) > now:
            with writing(self._engine) as connection:
                exams.put_back(connection, exam, now)
            log.warning("the clock was put back", **exam.log_context(), check="let NTP keep this machine's time")
            exam = replace(exam, last_image_at=min(exam.last_image_at, now), opened_at=min(exam.opened_at, now))
        assembly = assemble(candidates, one_breast_suffices=self._one_breast_suffices)
        verdict = decide(
            assembly,
            candidates,
            opened_at=exam.opened_at,
            last_image_at=exam.last_image_at,
            now=now,
            policy=self._policy,
        )
        if not isinstance(verdict, Close):
            if exam.due_at != verdict.until:
                with writing(self._engine) as connection:
                    exams.set_due(connection, exam, verdict.until)
            self._seen[exam.id] = replace(exam, due_at=verdict.until)
            return False
        chosen = {uid: str(view) for view, uid in assembly.chosen.items()}
        if taken := prior_of(records, self._priors):
            verdict = replace(verdict, plan=Plan.NOT_ANALYSED, reasons=(f"prior exam of {taken}", *verdict.reasons))
        try:
            with writing(self._engine) as connection:
                if taken and not self._priors.answered:
                    exams.leave(connection, exam, ExamState.PRIOR, verdict.reasons, now)
                    log.info("exam is a prior", **exam.log_context(), images=len(chosen))
                    return True
                if not any(candidate.is_image and not candidate.removed for candidate in candidates):
                    exams.leave(connection, exam, ExamState.FAILED, verdict.reasons, now)
                    log.error(
                        "exam not answered anew", **exam.log_context(), check="its images were removed after their time"
                    )
                    return True
                job = exams.close(
                    connection,
                    exam,
                    chosen=chosen,
                    rejected=assembly.rejected,
                    plan=verdict.plan,
                    reasons=verdict.reasons,
                    model_digest=self._model_digest,
                    now=now,
                )
        except ExamChanged:
            return False
        log.info(
            "exam closed",
            **exam.log_context(),
            job=job,
            completeness=verdict.completeness,
            images=len(chosen),
            reasons=list(verdict.reasons),
        )
        return True
