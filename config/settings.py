"""Settings: one TOML file, overridable by environment, refused when a key is unknown or a value is wrong."""

import difflib
import os
from dataclasses import fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from config.errors import InvalidSettings
from config.mix import PROFILES, FindingCodes, ObjectMix, ReportClass, ResultKind, SegmentationType
from config.policy import CompletionPolicy, PriorPolicy, RetentionPolicy, RetryPolicy, Watermark, Window

ENVIRONMENT_PREFIX = "MAMMONODE_"
FILE_VARIABLE = "MAMMONODE_CONFIG"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what LoadCredential= names (systemd.exec(5))."""
CREDENTIALS_PREFIX = "mammonode_"
"""Before the name of each file of a folder that is loaded as the credential ``mammonode``."""
DEFAULT_FILE = Path(__file__).parent / "mammonode.toml"

TEST_AE_TITLE = "MAMMONODE-TEST"
"""Under it the node calls itself, to see whether its own doors are tended and its self-test comes through."""
TEST_DESTINATION = "selftest"

AETitle = Annotated[
    str, StringConstraints(pattern=r"^[\x21-\x5B\x5D-\x7E]([\x20-\x5B\x5D-\x7E]{0,15})$", max_length=16)
]
"""PS3.5 6.2: at most 16 characters of the default repertoire, no backslash, no control characters."""
SeriesWords = Annotated[str, StringConstraints(pattern=r"^[\x20-\x5B\x5D-\x7E]+$", max_length=24)]
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
    str, StringConstraints(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d$"), AfterValidator(_a_window)
]
"""HH:MM-HH:MM, local time."""
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A table of the settings file."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Caller(Section):
    """An application entity that may send to this node."""

    ae_title: AETitle
    address: str = ""
    host: str = ""
    port: Port = 0


class Dicom(Section):
    """The DICOM door."""

    ae_title: AETitle = "MAMMONODE"
    bind: str = "127.0.0.1"
    port: Port = 11112
    require_called_ae: bool = True
    allow_unknown_callers: bool = False
    callers: tuple[Caller, ...] = ()
    maximum_associations: int = Field(default=30, ge=1, le=200)
    network_timeout: Seconds = 60
    acse_timeout: Seconds = 30
    dimse_timeout: Seconds = 60


class Storage(Section):
    """Files and database."""

    folder: Path = Path("data")
    database: SecretStr = SecretStr("")
    max_used_percent: float = Field(default=85, gt=0, le=100)
    min_free_gb: float = Field(default=10, ge=0)

    @property
    def database_url(self) -> str:
        """The database's URL; SQLite beside the files when none is given."""
        return self.database.get_secret_value() or f"sqlite:///{self.folder.absolute() / 'mammonode.sqlite'}"

    @property
    def watermark(self) -> Watermark:
        """Below which nothing is accepted."""
        return Watermark(self.max_used_percent / 100, int(self.min_free_gb * 1e9))


class ExamClock(Section):
    """When an exam's images are taken to be all there."""

    complete_quiet: Seconds = 10
    incomplete_quiet: Seconds = 300
    hard_cap: Seconds = 7200
    one_breast_suffices: bool = False
    accept_corrections: bool = False
    prior_days: int = Field(default=0, ge=0)
    answer_priors: bool = True

    @property
    def policy(self) -> CompletionPolicy:
        """The same as a policy value."""
        return CompletionPolicy(
            timedelta(seconds=self.complete_quiet),
            timedelta(seconds=self.incomplete_quiet),
            timedelta(seconds=self.hard_cap),
        )

    @property
    def priors(self) -> PriorPolicy:
        """Which exams are priors."""
        return PriorPolicy(self.prior_days, self.answer_priors)


class Jobs(Section):
    """How often and how long a reading is tried."""

    lease: Seconds = 60
    time_limit: Seconds = 900
    attempts: int = Field(default=3, ge=1)
    first_retry: Seconds = 10
    slowest_retry: Seconds = 600
    drain: Seconds = 60

    @property
    def policy(self) -> RetryPolicy:
        """The same as a policy value."""
        return RetryPolicy(
            quick=self.attempts,
            first=timedelta(seconds=self.first_retry),
            slow=timedelta(seconds=self.slowest_retry),
            give_up_after=timedelta(days=7),
            attempts=self.attempts,
        )


