"""The exam clock: looks at the exams that collect images and closes those that are complete, or overdue."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Engine

from config.policy import CompletionPolicy, PriorPolicy
from node.exams import Close, decide, prior_of
from node.judging import Rules
from node.telemetry import logger
from storage import exams
from storage.database import reading, writing
from storage.errors import ExamChanged, StorageError
from storage.exams import ExamRecord
from storage.figures import unanswered
from storage.jobs import was_read
from storage.states import ExamState, Plan

log = logger("clock")

NO_PRIORS = PriorPolicy()
DEFAULT_RULES = Rules()


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
    rules
        By what images are judged.
    """

    def __init__(
        self,
        engine: Engine,
        policy: CompletionPolicy,
        model_digest: str,
        clock: Callable[[], datetime],
        *,
        priors: PriorPolicy = NO_PRIORS,
        rules: Rules = DEFAULT_RULES,
    ) -> None:
        self._engine = engine
        self._rules = rules
        self._policy = policy
        self._model_digest = model_digest
        self._clock = clock
        self._priors = priors
        self._seen: dict[int, ExamRecord] = {}
        self.collecting = 0
        """How many exams await images since it last looked."""
        self.unanswered = 0
        """How many awaited their answer when it did, those included."""
        self.due_at: datetime | None = None
        """When the first of those that await images is due, unless something comes; None when none does."""

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
        self.collecting -= closed
        self.due_at = min((exam.due_at for exam in self._seen.values() if exam.due_at), default=None)
        return closed

    def _look(self, exam: ExamRecord) -> bool:
        self._seen.pop(exam.id, None)
        with reading(self._engine) as connection:
            judged = self._rules.judge(connection, exam.id)
            read_before = was_read(connection, exam.id)
        now = self._clock()
        if max(exam.opened_at, exam.last_image_at) > now:
            with writing(self._engine) as connection:
                exams.put_back(connection, exam, now)
            log.warning("the clock was put back", **exam.log_context(), check="let NTP keep this machine's time")
            exam = replace(exam, last_image_at=min(exam.last_image_at, now), opened_at=min(exam.opened_at, now))
        verdict = decide(
            judged.assembly,
            judged.candidates,
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
        taken = None if read_before else prior_of(judged.records, self._priors)
        if taken:
            verdict = replace(verdict, plan=Plan.NOT_ANALYSED, reasons=(f"prior exam of {taken}", *verdict.reasons))
        try:
            with writing(self._engine) as connection:
                if taken and not self._priors.answered:
                    exams.leave(connection, exam, ExamState.PRIOR, verdict.reasons, now)
                    log.info("exam is a prior", **exam.log_context(), images=len(judged.chosen))
                    return True
                if not any(candidate.is_image and not candidate.removed for candidate in judged.candidates):
                    exams.leave(connection, exam, ExamState.FAILED, verdict.reasons, now)
                    log.error(
                        "exam not answered anew", **exam.log_context(), check="its images were removed after their time"
                    )
                    return True
                job = judged.close(connection, exam, verdict, self._model_digest, now)
        except ExamChanged:
            return False
        log.info(
            "exam closed",
            **exam.log_context(),
            job=job,
            completeness=verdict.completeness,
            images=len(judged.chosen),
            reasons=list(verdict.reasons),
        )
        return True
