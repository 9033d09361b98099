"""Errors become DIMSE statuses, and statuses become what to do next: in this one place (rule R9)."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType

from node.errors import (
    BadRequest,
    BodyStalled,
    BodyTooLarge,
    ClassMismatch,
    ClassNotTaken,
    Gone,
    HeadTooLarge,
    InstanceUIDInvalid,
    InvalidInformation,
    NoSuchAction,
    NoSuchEvent,
    NoSuchResource,
    NotAcceptable,
    NotAllowed,
    NotAuthenticated,
    NotRenderable,
    NotWellKnownInstance,
    Overloaded,
    PerformedHere,
    SourceUnknown,
    StudyMismatch,
    SyntaxNotTaken,
    TooManyLargeHeaders,
    TooManyParts,
    TooManyRequests,
    UIDsMissing,
    UnknownTransaction,
    UnparsableDataset,
    UnsupportedMediaType,
)
from storage.commitments import Verdict
from storage.errors import (
    AmbiguousExam,
    BucketUnavailable,
    CannotCancel,
    CannotDecide,
    CannotRetry,
    DatabaseUnavailable,
    DiskLow,
    ExamChanged,
    MalformedUID,
    NoSuchConflict,
    NoSuchExam,
    NoSuchJob,
    NoSuchWorkitem,
    WorkitemEnded,
    WorkitemExists,
)

# PS3.4 B.2.3 and PS3.7 C.
SUCCESS = 0x0000
DUPLICATE_INSTANCE = 0x0111
INVALID_INSTANCE = 0x0117
CLASS_NOT_SUPPORTED = 0x0122
OUT_OF_RESOURCES = 0xA700
CLASS_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        SUCCESS: "Success",
        DUPLICATE_INSTANCE: "Duplicate SOP Instance",
        INVALID_INSTANCE: "Invalid SOP Instance",
        CLASS_NOT_SUPPORTED: "Refused: SOP Class not supported",
        OUT_OF_RESOURCES: "Refused: Out of Resources",
        CLASS_MISMATCH: "Error: Data Set does not match SOP Class",
        CANNOT_UNDERSTAND: "Error: Cannot Understand",
    }
)
"""Their names in the standard."""

ERROR_COMMENT_LENGTH = 64
"""Of a Long String (PS3.5 6.2)."""

STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (DiskLow, OUT_OF_RESOURCES),
    (DatabaseUnavailable, OUT_OF_RESOURCES),
    (BucketUnavailable, OUT_OF_RESOURCES),
    (TooManyLargeHeaders, OUT_OF_RESOURCES),
    (OSError, OUT_OF_RESOURCES),
    (ClassMismatch, CLASS_MISMATCH),
    (InstanceUIDInvalid, INVALID_INSTANCE),
    (UIDsMissing, CANNOT_UNDERSTAND),
    (UnparsableDataset, CANNOT_UNDERSTAND),
)

SYNTAX_NOT_SUPPORTED = 0xC122
"""Of a Failure Reason in a STOW-RS response: Referenced Transfer Syntax not supported (PS3.18 table I.2-2)."""

STORING_REASONS: tuple[tuple[type[Exception], int], ...] = (
    (ClassNotTaken, CLASS_NOT_SUPPORTED),
    (SyntaxNotTaken, SYNTAX_NOT_SUPPORTED),
    (StudyMismatch, CLASS_MISMATCH),
)
"""What STOW-RS tells beside what C-STORE does: there, presentation contexts have settled it before."""

TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL = 3


def receiving_status(error: Exception) -> int:
    """Return the status with which a C-STORE that ended in an error is answered; C000H for one not foreseen."""
    return next((code for kind, code in STATUSES if isinstance(error, kind)), CANNOT_UNDERSTAND)


def storing_reason(error: Exception) -> int:
    """Return the Failure Reason (0008,1197) of an instance that STOW-RS could not store (PS3.18 table I.2-2)."""
    return next((code for kind, code in STORING_REASONS if isinstance(error, kind)), receiving_status(error))


def error_comment(kind: type[Exception]) -> str:
    """Return the Error Comment with which a C-STORE that ended in this error is answered."""
    return _words(kind)[:ERROR_COMMENT_LENGTH]


def _words(kind: type[Exception]) -> str:
    # Python's own words for it say nothing to whoever sends.
    words = "The file could not be kept; check the disk." if issubclass(kind, OSError) else kind.__doc__ or ""
    return " ".join(words.split())


class Outcome(StrEnum):
    """What an attempt to send means for the delivery."""

    #: The destination has it, perhaps with a warning, or had it before.
    SENT = "sent"
    #: It will never take it.
    REFUSED = "refused"
    #: It may take it later.
    AGAIN = "again"


def sending_outcome(status: int | None, tries: int) -> Outcome:
    """Tell what a received C-STORE status means.

    Parameters
    ----------
    status
        None when no answer came.
    tries
        How often this object was tried, this time included.
    """
    if status is None:
        return Outcome.AGAIN
    # The same UID is the same object (rule R1): what was stored when its response got lost is there.
    if status in {SUCCESS, DUPLICATE_INSTANCE} or is_warning(status):
        return Outcome.SENT
    final = tries >= TRIES_BEFORE_CANNOT_UNDERSTAND_IS_FINAL
    if (
        status == CLASS_NOT_SUPPORTED
        or status & 0xFF00 == CLASS_MISMATCH
        or (status & 0xF000 == CANNOT_UNDERSTAND and final)
    ):
        return Outcome.REFUSED
    return Outcome.AGAIN


HTTP_OUTCOMES: Mapping[int, int | None] = MappingProxyType(
    {
        HTTPStatus.BAD_REQUEST: CANNOT_UNDERSTAND,
        HTTPStatus.NOT_ACCEPTABLE: CANNOT_UNDERSTAND,
        HTTPStatus.CONFLICT: CANNOT_UNDERSTAND,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE: CANNOT_UNDERSTAND,
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE: CLASS_NOT_SUPPORTED,
        HTTPStatus.UNPROCESSABLE_ENTITY: CANNOT_UNDERSTAND,
        HTTPStatus.SERVICE_UNAVAILABLE: OUT_OF_RESOURCES,
        HTTPStatus.INSUFFICIENT_STORAGE: OUT_OF_RESOURCES,
    }
)
"""HTTP status of a STOW-RS response that names no reason → the C-STORE status that means the same; others mean none."""


OWN_REASONS: Mapping[int, int] = MappingProxyType({0xB00E: DUPLICATE_INSTANCE})
"""Failure Reason of a service's own → the C-STORE status that means the same.

