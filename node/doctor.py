"""What a support ticket needs, in one document without patients' data and without secrets.

Only what is named here goes in, and of what others may have written (AE titles that nobody knows, what a PACS says when it
refuses, the text of strange errors, reasons that people type) nothing does: a patient's name may stand in any of it.
"""

import json
import platform
import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from importlib.metadata import distributions
from typing import Any, Final

from pydicom.uid import UID

from ai.errors import AIError
from ai.models import open_model
from config.settings import Settings
from node.adoption import apart
from node.errors import NodeError
from node.events import events
from node.parts import Parts, open_parts
from node.timekeeping import clock_state
from node.tls import Fault, Transport
from node.validity import files_of
from storage import audit, selftests
from storage.database import reading, schema_is_current
from storage.errors import StorageError
from storage.exams import list_exams
from storage.figures import exams_by_state, undelivered
from storage.senders import Sender, list_senders
from storage.states import DeliveryState, JobState
from storage.tokens import list_tokens
from storage.workers import workers_seen

LAST = 20
"""Of each kind of failure, and exams."""
LINES = 300
"""Of the journal."""
SENDERS_SINCE = timedelta(days=30)
TOLD: Final = frozenset(
    {
        *(
            "phase",
            "exam",
            "job",
            "revision",
            "delivery",
            "destination",
            "kind",
            "status",
            "tries",
            "attempt",
            "seconds",
        ),
        *("association", "instance", "request", "transaction", "address", "port", "limit", "check", "logger", "part"),
        *(
            "what",
            "days",
            "ends",
            "offset",
            "files",
            "number",
            "swept",
            "version",
            "digest",
            "model",
            "method",
            "worker",
        ),
    }
)
"""Keys of a log line that hold our own words, numbers and UIDs."""
SAID: Final = ("cause", "message", "error", "faults")
"""Keys that hold our sentences beside the words of others."""
OURS: Final = (NodeError, StorageError)
"""Errors whose docstrings are our sentences."""
UNITS: Final = ("mammonode", "mammonode-worker@*", "mammonode-selftest")


def examine(settings: Settings, now: datetime, journal: Callable[[], str] | None = None) -> dict[str, Any]:
    """Return everything, JSON types; a part that cannot be had says why, and the others are there.

    Parameters
    ----------
    journal
        Returns the journal's entries, one JSON object a line; by default journalctl does.
    """
    told: dict[str, Any] = {
        "made_at": now.isoformat(),
        "versions": _versions(),
        "settings": settings.masked(),
        "clock": clock_state().words,
        "model": _try(lambda: _model(settings)),
        "certificates": _try(lambda: _certificates(settings)),
    }
    try:
        parts = open_parts(settings)
    except StorageError as error:
        told["database"] = str(error)
    else:
        for name, look in _looks(parts, now):
            told[name] = _try(look)
        parts.engine.dispose()
    told["journal"] = _try(lambda: _journal((journal or _journalctl)()))
    return told


def _try(look: Callable[[], Any]) -> Any:
    try:
        return look()
    except (AIError, NodeError, StorageError, OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 (the rest of the file is worth having; the text may quote a header)
        return type(error).__name__


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "system": platform.platform(), "OpenSSL": ssl.OPENSSL_VERSION}
    named = sorted((each.metadata["Name"], each.version) for each in distributions())
    return found | dict(named)


def _model(settings: Settings) -> dict[str, str]:
    model = open_model(settings.reader.model, settings.reader.models_folder)
    return {"name": model.card.name, "version": model.card.version, "digest": model.digest}


def _certificates(settings: Settings) -> list[dict[str, str]]:
    files = [*Transport.open(settings.tls).files, *files_of(settings)]
    return [{"what": each.what, "subject": each.subject, "ends": each.ends.isoformat()} for each in files]


