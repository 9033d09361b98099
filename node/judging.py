"""What an exam's images amount to, by the settings of the site and what the model reads."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from sqlalchemy import Connection

from ai.models import Model
from config.settings import Settings
from node.exams import Assembly, Candidate, Close, assemble
from node.views import ImageKind, kinds_of
from storage import exams
from storage.exams import ExamRecord
from storage.index import InstanceRecord, instances_of_exam
from storage.removals import removed_of_exam
from storage.withdrawals import withdrawn_of_exam


@dataclass(frozen=True)
class Judged:
    """An exam's instances, and what they amount to."""

    records: tuple[InstanceRecord, ...]
    candidates: tuple[Candidate, ...]
    assembly: Assembly

    @property
    def chosen(self) -> dict[str, str]:
        """SOP Instance UID → view, of the images to read."""
        return {uid: str(view) for view, uid in self.assembly.chosen.items()}

    def close(self, connection: Connection, exam: ExamRecord, verdict: Close, model_digest: str, now: datetime) -> int:
        """Close the exam so and return the number of its job; errors as `storage.exams.close`."""
        return exams.close(
            connection,
            exam,
            chosen=self.chosen,
            rejected=self.assembly.rejected,
            plan=verdict.plan,
            reasons=verdict.reasons,
            model_digest=model_digest,
            now=now,
        )


@dataclass(frozen=True)
class Rules:
    """By what images are judged.

    Attributes
    ----------
    accepts
        Kinds of image that the model reads; of those that came for another one, too.
    one_breast_suffices
        The site's setting, see ``node.exams.assemble``.
    """

    accepts: frozenset[ImageKind] = frozenset({ImageKind.FOR_PRESENTATION})
    one_breast_suffices: bool = False

    @classmethod
    def of(cls, settings: Settings, model: Model) -> Self:
        """Return the rules of a site with its model."""
        return cls(kinds_of(model.card.use.accepts), settings.exam.one_breast_suffices)

    def judge(self, connection: Connection, exam_id: int) -> Judged:
        """Judge an exam's instances as they are now."""
        withdrawn = withdrawn_of_exam(connection, exam_id)
        removed = removed_of_exam(connection, exam_id)
        records = tuple(instances_of_exam(connection, exam_id))
        candidates = tuple(
            Candidate.of(record, withdrawn.get(record.uid), removed=record.uid in removed, accepts=self.accepts)
            for record in records
        )
        return Judged(records, candidates, assemble(candidates, one_breast_suffices=self.one_breast_suffices))
