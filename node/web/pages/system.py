"""System: disk, queue, how much was read and how fast, the self-test, the model, versions, what the door refused."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from config.settings import Scope
from node.metrics import RECENTLY
from node.timekeeping import ClockState
from node.validity import is_ending
from node.web import charts
from node.web.access import Guarded
from node.web.pages.house import House
from node.web.rendering import render, render_live
from storage import selftests
from storage.database import reading, schema_is_current
from storage.overview import Reading, bytes_kept, oldest_waiting_job, readings_since, received_since
from storage.workers import workers_seen

HOURS: Final = 24
STAGES: Final = ("decode", "gate", "read", "encode", "write", "total")
PARTS: Final = (
    *("mammonode", "pydicom", "pynetdicom", "highdicom", "torch", "sqlalchemy", "starlette", "uvicorn"),
    *("opencv-python-headless", "numpy"),
)


@dataclass(frozen=True)
class Hour:
    """The readings that ended within an hour, and how long exams waited for their answer."""

    label: str
    readings: tuple[Reading, ...]

    def waited(self, fraction: float) -> float | None:
        """Return the seconds from the last image to the answer, within which this part of the exams was answered."""
        waits = sorted((each.finished_at - each.last_image_at).total_seconds() for each in self.readings)
        return max(waits[min(int(fraction * len(waits)), len(waits) - 1)], 0) if waits else None


def routes(house: House) -> Sequence[Guarded]:
    """Return the routes of the system page."""

    def page(request: Request) -> Response:
        return render(request, "system.html", card=_card(house), versions=_versions(), **_told(house))

    def body(request: Request) -> Response:
        return render_live(request, "system_body.html", **_told(house))

    return (
        Guarded("/system", page, needs=Scope.READ),
        Guarded("/system/body", body, needs=Scope.READ),
    )


def _told(house: House) -> dict[str, Any]:
    now = house.clock()
    since = (now - timedelta(hours=HOURS - 1)).replace(minute=0, second=0, microsecond=0)
    with reading(house.engine) as connection:
        readings = readings_since(connection, since)
        oldest = oldest_waiting_job(connection)
        received = received_since(connection, since)
        images, results = bytes_kept(connection)
        selftest = selftests.last(connection)
        workers = len(workers_seen(connection, now, RECENTLY))
    hours = _hours(readings, since)
    labels = [hour.label for hour in hours]
    return {
        "disk": _disk(house),
        "limit": house.settings.storage.watermark.max_used_fraction,
        "kept": {"images": images, "results": results},
        "jobs": house.queue.counts(),
        "workers": workers,
        "oldest": oldest,
        "waits": (now - oldest).total_seconds() if oldest else None,
        "received": received,
        "read": len(readings),
        "throughput": charts.bars("Exams read in an hour", labels, [len(hour.readings) for hour in hours]),
        "latency": charts.lines(
            "From the last image to the answer",
            labels,
            [
                charts.Line("half of the exams", 0, [hour.waited(0.5) for hour in hours]),
                charts.Line("95 of 100", 1, [hour.waited(0.95) for hour in hours]),
            ],
            unit="s",
        ),
        "stages": stages_of(readings),
        "current": schema_is_current(house.engine),
        "database": house.engine.dialect.name,
        "answers": _answers(house.counts.answers),
        "selftest": selftest,
        "dated": [(dated, is_ending(dated, now)) for dated in (house.validity.all() if house.validity else ())],
        "clock": house.timekeeping.last if house.timekeeping else ClockState(None),
    }


def _disk(house: House) -> dict[str, Any] | None:
    """Return how full the store's disk is; None where it does not answer, as a share that is gone."""
    try:
        usage = house.store.usage()
    except OSError:
        return None
    watermark, used = house.settings.storage.watermark, 1 - usage.free / usage.total
    full = used > watermark.max_used_fraction or usage.free < watermark.min_free_bytes
    return {"free": usage.free, "total": usage.total, "used": used, "full": full}


def _hours(readings: Sequence[Reading], since: datetime) -> list[Hour]:
    groups: dict[int, list[Reading]] = {}
    for each in readings:
        groups.setdefault(int((each.finished_at - since).total_seconds() // 3600), []).append(each)
    return [
        Hour(f"{(since + timedelta(hours=number)).astimezone():%H}h", tuple(groups.get(number, ())))
        for number in range(HOURS)
    ]


def stages_of(readings: Sequence[Reading]) -> dict[str, float]:
    """Return how many seconds each stage takes in the middle, of exams that were read: others are answered at once."""
    found = {}
    for stage in STAGES:
        taken = sorted(each.timings[stage] for each in readings if "read" in each.timings and stage in each.timings)
        if taken:
            found[stage] = taken[len(taken) // 2]
    return found


def _answers(answers: Counter[int]) -> dict[str, int]:
    """Return how often the door has answered well, and how often it refused, by reason."""
    words = {401: "not authenticated", 403: "not allowed", 413: "too large", 429: "too often", 503: "overloaded"}
    told = {"answered": sum(number for status, number in answers.items() if status < 400)}
    told |= {f"{status} {name}": answers[status] for status, name in words.items()}
    others = sum(number for status, number in answers.items() if status >= 400 and status not in words)
    return told | {"other refusals and faults": others}


def _card(house: House) -> Mapping[str, Any]:
    card = house.model.card.model_dump(mode="json")
    return {**card, "digest": house.model.digest}


def _versions() -> Mapping[str, str]:
    found = {"Python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:
            found[part] = "not installed"
    return found
