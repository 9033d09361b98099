"""Configuration: who may call, who is sent what, and every parameter (PS3.2 A.4.4)."""

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel

from ai.words import counted
from config.mix import ObjectMix, ResultKind
from config.settings import (
    DEFAULT_FILE,
    Caller,
    Client,
    Delivery,
    Destination,
    Proof,
    Recall,
    Settings,
    WebService,
)
from node.conformance.markdown import table
from node.results.edition import SERIES
from node.results.forms import forms_of

LISTS: Final[Mapping[str, type[BaseModel]]] = {
    "dicom.callers": Caller,
    "http.clients": Client,
    "destinations": Destination,
    "destinations.web": WebService,
    "destinations.query": WebService,
    "worklist.sources": WebService,
    "reader.recall": Recall,
}
"""Keys that hold tables of their own."""

PATHS: Final = (
    *("storage.folder", "reader.model", "reader.models_folder"),
    *("http.certificate", "http.key", "http.client_ca"),
)
"""What may be a place on this machine."""

HIDDEN: Final = "(a place on this machine)"
SET: Final = "(set, not shown)"
IN_TABLES: Final = "see 4.4.1"


def configuration(settings: Settings) -> Iterator[str]:
    """Yield the configuration: addresses, object mixes, parameters."""
    yield "### 4.4 Configuration"
    yield from _addresses(settings)
    yield "#### 4.4.2 Parameters"
    yield (
        "**Table 4.4-4.** Every key of the settings file. Any of them can be overridden by environment: "
        "`MAMMONODE_SECTION__KEY`."
    )
    yield table(("Parameter", "Value", "Default", "Meaning"), _parameters(settings))


def _addresses(settings: Settings) -> Iterator[str]:
    dicom = settings.dicom
    yield "#### 4.4.1 AE Title/Presentation Address Mapping"
    yield "**Table 4.4-1.** Local."
    yield table(
        ("Application Entity", "AE Title", "Address", "TCP Port"), [("node", dicom.ae_title, dicom.bind, dicom.port)]
    )
    yield "**Table 4.4-2.** Senders." + (" All others may send too." if dicom.allow_unknown_callers else "")
    yield table(
        ("AE Title", "Address", "Storage Commitment Reports To"),
        [(caller.ae_title, caller.address or "any", _reports_to(caller)) for caller in dicom.callers]
        or [("none", "", "")],
    )
    yield "**Table 4.4-3.** Destinations, and the object mix of each: kinds and forms with their fallbacks."
    yield table(
        (
            "Name",
            "AE Title",
            "Host",
            "TCP Port",
            "Profile",
            "Objects",
            "Codes of CAD_SR",
            "Threshold",
            "Negatives",
            "Series",
        ),
        [
            (
                *(destination.name, *_place(destination), destination.profile),
                "; ".join(_objects(destination.mix)),
                destination.mix.finding_codes if ResultKind.CAD_SR in destination.mix.objects else "",
                destination.mix.threshold,
                "sent" if destination.mix.negatives else "not sent",
                "; ".join(f"{kind}: {_words(destination.mix, kind)}" for kind in destination.mix.objects),
            )
            for destination in settings.destinations
        ]
        or [("none", *[""] * 9)],
    )
    yield "**Table 4.4-3a.** How each destination is sent to."
    yield table(
        (
            "Destination",
            "Associations",
            "Windows",
            "Quick Retries",
            "First Retry",
            "Slowest Retry",
            "Given Up After",
            "Proof",
        ),
        [_lane(destination, settings) for destination in settings.destinations] or [("none", *[""] * 7)],
    )
    yield "**Table 4.4-3b.** Limits of the exam score for a second look; the first that is for a sender counts."
    yield table(
        ("Senders", "Score", "Borderline Within"),
        [(", ".join(each.senders) or "all", each.score, each.band) for each in settings.reader.recall]
        or [("none", "", "")],
    )
    yield (
        "Findings with a suspicion score below the threshold are not shown; the answer says how many there are. Where "
        "negatives are not sent, an answer `no findings` stays in the node, unless it supersedes another answer or hides "
        "findings. Series: the first words of Series Description; view, revision and `research use only` follow."
    )


