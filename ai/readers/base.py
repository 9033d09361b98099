"""What every reading system is to the rest of the house."""

from typing import Protocol

from ai.exam import Exam
from ai.findings import ExamFindings, ModelIdentity


class Reader(Protocol):
    """A reading system with its weights loaded."""

    @property
    def model(self) -> ModelIdentity:
        """The model that reads."""

    @property
    def device(self) -> str:
        """Where it reads, for example ``cpu`` or ``cuda:0``."""

    def read(self, exam: Exam) -> ExamFindings:
        """Read the images of one exam.

        Raises
        ------
        ai.errors.NoBreast
            When an image shows no breast; it is named.
        """
