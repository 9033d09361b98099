"""Query parameters → conditions, fields and a page (PS3.18 8.3.4, PS3.4 C.2.2.2)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from node.entries import full_time, name_key
from node.errors import BadRequest
from node.instants import bounds, first_instant, last_instant
from storage.search import INSTANCE_KEYS, SERIES_KEYS, STUDY_KEYS, AnyOf, Condition, Level, OneOf, Range, Wildcard
from storage.workitems import KEYS as WORKITEM_KEYS

LARGEST_PAGE: Final = 1000
"""Matches that one answer has at most; a warning says that there are more."""
LONGEST_VALUE: Final = 8192
MOST_PARAMETERS: Final = 100

SPECIAL: Final = frozenset(
    {
        "includefield",
        "limit",
        "offset",
        "fuzzymatching",
        "accept",
        "charset",
        "emptyvaluematching",
        "multiplevaluematching",
    }
)
"""Parameters that are no attributes (PS3.18 8.3.4)."""
NOT_FUZZY: Final = "The fuzzymatching parameter is not supported. Only literal matching has been performed."

KEYS: Final = frozenset({*STUDY_KEYS, *SERIES_KEYS, *INSTANCE_KEYS})
FIRST_OF_THE_EAST: Final = "\u1100"
"""Hangul, kana and ideographs begin here, which stand in the second and third component group (PS3.5 H, I, J)."""
_UIDS: Final = re.compile(r"[0-9.]+")


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes
    ----------
    conditions
        Keyword → what its value must be.
    fields
        Keywords that the answer has beyond the usual ones.
    all_fields
        Whether it has everything that is known.
    limit, offset
        Which page of the matches.
    warnings
        What could not be done as it was asked for.
    """

    conditions: Mapping[str, Condition]
    fields: tuple[str, ...]
    all_fields: bool
    limit: int
    offset: int
    warnings: tuple[str, ...]

    def warning(self, host: str | None, *, more: bool) -> dict[str, str]:
        """Return the Warning header of the answer (PS3.18 8.3.4.4, 8.3.4.2), if there is one.

        Parameters
        ----------
        host
            As the client calls this one.
        more
            Whether there are more matches than the page has.
        """
        told = (*self.warnings, *(("There are additional results that can be requested",) if more else ()))
        return {"Warning": ", ".join(f'299 {host}: "{each}"' for each in told)} if told else {}


def parse_query(parameters: Iterable[tuple[str, str]], level: Level, fixed: Mapping[str, str]) -> Query:
    """Return the query that parameters ask for.

    Parameters
    ----------
    level
        What is searched for.
    fixed
        Keyword → UID, from the address.

    Raises
    ------
    BadRequest
        When a parameter or a value cannot be understood, or cannot be matched.
    """
    given = list(parameters)
    query = _parsed(given, lambda keyword: _require_known(keyword, level))
    named = [each for name, value in given if name.lower() == "includefield" for each in value.split(",") if each]
    fields = [keyword_of(each) for each in named if each != "all"]
    fields += [keyword_of(name).partition(".")[0] for name, _ in given if name.lower() not in SPECIAL]
    return replace(
        query,
        conditions=MappingProxyType({**query.conditions, **{keyword: OneOf((uid,)) for keyword, uid in fixed.items()}}),
        fields=tuple(dict.fromkeys(fields)),
        all_fields="all" in named,
    )


def parse_workitem_query(parameters: Iterable[tuple[str, str]]) -> Query:
    """Return the query for workitems that parameters ask for (PS3.18 11.9); an answer always has everything.

    Raises
    ------
    BadRequest
        As `parse_query`.
    """
    return _parsed(list(parameters), _require_of_workitem)


def _parsed(given: Sequence[tuple[str, str]], require: Callable[[str], None]) -> Query:
    if len(given) > MOST_PARAMETERS:
        raise BadRequest(f"more than {MOST_PARAMETERS} parameters")
    if any(len(value) > LONGEST_VALUE or "\0" in name + value for name, value in given):
        raise BadRequest("a value is too long, or none")
    special = {name.lower(): value for name, value in given if name.lower() in SPECIAL}
    matched = [(keyword_of(name), value) for name, value in given if name.lower() not in SPECIAL]
    for keyword, _ in matched:
        require(keyword)
    if len(dict(matched)) < len(matched):
        raise BadRequest("an attribute is given twice")
    conditions = {keyword: found for keyword, value in matched if (found := condition_of(keyword, value)) is not None}
    return Query(
        conditions,
        (),
        all_fields=True,
        limit=min(_number("limit", special.get("limit", str(LARGEST_PAGE))), LARGEST_PAGE),
        offset=_number("offset", special.get("offset", "0")),
        warnings=(NOT_FUZZY,) if special.get("fuzzymatching", "").lower() == "true" else (),
    )