45070: "already been stored" (conformance statement of Microsoft's DICOM service).
"""

STORED = frozenset({HTTPStatus.OK, HTTPStatus.CREATED, HTTPStatus.ACCEPTED})
"""HTTP statuses of a STOW-RS response by which the instance is stored, unless its body says otherwise.

Nothing else can be meant where the body says nothing: 202 says that some of the instances are stored (PS3.18 table
10.5.3-1), and one was sent; where none is, the status is 400 or 409.
"""


def stored_over_http(status: int, document: object, phrase: str) -> tuple[int | None, str]:
    """Return what a STOW-RS response says of the one instance that was sent: as a C-STORE status, and in words.

    Parameters
    ----------
    status
        Of the HTTP response.
    document
        Its body as parsed JSON, or None when it is none.
    phrase
        Reason phrase of the status.
    """
    words = f"HTTP {status} {phrase}".strip()
    if failed := _items(document, "00081198", "0008119A"):  # Failed SOP and Other Failures Sequence (PS3.3 I.1)
        reason = _reason(failed, "00081197")
        if reason is None:
            stored = status in STORED
            return (None, f"{words}, among what failed") if stored else (HTTP_OUTCOMES.get(status), words)
        words = f"{words}, Failure Reason {reason:04X}H"
        reason = OWN_REASONS.get(reason, reason)
        # Some give failures of their own numbers that mean "stored, with a remark" in a C-STORE response.
        is_failure = reason != SUCCESS and not is_warning(reason)
        return reason if is_failure else None, words
    if status in STORED:
        warning = _reason(_items(document, "00081199"), "00081196")
        return (SUCCESS, "") if not warning else (warning, f"{words}, Warning Reason {warning:04X}H")
    return HTTP_OUTCOMES.get(status), words


def _items(document: object, *sequences: str) -> list[object]:
    """Return the items of sequences that are not empty; the one data set may stand in a list (PS3.18 F.2)."""
    found: list[object] = []
    for each in document if isinstance(document, list) else [document]:
        for sequence in sequences:
            element = each.get(sequence) if isinstance(each, dict) else None
            items = element.get("Value") if isinstance(element, dict) else None
            found += [item for item in items if item] if isinstance(items, list) else []
    return found


def _reason(items: Sequence[object], name: str) -> int | None:
    for item in items:
        try:
            return int(item[name]["Value"][0])  # type: ignore[index]
        except (KeyError, IndexError, TypeError, ValueError):
            continue
    return None


def is_warning(status: int) -> bool:
    """Tell whether a status is of the warning class: stored, with a remark (PS3.7 C.3; PS3.4 B.2.3 for Bxxx)."""
    return status in {0x0001, 0x0107, 0x0116} or status & 0xF000 == 0xB000


# PS3.7 C; the last three of a Failure Reason only (PS3.3 C.14.1.1).
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
NO_SUCH_EVENT = 0x0113
NO_SUCH_ACTION = 0x0123
INVALID_ARGUMENT = 0x0115
CLASS_INSTANCE_CONFLICT = 0x0119
DUPLICATE_TRANSACTION = 0x0131
RESOURCE_LIMITATION = 0x0213
PENDING = (0xFF00, 0xFF01)
"""Of a C-FIND response: another match follows (PS3.4 C.4.1.1.4)."""

COMMITMENT_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotWellKnownInstance, NO_SUCH_INSTANCE),
    (NoSuchEvent, NO_SUCH_EVENT),
    (NoSuchAction, NO_SUCH_ACTION),
    (InvalidInformation, INVALID_ARGUMENT),
    (UnknownTransaction, PROCESSING_FAILURE),
    (DatabaseUnavailable, RESOURCE_LIMITATION),
    (BucketUnavailable, RESOURCE_LIMITATION),
)
"""What a Storage Commitment request or report that could not be taken is answered with (PS3.7 10.1.1.1.8, 10.1.4.1.10)."""

FAILURE_REASONS: Mapping[int, tuple[str, Verdict]] = MappingProxyType(
    {
        PROCESSING_FAILURE: ("processing failure", Verdict.SEND_AGAIN),
        NO_SUCH_INSTANCE: ("no such object instance", Verdict.SEND_AGAIN),
        CLASS_INSTANCE_CONFLICT: ("class/instance conflict", Verdict.REFUSED),
        CLASS_NOT_SUPPORTED: ("referenced SOP class not supported", Verdict.REFUSED),
        DUPLICATE_TRANSACTION: ("duplicate transaction UID", Verdict.ASK_AGAIN),
        RESOURCE_LIMITATION: ("resource limitation", Verdict.SEND_AGAIN),
    }
)
"""Failure Reasons (PS3.3 C.14.1.1), their words, and what we do."""


def commitment_status(error: Exception) -> int:
    """Return the status with which a Storage Commitment message that ended in an error is answered."""
    return next((code for kind, code in COMMITMENT_STATUSES if isinstance(error, kind)), PROCESSING_FAILURE)


def failure_reason(reason: int) -> tuple[str, Verdict]:
    """Return the words of a Failure Reason and what it means; one that the standard does not know is a failure."""
    return FAILURE_REASONS.get(reason, ("a reason that the standard does not know", Verdict.SEND_AGAIN))


HTTP_STATUSES: tuple[tuple[type[Exception], HTTPStatus], ...] = (
    (DiskLow, HTTPStatus.SERVICE_UNAVAILABLE),
    (TooManyLargeHeaders, HTTPStatus.SERVICE_UNAVAILABLE),
    (DatabaseUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (BucketUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (OSError, HTTPStatus.SERVICE_UNAVAILABLE),
    (Overloaded, HTTPStatus.SERVICE_UNAVAILABLE),
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS),
    (BodyTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (TooManyParts, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (BodyStalled, HTTPStatus.REQUEST_TIMEOUT),
    (HeadTooLarge, HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (NotAuthenticated, HTTPStatus.UNAUTHORIZED),
    (NotAllowed, HTTPStatus.FORBIDDEN),
    (NoSuchResource, HTTPStatus.NOT_FOUND),
    (NoSuchExam, HTTPStatus.NOT_FOUND),
    (NoSuchJob, HTTPStatus.NOT_FOUND),
    (NoSuchConflict, HTTPStatus.NOT_FOUND),
    (Gone, HTTPStatus.GONE),
    (NotAcceptable, HTTPStatus.NOT_ACCEPTABLE),
    (NotRenderable, HTTPStatus.NOT_ACCEPTABLE),
    (UnsupportedMediaType, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (AmbiguousExam, HTTPStatus.CONFLICT),
    (ExamChanged, HTTPStatus.CONFLICT),
    (CannotDecide, HTTPStatus.CONFLICT),
    (CannotRetry, HTTPStatus.CONFLICT),
    (CannotCancel, HTTPStatus.CONFLICT),
    (NoSuchWorkitem, HTTPStatus.NOT_FOUND),
    (WorkitemExists, HTTPStatus.CONFLICT),
    (WorkitemEnded, HTTPStatus.CONFLICT),
    (PerformedHere, HTTPStatus.FORBIDDEN),
    (SourceUnknown, HTTPStatus.BAD_REQUEST),
    (BadRequest, HTTPStatus.BAD_REQUEST),
    (MalformedUID, HTTPStatus.BAD_REQUEST),
    (ClassMismatch, HTTPStatus.BAD_REQUEST),
    (InstanceUIDInvalid, HTTPStatus.BAD_REQUEST),
    (UIDsMissing, HTTPStatus.BAD_REQUEST),
    (UnparsableDataset, HTTPStatus.BAD_REQUEST),
)
"""With what status an HTTP request that ended in an error is answered (PS3.18 8.5); 500 for one not foreseen."""


def http_status(error: Exception) -> HTTPStatus:
    """Return the status with which an HTTP request that ended in an error is answered; 500 for one not foreseen."""
    return next((code for kind, code in HTTP_STATUSES if isinstance(error, kind)), HTTPStatus.INTERNAL_SERVER_ERROR)


def http_detail(error: Exception) -> str:
    """Return what a problem document says of an error: its message, without the particulars when the fault is ours."""
    match http_status(error):
        case HTTPStatus.INTERNAL_SERVER_ERROR:
            return "A fault of this node, which has logged it under the number of the request."
        case status if status > HTTPStatus.INTERNAL_SERVER_ERROR:
            return _words(type(error))
        case _:
            return str(error)