def _looks(parts: Parts, now: datetime) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "database", lambda: {"kind": parts.engine.dialect.name, "schema_is_current": schema_is_current(parts.engine)}
    yield "disk", lambda: vars(parts.store.usage())
    yield "bucket", lambda: _bucket(parts)
    yield "newest", lambda: vars(apart(parts.engine, parts.store, now))
    yield "exams", lambda: _exams(parts)
    yield "jobs", lambda: _jobs(parts)
    yield "deliveries", lambda: _deliveries(parts, now)
    yield "senders", lambda: _senders(parts, now)
    yield "workers", lambda: _workers(parts, now)
    yield "selftests", lambda: _selftests(parts)
    yield "tokens", lambda: _tokens(parts, now)
    yield "audit", lambda: _audit(parts)


def _bucket(parts: Parts) -> str:
    if not parts.store.far:
        return "none"
    parts.store.reach()
    return "answers"


def _exams(parts: Parts) -> dict[str, Any]:
    with reading(parts.engine) as connection:
        states, last = exams_by_state(connection), list_exams(connection, LAST)
    newest = [
        {
            "exam": each.uid,
            "revision": each.revision,
            "state": each.state,
            "status": each.status,
            "arrivals": each.arrivals,
            "held": each.held,
            "last_image_at": each.last_image_at.isoformat(),
        }
        for each in last
    ]
    return {"by_state": states, "newest": newest}


def _jobs(parts: Parts) -> dict[str, Any]:
    troubled = [job for job in parts.queue.list_jobs(LAST * 10) if job.error or job.state is JobState.DEAD][:LAST]
    failures = [
        {
            "job": job.id,
            "exam": job.exam_uid,
            "revision": job.revision,
            "state": job.state,
            "attempts": job.attempts,
            "error": _kind_of_error(job.error),
        }
        for job in troubled
    ]
    return {"by_state": parts.queue.counts(), "last_failures": failures}


def _kind_of_error(error: str | None) -> str:
    """Return the class that an error's text begins with, if it is one; what follows may quote a header."""
    named = re.match(r"[\w.]*", error or "")
    name = named.group().rpartition(".")[2] if named else ""
    return name if name in {each.__name__ for each in _classes(BaseException)} else ""


def _classes(base: type[BaseException]) -> set[type[BaseException]]:
    return {base}.union(*(_classes(each) for each in base.__subclasses__()))


def _our_words(text: str | None) -> list[str]:
    """Return the sentences of ours that stand in a text; what else does may be others'."""
    errors = (" ".join((each.__doc__ or "").split()) for base in OURS for each in _classes(base))
    return sorted({said for said in (*errors, *Fault) if said and said in (text or "")})


def _deliveries(parts: Parts, now: datetime) -> dict[str, Any]:
    with reading(parts.engine) as connection:
        waiting = undelivered(connection)
    troubled = [
        each
        for state in (DeliveryState.REFUSED, DeliveryState.EXPIRED, DeliveryState.WAITING)
        for each in parts.outbox.latest(LAST, state=state)
        if each.attempts
    ]
    return {
        "by_destination": parts.outbox.counts(),
        "oldest_waiting_seconds": {name: (now - lane.oldest).total_seconds() for name, lane in waiting.items()},
        "last_failures": [
            {
                "delivery": each.id,
                "exam": each.exam_uid,
                "kind": each.kind,
                "destination": each.destination,
                "state": each.state,
                "attempts": each.attempts,
                "status": None if each.status_code is None else f"{each.status_code:04X}H",
                "cause": _our_words(each.message),
                "last_attempt_at": each.last_attempt_at,
            }
            for each in troubled
        ],
    }


def _senders(parts: Parts, now: datetime) -> list[dict[str, Any]]:
    named = {caller.ae_title.strip() for caller in parts.settings.dicom.callers}
    with reading(parts.engine) as connection:
        found = list_senders(connection, f"{now - SENDERS_SINCE:%Y-%m-%d}")
    return [_sender(each, named) for each in found]