class ReaderSection(Section):
    """Which model reads, and where."""

    model: str = "mass-fpn-lite0"
    models_folder: Path = Path("models")
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(default=0, ge=0)


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


Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")]
"""Of a web service; without credentials, which stand beside it."""


class WebService(Section):
    """A DICOMweb service of somebody else, and how it knows us."""

    url: Url
    authentication: Literal["none", "basic", "bearer", "oauth2"] = "none"
    username: str = ""
    password: SecretStr = SecretStr("")
    token: SecretStr = SecretStr("")
    token_url: Url | Literal[""] = ""
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

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}$")
    ae_title: AETitle | Literal[""] = ""
    host: str = ""
    port: Port = 0
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


class Retention(Section):
    """When files are removed."""

    sources_days: float = Field(default=0, ge=0)
    results_days: float = Field(default=0, ge=0)
    watermark_percent: float = Field(default=0, ge=0, lt=100)
    unproven: bool = False

    @property
    def policy(self) -> RetentionPolicy:
        """The same as a policy value."""
        return RetentionPolicy(
            timedelta(days=self.sources_days) if self.sources_days else None,
            timedelta(days=self.results_days) if self.results_days else None,
            self.watermark_percent / 100 if self.watermark_percent else None,
            unproven=self.unproven,
        )


_ISSUER = r"^$|^https://\S+$|^http://(127\.0\.0\.1|localhost|\[::1\])[:/]\S*$"
"""Plain HTTP only on this machine: whoever can change the keys on their way can be anybody."""


class Scope(StrEnum):
    """What a caller over HTTP may be allowed to do."""

    #: Send instances.
    STORE = "store"
    #: Look at everything that the node holds.
    READ = "read"
    #: Change what the node does: retry, resend, cancel, pause.
    OPERATE = "operate"


class Client(Section):
    """A holder of a certificate."""

    subject: str = Field(min_length=1)
    scopes: tuple[Scope, ...]