def _require_of_workitem(keyword: str) -> None:
    if keyword not in WORKITEM_KEYS:
        raise BadRequest(f"{keyword} cannot be searched for")


def _require_known(keyword: str, level: Level) -> None:
    if keyword not in KEYS:
        raise BadRequest(f"{keyword} cannot be searched for")
    needed = Level.STUDY if keyword in STUDY_KEYS else Level.SERIES if keyword in SERIES_KEYS else Level.INSTANCE
    if needed > level and keyword not in {"ModalitiesInStudy", "SOPClassesInStudy"}:
        raise BadRequest(f"{keyword} is no attribute of this level")


def keyword_of(name: str) -> str:
    """Return the keyword path of an attribute that is named by keyword or tag (PS3.18 8.3.4.1).

    Raises
    ------
    BadRequest
        When the data dictionary does not have it.
    """
    return ".".join(_keyword(part) for part in name.split("."))


def _keyword(part: str) -> str:
    keyword = keyword_for_tag(int(part, 16)) if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else part
    if not keyword or tag_for_keyword(keyword) is None:
        raise BadRequest("an attribute is not known; name it by keyword or tag")
    return keyword


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise BadRequest(f"{name} is no number")
    return int(value)


def condition_of(keyword: str, value: str) -> Condition | None:
    """Return what a value must be, None when anything matches (universal matching).

    Raises
    ------
    BadRequest
        When the value is none of the attribute's kind.
    """
    value = value.strip()
    if value in {"", '""'} or set(value) == {"*"}:
        return None
    tag = tag_for_keyword(keyword.rpartition(".")[2])
    vr = dictionary_VR(tag) if tag is not None else "LO"
    if vr == "UI":
        uids = [each.strip() for each in re.split(r"[,\\]", value)]
        if not all(_UIDS.fullmatch(each) for each in uids):
            raise BadRequest(f"{keyword} is no UID")
        return OneOf(tuple(uids))
    if vr in {"IS", "US", "UL"}:
        if not re.fullmatch(r"[+-]?[0-9]{1,9}", value):
            raise BadRequest(f"{keyword} is no number")
        return OneOf((int(value),))
    if vr in SPANS:
        named = bounds(value) if vr == "DT" else _ends(value)
        return _span(keyword, named or ("", "", ""), *SPANS[vr])
    return _name(name_key(value)) if vr == "PN" else _text(value)


def _name(value: str) -> Condition:
    """Return what a name in folded case must be: one without groups is any of the groups (PS3.4 C.2.2.2).

    One that could be no other than the first is found by an index.
    """
    if "=" in value:
        return _text(value)
    found = [_text(value)]
    if not value.endswith("*"):
        found.append(Wildcard(f"{value}=*"))
    if any(each >= FIRST_OF_THE_EAST for each in value) and not value.startswith("*"):
        found += [Wildcard(f"*={each.pattern if isinstance(each, Wildcard) else value}") for each in found]
    return AnyOf(tuple(found)) if len(found) > 1 else found[0]


def _text(value: str) -> OneOf | Wildcard:
    return Wildcard(value) if re.search(r"[*?]", value) else OneOf((value,))


def _day(text: str) -> str:
    return text if re.fullmatch(r"[0-9]{8}", text) else ""


def _last_moment(text: str) -> str:
    return full_time(text, "235959.999999")


SPANS: Final[Mapping[str, tuple[Callable[[str], str], Callable[[str], str]]]] = {
    "DT": (first_instant, last_instant),
    "DA": (_day, _day),
    "TM": (full_time, _last_moment),
}
"""VR → what its first and last value are, of which a range may name either."""


def _ends(value: str) -> tuple[str, str, str]:
    first, dash, last = value.partition("-")
    return first.strip(), dash, last.strip()


def _span(
    keyword: str, named: tuple[str, str, str], low: Callable[[str], str], high: Callable[[str], str]
) -> Condition:
    first, dash, last = named
    begin = low(first) if first else ""
    end = high(last) if last else ""
    if (first and not begin) or (last and not end) or not (first or last):
        raise BadRequest(f"{keyword} is no date or time, nor a range of them")
    return Range(begin, end) if dash else OneOf((begin,))