def _sender(each: Sender, named: set[str]) -> dict[str, Any]:
    tallies = [tally for _, tally in each.days]
    reasons: dict[str, int] = {}
    for tally in tallies:
        for reason, number in tally.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + number
    return {
        "sender": each.calling_ae if each.calling_ae in named else "not in callers",
        "address": each.address,
        "last_seen": each.last_seen.isoformat(),
        "images": sum(tally.images for tally in tallies),
        "images_refused": sum(tally.images_refused for tally in tallies),
        "associations": sum(tally.associations for tally in tallies),
        "associations_refused": sum(tally.associations_refused for tally in tallies),
        "refused_for": reasons,
        # What could not be agreed upon; a class that is none we know is a stranger's text.
        "contexts_not_taken": sorted(
            {_known(context.abstract_syntax) for context in each.contexts if context.accepted is None}
        ),
    }


def _known(name: str) -> str:
    """Return the name of a UID of the standard, or a UID; of anything else, that it is none."""
    return name if re.fullmatch(r"[0-9.]{1,64}", name) or name in _names() else "no UID"


def _names() -> frozenset[str]:
    from pydicom._uid_dict import UID_dictionary  # noqa: PLC0415 (large, and asked for by this alone)

    return frozenset(UID(uid).name for uid in UID_dictionary)


def _workers(parts: Parts, now: datetime) -> list[dict[str, Any]]:
    with reading(parts.engine) as connection:
        found = workers_seen(connection, now, timedelta(days=1))
    return [
        {
            "worker": each.owner,
            "model": each.model,
            "digest": each.model_digest,
            "device": each.device,
            "seen_at": each.seen_at,
            "gpu": vars(each.gpu),
        }
        for each in found
    ]


def _selftests(parts: Parts) -> dict[str, Any]:
    with reading(parts.engine) as connection:
        found = {"last": selftests.last(connection), "last_passed": selftests.last(connection, passed=True)}
    return {name: vars(test) if test else None for name, test in found.items()}


def _tokens(parts: Parts, now: datetime) -> dict[str, int]:
    with reading(parts.engine) as connection:
        found = list_tokens(connection)
    return {"all": len(found), "valid": sum(token.is_valid(now) for token in found)}


def _audit(parts: Parts) -> dict[str, Any]:
    with reading(parts.engine) as connection:
        return {"link": str(audit.head(connection)), "faults": list(audit.faults(connection))}


def _journalctl() -> str:
    program = shutil.which("journalctl")
    if program is None:
        raise OSError("there is no journalctl here")
    units = [option for unit in UNITS for option in ("--unit", unit)]
    command = [
        program,
        *units,
        "--priority",
        "warning",
        "--lines",
        str(LINES),
        "--output",
        "json",
        "--quiet",
        "--no-pager",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 (constant)
    if done.returncode:
        raise OSError(f"journalctl: {done.stderr.strip() or 'nothing can be read'}; is this user in systemd-journal?")
    return done.stdout


def _journal(text: str) -> list[dict[str, Any]]:
    """Return our own events, with the keys that hold our own words; of other lines, nothing."""
    found = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        name = entry.get("MAMMONODE_EVENT") if isinstance(entry, dict) else None
        if name not in events():
            continue
        keys = {
            key.removeprefix("MAMMONODE_").lower(): value
            for key, value in entry.items()
            if key.startswith("MAMMONODE_")
        }
        found.append(
            {
                "at": entry.get("__REALTIME_TIMESTAMP", ""),
                "unit": entry.get("_SYSTEMD_UNIT", ""),
                "priority": entry.get("PRIORITY", ""),
                "event": name,
                **{key: value for key, value in keys.items() if key in TOLD},
                **({"cause": words} if (words := _our_words(" ".join(keys.get(key, "") for key in SAID))) else {}),
            }
        )
    return found
