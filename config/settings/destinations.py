"""Where results go: application entities and web services, and how long each is tried."""

from dataclasses import fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from config.mix import PROFILES, FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from config.policy import RetryPolicy, Window
from config.settings.section import AETitleOrNone, Host, Port, Seconds, Section, Url, UrlOrNone, written

TEST_DESTINATION = "selftest"

SeriesWords = Annotated[
    str, written(r"[\x20-\x5B\x5D-\x7E]{1,24}", "must have 1 to 24 ASCII characters, and no backslash")
]
"""The first words of a Series Description; with view, revision and "research use only" they fit into LO."""


def _at_least_one(kinds: tuple[ResultKind, ...]) -> tuple[ResultKind, ...]:
    if not kinds:
        raise ValueError("name at least one kind of object")
    return tuple(dict.fromkeys(kinds))


Kinds = Annotated[tuple[ResultKind, ...], AfterValidator(_at_least_one)]


def _a_window(text: str) -> str:
    Window.parse(text)
    return text


TimeOfDay = Annotated[
    str,
    written(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d", "must be two times of day, as 22:00-06:00"),
    AfterValidator(_a_window),
]
"""HH:MM-HH:MM, local time."""


class Delivery(Section):
    """How long a destination is tried."""

    quick_retries: int = Field(default=10, ge=0)
    first_retry: Seconds = 30
    slowest_retry: Seconds = 1200
    give_up_days: float = Field(default=7, gt=0)
    poll: Seconds = 1
    commitment_wait: float = Field(default=5, ge=0)

    @property
    def policy(self) -> RetryPolicy:
        """The same as a policy value."""
        return RetryPolicy(
            quick=self.quick_retries,
            first=timedelta(seconds=self.first_retry),
            slow=timedelta(seconds=self.slowest_retry),
            give_up_after=timedelta(days=self.give_up_days),
        )


class Proof(StrEnum):
    """How a destination shows that it has what was sent."""

    #: Not at all: its C-STORE response suffices.
    NONE = "none"
    #: By Storage Commitment (PS3.4 J).
    COMMITMENT = "commitment"
    #: By C-FIND, or QIDO-RS.
    FIND = "find"
    #: By Storage Commitment, and by C-FIND when that is not answered.
    COMMITMENT_OR_FIND = "commitment-or-find"


class WebService(Section):
    """A DICOMweb service of somebody else, and how it knows us."""

    url: Url
    authentication: Literal["none", "basic", "bearer", "oauth2"] = "none"
    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    token_url: UrlOrNone = ""
    client_id: str = ""
    client_secret: SecretStr = SecretStr("")
    scope: str = ""
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        needed = {
            "none": (),
            "basic": ("username", "password"),
            "bearer": ("token",),
            "oauth2": ("token_url", "client_id", "client_secret"),
        }[self.authentication]
        missing = [name for name in needed if not _said(getattr(self, name))]
        if missing:
            raise ValueError(f"{self.authentication} needs {', '.join(missing)}")
        if (self.key is None) is not (self.certificate is None):
            raise ValueError("certificate and key go together")
        return self


def _said(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class Destination(Section):
    """A place that results go to: an application entity by C-STORE, or a web service by STOW-RS."""

    name: Annotated[
        str,
        written(
            r"[a-z0-9][a-z0-9_-]{0,31}", "must have 1 to 32 of a-z, 0-9, - and _, and begin with a letter or digit"
        ),
    ]
    ae_title: AETitleOrNone = ""
    host: Host = ""
    port: Port = 0
    tls: bool = False
    subject: str = ""
    web: WebService | None = None
    profile: Literal["ohif", "archive", "breast-workstation", "plain-pacs"] = "ohif"
    objects: Kinds | None = None
    segmentation: SegmentationType | None = None
    report: ReportClass | None = None
    finding_codes: FindingCodes | None = None
    threshold: int | None = Field(default=None, ge=0, le=100)
    negatives: bool | None = None
    series_descriptions: dict[ResultKind, SeriesWords] | None = None
    associations: int = Field(default=1, ge=1, le=16)
    windows: tuple[TimeOfDay, ...] = ()
    quick_retries: int | None = Field(default=None, ge=0)
    first_retry: Seconds | None = None
    slowest_retry: Seconds | None = None
    give_up_days: float | None = Field(default=None, gt=0)
    proof: Proof = Proof.NONE
    proof_timeout: Seconds = 3600
    query: WebService | None = None
    test: bool = False

    @model_validator(mode="after")
    def _is_somewhere(self) -> Self:
        if self.web is None and not (self.ae_title and self.host and self.port):
            raise ValueError("name ae_title, host and port, or a web service")
        if self.web is not None and (self.ae_title or self.host or self.port):
            raise ValueError("an application entity and a web service are two destinations")
        if self.web is not None and (self.tls or self.subject):
            raise ValueError("tls and subject are for an application entity; a web service has https in its url")
        if self.subject and not self.tls:
            raise ValueError("subject needs tls")
        if self.web is not None and self.proof not in {Proof.NONE, Proof.FIND}:
            raise ValueError("a web service proves by find, or not at all")
        if self.query is not None and self.web is not None:
            raise ValueError("a web service is asked itself; query is for an application entity")
        return self

    @property
    def where(self) -> str:
        """Its address, in words."""
        return self.web.url if self.web else f"{self.ae_title} at {self.host}:{self.port}"

    @property
    def mix(self) -> ObjectMix:
        """What it gets: the profile, changed by what is set beside it."""
        stated = {field.name: getattr(self, field.name) for field in fields(ObjectMix)}
        return replace(PROFILES[self.profile], **{name: value for name, value in stated.items() if value is not None})

    def policy(self, delivery: Delivery) -> RetryPolicy:
        """Return how long it is tried: as all are, changed by what is set beside it."""
        stated = {name: value for name in Delivery.model_fields if (value := getattr(self, name, None)) is not None}
        return delivery.model_copy(update=stated).policy

    def is_open(self, now: datetime) -> bool:
        """Tell whether it may be talked to at an aware time: always, unless there are windows."""
        return not self.windows or any(now.astimezone().time() in Window.parse(window) for window in self.windows)
