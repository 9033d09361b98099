"""The states of exams, jobs and deliveries, one sentence each."""

from enum import StrEnum
from typing import Final


class ExamState(StrEnum):
    """Where an exam's present revision stands."""

    #: Images of this revision are still awaited.
    COLLECTING = "collecting"
    #: The images are chosen and a job waits or runs.
    QUEUED = "queued"
    #: The result objects of this revision are in the outbox.
    ANSWERED = "answered"
    #: No reading succeeded; the answer, where there is one, says "failed".
    FAILED = "failed"
    #: Its images all belong to another exam since their identity was corrected; that exam answers for them.
    MOVED = "moved"
    #: An earlier exam of the patient, kept and neither read nor answered: the site's settings say so.
    PRIOR = "prior"


UNANSWERED: Final = (ExamState.COLLECTING, ExamState.QUEUED)
"""States of exams that wait for their answer."""


class ConflictState(StrEnum):
    """Where the decision about a copy that contradicts an indexed instance stands (rule R6)."""

    #: An operator has to decide; where identities differ, the exam is held until then.
    OPEN = "open"
    #: The later copy is in force, and the former one was set aside.
    ACCEPTED = "accepted"
    #: The first copy stays in force.
    REJECTED = "rejected"


class Plan(StrEnum):
    """What a job is to do."""

    #: Read the chosen images.
    READ = "read"
    #: Read nothing, and answer "not analysed" with the reasons.
    NOT_ANALYSED = "not_analysed"


class JobState(StrEnum):
    """Where a job stands."""

    #: Waits for a worker, perhaps until a time after a failure.
    QUEUED = "queued"
    #: A worker has leased it; when the lease ends unrenewed, another may take it.
    RUNNING = "running"
    #: Its results are in the outbox.
    DONE = "done"
    #: Given up, with the error; an answer "failed" is in the outbox unless even that failed.
    DEAD = "dead"
    #: A newer revision of the exam was queued before this one was finished, or what it reads was found to be wrong.
    SUPERSEDED = "superseded"


class StepState(StrEnum):
    """Procedure Step State (0074,1000) of a workitem (PS3.4 CC.1.1)."""

    #: The reading waits: for images, or for a worker.
    SCHEDULED = "SCHEDULED"
    #: A worker reads.
    IN_PROGRESS = "IN PROGRESS"
    #: The answer is there.
    COMPLETED = "COMPLETED"
    #: There will be no reading; the workitem says why.
    CANCELED = "CANCELED"


class DeliveryState(StrEnum):
    """Where the delivery of one result to one destination stands."""

    #: Waits to be sent, perhaps until a time after a failure.
    WAITING = "waiting"
    #: The destination accepted it, perhaps with a warning status; where proof is wanted, that is awaited.
    SENT = "sent"
    #: The destination has answered for its safe keeping (Storage Commitment, PS3.4 J).
    COMMITTED = "committed"
    #: It was found at the destination when asked for (C-FIND).
    VERIFIED = "verified"
    #: The destination refused it for good (rule R9).
    REFUSED = "refused"
    #: The destination refused this form for good; another form of the same goes instead.
    REPLACED = "replaced"
    #: The retry policy gave up.
    EXPIRED = "expired"
    #: Not to be sent, or not again: what it stands on was found to be wrong, or a later answer was there first.
    RECALLED = "recalled"
    #: An operator has given it up: nobody waits for it any more, until it is sent again.
    WAIVED = "waived"


UNDELIVERED: Final = (DeliveryState.REFUSED, DeliveryState.EXPIRED)
"""States of deliveries that have ended, and that somebody may still wait for."""
