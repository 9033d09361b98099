"""Web services: what is answered and what is asked for over HTTP (PS3.18)."""

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from config.settings import Settings
from node.conformance.markdown import status, table
from node.status import (
    DUPLICATE_INSTANCE,
    HTTP_OUTCOMES,
    HTTP_STATUSES,
    MEANINGS,
    OWN_REASONS,
    STATUSES,
    STORING_REASONS,
    Outcome,
    error_comment,
    http_status,
    sending_outcome,
)
from node.web.matching import LARGEST_PAGE
from node.web.media import IMAGES
from storage.search import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS
from storage.workitems import KEYS as WORKITEM_KEYS

STUDY: Final = "/studies/{study}"
SERIES: Final = f"{STUDY}/series/{{series}}"
INSTANCE: Final = f"{SERIES}/instances/{{instance}}"

DICOM_FILES: Final = "`application/dicom`: as stored or Explicit VR Little Endian"
METADATA: Final = "`application/dicom+json`, `application/dicom+xml`"
PICTURES: Final = "`image/jpeg`, `image/png`; viewport, window, quality"
WORDS: Final = "`application/dicom+json`, `application/dicom+xml` (parts)"

RESOURCES: Final[Mapping[tuple[str, str], tuple[str, str]]] = MappingProxyType(
    {
        ("POST", "/studies"): (
            "Store (10.5)",
            "`application/dicom`, `application/dicom+json` with bulk data; any study",
        ),
        ("POST", STUDY): ("Store (10.5)", "the same; other studies are refused (A900H)"),
        ("GET", "/studies"): ("Search (10.6)", WORDS),
        ("GET", f"{STUDY}/series"): ("Search (10.6)", WORDS),
        ("GET", "/series"): ("Search (10.6)", WORDS),
        ("GET", f"{STUDY}/instances"): ("Search (10.6)", WORDS),
        ("GET", f"{SERIES}/instances"): ("Search (10.6)", WORDS),
        ("GET", "/instances"): ("Search (10.6)", WORDS),
        ("GET", STUDY): ("Retrieve (10.4)", DICOM_FILES),
        ("GET", SERIES): ("Retrieve (10.4)", DICOM_FILES),
        ("GET", INSTANCE): ("Retrieve (10.4)", f"{DICOM_FILES}; one part or none"),
        ("GET", f"{STUDY}/metadata"): ("Retrieve metadata (10.4)", METADATA),
        ("GET", f"{SERIES}/metadata"): ("Retrieve metadata (10.4)", METADATA),
        ("GET", f"{INSTANCE}/metadata"): ("Retrieve metadata (10.4)", METADATA),
        ("GET", f"{INSTANCE}/frames/{{frames}}"): (
            "Retrieve frames (10.4)",
            "`application/octet-stream`, or the image type of the stored transfer syntax",
        ),
        ("GET", f"{INSTANCE}/bulkdata/{{path:path}}"): ("Retrieve bulk data (10.4)", "`application/octet-stream`"),
        ("GET", f"{STUDY}/rendered"): ("Retrieve rendered (10.4)", f"{PICTURES} (parts, 100 instances at most)"),
        ("GET", f"{SERIES}/rendered"): ("Retrieve rendered (10.4)", f"{PICTURES} (parts, 100 instances at most)"),
        ("GET", f"{INSTANCE}/rendered"): ("Retrieve rendered (10.4)", f"{PICTURES}; the first frame"),
        ("GET", f"{INSTANCE}/frames/{{frame}}/rendered"): ("Retrieve rendered (10.4)", PICTURES),
        ("GET", f"{STUDY}/thumbnail"): ("Retrieve thumbnail (10.4)", PICTURES),
        ("GET", f"{SERIES}/thumbnail"): ("Retrieve thumbnail (10.4)", PICTURES),
        ("GET", f"{INSTANCE}/thumbnail"): ("Retrieve thumbnail (10.4)", PICTURES),
        ("GET", f"{INSTANCE}/frames/{{frame}}/thumbnail"): ("Retrieve thumbnail (10.4)", PICTURES),
        ("GET", "/workitems"): ("Search workitems (11.9)", WORDS),
        ("POST", "/workitems"): ("Create workitem (11.4)", "`application/dicom+json`; asks for a reading"),
        ("GET", "/workitems/{uid}"): ("Retrieve workitem (11.5)", WORDS),
        ("POST", "/workitems/{uid}"): (
            "Update workitem (11.6)",
            "refused (403): the node performs its workitems itself",
        ),
        ("PUT", "/workitems/{uid}"): ("Update workitem (11.6)", "refused (403)"),
        ("PUT", "/workitems/{uid}/state"): ("Change workitem state (11.7)", "refused (403)"),
        ("POST", "/workitems/{uid}/state"): ("Change workitem state (11.7)", "refused (403)"),
        ("POST", "/workitems/{uid}/cancelrequest"): (
            "Request cancellation (11.8)",
            "the exam is answered `not analysed`, with that reason",
        ),
        ("POST", "/workitems/{uid}/subscribers/{title}"): (
            "Subscribe (11.10)",
            "one workitem, or all by the global UID",
        ),
        ("DELETE", "/workitems/{uid}/subscribers/{title}"): ("Unsubscribe (11.11)", ""),
        ("POST", "/workitems/{uid}/subscribers/{title}/suspend"): ("Suspend global subscription (11.12)", ""),
        ("GET", "/subscribers/{title}"): (
            "Open notification connection (11.13)",
            "WebSocket; event reports as JSON text",
        ),
    }
)
"""Method and path → transaction of PS3.18, and what is answered."""