def _place(destination: Destination) -> tuple[str, str, int | str]:
    if destination.web:
        return "(STOW-RS)", destination.web.url, ""
    return destination.ae_title, destination.host, destination.port


def _reports_to(caller: Caller) -> str:
    if not caller.port:
        return "the association of the request only"
    return f"{caller.host or caller.address or 'the address of the request'}, port {caller.port}"


def _lane(destination: Destination, settings: Settings) -> tuple[object, ...]:
    policy = destination.policy(settings.delivery)
    return (
        destination.name,
        destination.associations,
        ", ".join(destination.windows) or "always",
        policy.quick,
        f"{policy.first.total_seconds():g} s",
        f"{policy.slow.total_seconds():g} s",
        counted(policy.give_up_after / timedelta(days=1), "day"),
        destination.proof + ("" if destination.proof is Proof.NONE else f", {destination.proof_timeout:g} s"),
    )


def _objects(mix: ObjectMix) -> Iterator[str]:
    for kind in mix.objects:
        first, *fallback = forms_of(mix, kind)
        yield first.name + (f" (fallback {fallback[0].choice})" if fallback else "")


def _words(mix: ObjectMix, kind: ResultKind) -> str:
    return mix.series_descriptions.get(kind) or SERIES[kind][1]


def _parameters(settings: Settings) -> Iterator[tuple[str, str, str, str]]:
    comments = _comments()
    values = settings.masked()
    for section, field in Settings.model_fields.items():
        if section in LISTS:
            yield from _list_of(section, comments)
            continue
        for key, default in field.default.model_dump(mode="json").items():
            path = f"{section}.{key}"
            if path in LISTS:
                yield from _list_of(path, comments)
            else:
                yield path, _shown(path, values[section][key], default), _word(default), comments.get(path, "")


def _list_of(path: str, comments: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    for key, field in LISTS[path].model_fields.items():
        if f"{path}.{key}" in LISTS:
            yield from _list_of(f"{path}.{key}", comments)
            continue
        elsewhere = (
            "none"
            if path != "destinations" or key == "web"
            else "that of [delivery]"
            if key in Delivery.model_fields
            else "that of the profile"
        )
        default = "required" if field.is_required() else elsewhere if field.default is None else field.default
        yield f"{path}.{key}", IN_TABLES, _word(default), _meaning(path, key, comments)


def _meaning(path: str, key: str, comments: Mapping[str, str]) -> str:
    """Return what the documented settings file says of a key; of a second web service it says it once."""
    if path == "destinations.query":
        return f"As destinations.web.{key}, of the service that is asked by QIDO-RS where there is no C-FIND."
    return comments.get(f"{path}.{key}", comments.get(path, ""))


def _shown(path: str, value: Any, default: Any) -> str:
    """Return a value; a secret is masked by the settings, a place on this machine here."""
    if path in PATHS and value != default and not re.fullmatch(r"[\w.-]+", str(value)):
        return HIDDEN
    if value and set(str(value)) == {"*"}:
        return SET
    return _word(value)


def _word(value: Any) -> str:
    match value:
        case "" | ():
            return "(empty)"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case _:
            return str(value)


def _comments() -> dict[str, str]:
    """Return key → what the documented settings file says above it."""
    comments: dict[str, str] = {}
    section, words = "", list[str]()
    for line in DEFAULT_FILE.read_text(encoding="utf-8").splitlines():
        if heading := re.fullmatch(r"(?:# )?\[\[?([\w.]+)\]\]?", line):
            section, words = heading[1], []
            continue
        text = line.removeprefix("# ") if section in LISTS else line
        if key := re.match(r"(\w+) = ", text):
            comments.setdefault(f"{section}.{key[1]}", " ".join(words))
            words = []
        elif text.startswith("# ") and not re.match(r"# (\w+ = |  \{|\])", text):
            words.append(text.removeprefix("# "))
    return comments
