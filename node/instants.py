"""Dates and times with their offset from UTC (VR DT, PS3.5 6.2); kept and compared in one form, YYYYMMDDHHMMSS in UTC."""

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

OFFSET: Final = r"\+(?:0\d|1[0-4])[0-5]\d|-(?:0\d|1[0-2])[0-5]\d"
"""-1200 to +1400: what is beyond in a range are the years that it ends with."""
_DT: Final = rf"\d{{4}}(?:\d\d){{0,5}}(?:\.\d{{1,6}})?(?:{OFFSET})?"
_PARTS: Final = re.compile(rf"(\d{{4}})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:\.\d{{1,6}})?({OFFSET})?", re.ASCII)
_RANGE: Final = re.compile(rf"({_DT})?\s*(-?)\s*({_DT})?", re.ASCII)
_LONGEST: Final = 64


def instant(at: datetime) -> str:
    """Return a time as it is kept."""
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S")


def kept_instant(kept: str) -> datetime:
    """Return the time of one that is kept, aware."""
    return datetime.strptime(kept, "%Y%m%d%H%M%S").replace(tzinfo=UTC)


def date_time(kept: str) -> str:
    """Return a time that is kept as a value of VR DT."""
    return f"{kept}+0000"


def first_instant(text: str, zone: str = "") -> str:
    """Return the first whole second that a value of VR DT means, '' when it is none.

    Parameters
    ----------
    zone
        Timezone Offset From UTC (0008,0201), for a value that has no offset; '' is the time zone of the node.
    """
    return _instant(text, zone, is_last=False)


def last_instant(text: str, zone: str = "") -> str:
    """Return the last whole second that a value of VR DT means, as `first_instant`."""
    return _instant(text, zone, is_last=True)


def bounds(text: str) -> tuple[str, str, str] | None:
    """Return the first value of a range, its hyphen and its last value, each '' where there is none (PS3.4 C.2.2.2.5).

    None when it is no such thing; without a hyphen there is one value.
    """
    found = _RANGE.fullmatch(text.strip()) if len(text) <= _LONGEST else None
    if not found or not (found[1] or found[3]) or (found[3] and not found[2]):
        return None
    return found[1] or "", found[2], found[3] or ""


def _instant(text: str, zone: str, *, is_last: bool) -> str:
    found = _PARTS.fullmatch(text.strip())
    if not found or not re.fullmatch(OFFSET, zone or "+0000"):
        return ""
    year, month = int(found[1]), int(found[2] or (12 if is_last else 1))
    try:
        day = int(found[3] or (monthrange(year, month)[1] if is_last else 1))
        rest = (23, 59, 59) if is_last else (0, 0, 0)
        hour, minute, second = (int(part or other) for part, other in zip(found.groups()[3:6], rest, strict=True))
        local = datetime(year, month, day, hour, minute, min(second, 59))  # noqa: DTZ001 - a leap second is the one before
    except ValueError:
        return ""
    utc = _in_utc(local, found[7] or zone)
    return f"{utc.year:04}{utc:%m%d%H%M%S}"


def _in_utc(local: datetime, offset: str) -> datetime:
    hours, minutes = (int(offset[:3]), int(offset[0] + offset[3:])) if offset else (0, 0)
    try:
        if not offset:
            return local.astimezone(UTC)
        return local.replace(tzinfo=timezone(timedelta(hours=hours, minutes=minutes))).astimezone(UTC)
    except (OverflowError, ValueError):  # at an end of the calendar
        return local