class Http(Section):
    """The HTTP door."""

    enabled: bool = True
    bind: str = "127.0.0.1"
    port: Port = 8080
    trust_local: bool = True
    session_hours: float = Field(default=12, gt=0)
    show_patients: bool = False
    certificate: str = ""
    key: str = ""
    client_ca: str = ""
    clients: tuple[Client, ...] = ()
    oidc_issuer: str = Field(default="", pattern=_ISSUER)
    oidc_audience: str = ""
    oidc_jwks: str = Field(default="", pattern=_ISSUER)
    oidc_claim: str = "scope"
    maximum_requests: int = Field(default=64, ge=1, le=1000)
    maximum_body_mb: float = Field(default=16384, gt=0)
    maximum_parts: int = Field(default=5000, ge=1)
    requests_per_second: float = Field(default=200, gt=0)
    address: Url | Literal[""] = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.key or self.client_ca) and not self.certificate:
            raise ValueError("key and client_ca need a certificate")
        if self.clients and not self.client_ca:
            raise ValueError("clients need client_ca, which tells whose certificates are good")
        if self.oidc_issuer and not self.oidc_audience:
            raise ValueError("oidc_issuer needs oidc_audience: the issuer's tokens for others must not open this node")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine itself can reach it."""
        return self.bind == "localhost" or (_is_address(self.bind) and ip_address(self.bind).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


class WorklistSection(Section):
    """Readings as workitems (UPS-RS)."""

    sources: tuple[WebService, ...] = ()


class SelfTest(Section):
    """The synthetic exam that goes the whole way."""

    port: int = Field(default=11119, ge=1, le=65535)
    time_limit: Seconds = 300
    expect_finding: bool = True
    keep_days: float = Field(default=1, gt=0)


class Log(Section):
    """How events are told."""

    format: Literal["auto", "journal", "json", "text"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """All settings of the node."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    dicom: Dicom = Dicom()
    storage: Storage = Storage()
    exam: ExamClock = ExamClock()
    jobs: Jobs = Jobs()
    reader: ReaderSection = ReaderSection()
    delivery: Delivery = Delivery()
    destinations: tuple[Destination, ...] = ()
    retention: Retention = Retention()
    http: Http = Http()
    worklist: WorklistSection = WorklistSection()
    selftest: SelfTest = SelfTest()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings passes it)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (as above)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before credentials before file."""
        path = settings_cls.model_config.get("toml_file")
        credentials = InitSettingsSource(settings_cls, _credentials())
        sources: tuple[PydanticBaseSettingsSource, ...] = (init_settings, env_settings, credentials)
        return (*sources, TomlConfigSettingsSource(settings_cls)) if path else sources

    @property
    def places(self) -> tuple[Destination, ...]:
        """All destinations, with the one that the self-test itself listens at."""
        here = Destination(
            name=TEST_DESTINATION,
            ae_title=TEST_AE_TITLE,
            host="127.0.0.1",
            port=self.selftest.port,
            quick_retries=600,
            first_retry=1,
            slowest_retry=1,
            give_up_days=self.selftest.time_limit / 86400,
            test=True,
        )
        return (*self.destinations, here)

    def masked(self) -> dict[str, Any]:
        """Return all values as JSON types, secrets masked."""
        return self.model_dump(mode="json")


def _credentials() -> dict[str, Any]:
    """Return the settings that systemd hands over as files, each named by its key: ``storage.database``."""
    folder = os.environ.get(CREDENTIALS_VARIABLE)
    found: dict[str, Any] = {}
    for path in sorted(Path(folder).iterdir()) if folder and Path(folder).is_dir() else ():
        section, _, key = path.name.removeprefix(CREDENTIALS_PREFIX).partition(".")
        if section in Settings.model_fields and key:
            found.setdefault(section, {})[key] = path.read_text(encoding="utf-8").rstrip("\n")
    return found


def load_settings(path: Path | None = None) -> Settings:
    """Read the settings file, then systemd's credentials, then the environment (``MAMMONODE_DICOM__PORT=104``).

    Parameters
    ----------
    path
        The file; without one, that of ``MAMMONODE_CONFIG``; without that, the defaults hold.

    Raises
    ------
    InvalidSettings
        When the file cannot be read, a key is unknown or a value is wrong: every fault with its path.
    """
    chosen = path or (Path(os.environ[FILE_VARIABLE]) if os.environ.get(FILE_VARIABLE) else None)
    if chosen is not None and not chosen.is_file():
        raise InvalidSettings([f"{chosen}: no such file"])

    class FromFile(Settings):
        model_config = SettingsConfigDict(toml_file=chosen)

    try:
        settings = FromFile()
    except ValidationError as error:
        raise InvalidSettings([_fault(fault) for fault in error.errors()]) from None
    except ValueError as error:  # TOML syntax
        raise InvalidSettings([f"{chosen}: {error}"]) from None
    names = [destination.name for destination in settings.destinations]
    if len(set(names)) != len(names):
        raise InvalidSettings(["destinations: two have one name"])
    if TEST_DESTINATION in names:
        raise InvalidSettings([f"destinations.name: {TEST_DESTINATION} is taken by the node itself"])
    return settings


def changed_keys(former: Settings, latter: Settings) -> list[str]:
    """Return the path of every key that differs, for example ``dicom.port``; a whole list where something in it does."""
    changed = []
    for name in Settings.model_fields:
        one, other = getattr(former, name), getattr(latter, name)
        if isinstance(one, Section):
            keys = type(one).model_fields
            changed += [f"{name}.{key}" for key in keys if getattr(one, key) != getattr(other, key)]
        elif one != other:
            changed.append(name)
    return changed


def known_keys(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Return the path of every key, for example ``dicom.port`` and ``destinations.host``."""
    keys = []
    for name, field in section.model_fields.items():
        nested = _section_of(field.annotation)
        keys += known_keys(nested, f"{prefix}{name}.") if nested else [f"{prefix}{name}"]
    return keys


def _section_of(annotation: Any) -> type[BaseModel] | None:
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Section):
            return candidate
    return None


def _fault(fault: Any) -> str:
    path = ".".join(str(part) for part in fault["loc"] if not isinstance(part, int))
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path, known_keys() + list(Settings.model_fields), n=1, cutoff=0.5)
        return f"{path}: unknown key" + (f"; did you mean {near[0]}?" if near else "")
    return f"{path}: {fault['msg']}"