NOT_COVERED: Final = (
    ("Delete (10.7), URI services (9), capabilities (8.9)", "nothing is deleted over HTTP; 404 or 405"),
    ("`application/dicom+xml` in Store requests", "415; responses may be XML"),
    ("`application/zip`, video and `text/html` or `application/pdf` rendered", "406"),
    ("Native frames of compressed images in luminance and chrominance (YBR)", "406; as stored, and pictures"),
    ("Rendered: annotation, presentation states as a resource, ICC profiles", "ignored"),
    ("Fuzzy matching, matching of empty values, of multiple values", "literal matching; a Warning says so for names"),
    ("Searching by other attributes than those of table 4.5-2", "400, never silently ignored"),
    ("Filtered worklist subscription (1.2.840.10008.5.1.4.34.5.1)", "404"),
)


def web_services(settings: Settings) -> Iterator[str]:
    """Yield the web services."""
    yield "### 4.5 Web Services"
    if not settings.http.enabled:
        yield "Not in this configuration."
        return
    yield (
        f"As origin server the node answers HTTP/1.1 under `/dicom-web` at `{settings.http.bind}`, TCP port "
        f"{settings.http.port}. Everything that it holds can be searched and retrieved: what was received and what it has "
        "issued, in the preferred form. Instances that are stored go through the same intake as by C-STORE, with the same "
        "SOP classes and transfer syntaxes (table 4.2-1): success is answered only when each is on the disk for good and "
        "indexed."
    )
    yield "**Table 4.5-1.** Transactions and resources (PS3.18); the path follows `/dicom-web`."
    yield coverage()
    yield "Not covered:"
    yield table(("What", "Answer"), NOT_COVERED)
    yield (
        "**Table 4.5-2.** What can be matched: single values, UID lists, wild cards in texts, ranges of dates and times, "
        "names without regard to case, and without `=` by any one component group: the second and third where the key has "
        "Hangul, kana or ideographs. A date and time without an offset from UTC is in the time zone of the node; those "
        f"of workitems are given in UTC, with the offset. A page has at most {LARGEST_PAGE} matches. `includefield` gives "
        "other attributes, read from the file of the instance, or of the first one of a series or study."
    )
    yield table(
        ("Resource", "Attributes"),
        [
            ("Studies, and all below", ", ".join(STUDY_KEYS)),
            ("Series, and instances", ", ".join(SERIES_KEYS)),
            ("Instances", ", ".join(INSTANCE_KEYS)),
            ("Workitems", ", ".join(WORKITEM_KEYS)),
        ],
    )
    yield "**Table 4.5-3.** Media types of compressed frames."
    yield table(("Transfer Syntax", "Media Type"), IMAGES.items())
    yield "**Table 4.5-4.** Failure Reasons (0008,1197) of instances that could not be stored."
    rows = [(status(code), f"`{kind.__name__}`", error_comment(kind)) for kind, code in (*STORING_REASONS, *STATUSES)]
    yield table(("Failure Reason", "Reason", "Explanation"), rows)
    yield "**Table 4.5-5.** HTTP statuses of problem documents (RFC 9457)."
    yield table(("Status", "Reasons"), _problems())
    own = ", ".join(status(reason) for reason in OWN_REASONS)
    yield (
        "As user agent the node sends results by STOW-RS to destinations that are web services, one instance a request, "
        "and asks for them by QIDO-RS where their proof is `find`. **Table 4.5-6.** Responses without a Failure Reason, "
        "and what comes of them; one with a Failure Reason counts as that C-STORE status (table 4.2-4), and "
        f'{own} ("already been stored") as {status(DUPLICATE_INSTANCE)}. What is named among '
        "what failed with no reason, or with a success or warning status as its reason, is tried again, and so is what was "
        "answered with a status of success and an HTML page."
    )
    yield table(("HTTP Status", "Counts As", "Behaviour"), _outcomes())


def coverage() -> str:
    """Return what of PS3.18 is covered, as a table."""
    rows = [(words[0], method, f"`{path}`", words[1]) for (method, path), words in RESOURCES.items()]
    return table(("Transaction", "Method", "Resource", "What"), rows)


def _problems() -> Iterator[tuple[str, str]]:
    reasons: dict[HTTPStatus, list[str]] = {}
    for kind, _ in HTTP_STATUSES:
        reasons.setdefault(http_status(kind()), []).append(f"`{kind.__name__}`")
    for code in sorted(reasons):
        yield f"{code.value} {code.phrase}", ", ".join(dict.fromkeys(reasons[code]))


def _outcomes() -> Iterator[tuple[str, str, str]]:
    yield "200 OK, 202 Accepted", "0000H", "delivered"
    for code, counts_as in HTTP_OUTCOMES.items():
        said = HTTPStatus(code)
        meaning = "" if counts_as is None else f"{status(counts_as)} {MEANINGS.get(counts_as, '')}".strip()
        refused = sending_outcome(counts_as, 1) is Outcome.REFUSED
        later = sending_outcome(counts_as, 3) is Outcome.REFUSED
        behaviour = "refused for good" if refused else "refused after 3 tries" if later else "tried again"
        yield f"{said.value} {said.phrase}", meaning, behaviour
    yield "any other, or none", "", "tried again"
