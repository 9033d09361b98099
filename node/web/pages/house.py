"""What the pages are given to work with."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine
from starlette.requests import HTTPConnection

from ai.models import Model
from config.settings import Destination, Settings
from node.audit.notes import NOTHING, Notes
from node.echoes import Echoes
from node.intake import Receiver
from node.parts import Parts
from node.scu import EchoResult
from node.telemetry import logger
from node.timekeeping import Timekeeping
from node.validity import Validity
from node.web.access import caller
from node.web.app import Counts
from node.web.limits import address
from storage.actions import Action, record_action
from storage.database import writing
from storage.exams import ExamRecord
from storage.files import InstanceStore
from storage.jobs import JobQueue
from storage.outbox import Outbox

log = logger("web")


@dataclass(frozen=True)
class House:
    """The parts of the node that the pages show and ask.

    Attributes
    ----------
    parts
        Returns settings, store, database, queue and outbox as they are now; settings may be read anew at any time.
    receiver
        The intake that all doors share.
    echo
        Asks a destination whether it is there.
    model
        The model that reads.
    counts
        What the HTTP door has answered.
    clock
        Returns the present time, aware.
    validity, timekeeping
        What ends when, and how the clock is kept.
    notes
        Is told who did what, for the audit trail.
    echoes
        Which destinations answer.
    """

    parts: Callable[[], Parts]
    receiver: Receiver
    echo: Callable[[Destination], EchoResult]
    model: Model
    counts: Counts
    clock: Callable[[], datetime]
    validity: Validity | None = None
    timekeeping: Timekeeping | None = None
    notes: Notes = NOTHING
    echoes: Echoes | None = None

    @property
    def settings(self) -> Settings:
        """All of them, as they are now."""
        return self.parts().settings

    @property
    def engine(self) -> Engine:
        """The database."""
        return self.parts().engine

    @property
    def store(self) -> InstanceStore:
        """The files."""
        return self.parts().store

    @property
    def queue(self) -> JobQueue:
        """The jobs."""
        return self.parts().queue

    @property
    def outbox(self) -> Outbox:
        """The deliveries."""
        return self.parts().outbox

    def record(
        self,
        connection: HTTPConnection,
        what: str,
        *,
        exam: ExamRecord | None = None,
        destination: str | None = None,
        detail: str = "",
    ) -> None:
        """Keep who did what, and log it."""
        identity = caller(connection)
        who = identity.name if identity else ""
        with writing(self.engine) as database:
            record_action(database, Action(what, who, self.clock(), exam.id if exam else None, destination, detail))
        about_it = {"exam": exam.uid if exam else None, "destination": destination, "detail": detail}
        self.notes.note("done", what=what, who=who, address=address(connection), **about_it)
        about = exam.log_context() if exam else {"destination": destination}
        log.info("done by hand", what=what, who=who, detail=detail, **about)
