"""What goes on within the node: storage, the exam clock, jobs, the reader, retention, worklist, self-test, log, audit."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, SecretStr, model_validator

from config.policy import (
    BucketPlace,
    CompletionPolicy,
    PriorPolicy,
    RecallLimit,
    RetentionPolicy,
    RetryPolicy,
    ScorePolicy,
    Watermark,
)
from config.settings.destinations import WebService
from config.settings.section import AETitle, FileName, Host, Seconds, Section, UrlOrNone, written


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


class Bucket(Section):
    """An S3-compatible bucket that files are kept in."""

    url: Annotated[
        str,
        written(
            r"(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?)?",
            "must be s3:// and the bucket's name, and perhaps / and a folder; the host is bucket.endpoint",
        ),
    ] = ""
    endpoint: UrlOrNone = ""
    region: str = Field(default="us-east-1", min_length=1)
    access_key_id: str = ""
    secret_access_key: SecretStr = SecretStr("")
    ca: FileName = ""
    plain_http: bool = False
    keep_gb: float = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.url and not (self.access_key_id and self.secret_access_key.get_secret_value()):
            raise ValueError("url needs access_key_id and secret_access_key")
        if self.endpoint.startswith("http:") and not self.plain_http:
            raise ValueError("endpoint without TLS shows images to the network: only with plain_http = true")
        return self

    @property
    def place(self) -> BucketPlace | None:
        """The same as a value; None without a bucket."""
        if not self.url:
            return None
        name, _, prefix = self.url.removeprefix("s3://").partition("/")
        return BucketPlace(
            name,
            prefix.strip("/"),
            self.endpoint.rstrip("/"),
            self.region,
            self.access_key_id,
            self.secret_access_key.get_secret_value(),
            self.ca,
            self.plain_http,
            int(self.keep_gb * 1e9),
        )


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
            give_up_after=timedelta.max,  # a machine that was off for a week has tried nothing meanwhile
            attempts=self.attempts,
        )


class Recall(Section):
    """From which exam score on a site looks twice, for all senders or some."""

    senders: tuple[AETitle, ...] = ()
    score: int = Field(ge=1, le=100)
    band: int = Field(default=0, ge=0, le=50)


DEFAULT_MODEL: Final = "mass-fpn-pair"
"""What reads where nobody says otherwise; it ships with the node."""


class ReaderSection(Section):
    """Which model reads, where, and what the site makes of its scores."""

    model: str = DEFAULT_MODEL
    models_folder: Path = Path("models")
    device: Annotated[
        str, written(r"auto|cpu|cuda(:\d+)?", "must be auto, cpu, cuda or one of several GPUs (cuda:1)")
    ] = "auto"
    threads: int = Field(default=0, ge=0)
    runtime: Literal["torch", "torch-half", "openvino"] = "torch"
    prevalence: float = Field(default=0, ge=0, lt=1)
    recall: tuple[Recall, ...] = ()

    @property
    def scoring(self) -> ScorePolicy:
        """What the site makes of scores, as a policy value."""
        return ScorePolicy(
            self.prevalence or None, tuple(RecallLimit(each.score, each.band, each.senders) for each in self.recall)
        )


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


class Audit(Section):
    """The audit trail (PS3.15 A.5), and who is told it."""

    source_id: str = Field(default="mammonode", min_length=1)
    site_id: str = ""
    syslog_host: Host = ""
    syslog_port: int = Field(default=6514, ge=1, le=65535)
    ca: FileName = ""
    certificate: FileName = ""
    key: FileName = ""
    file: str = ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.syslog_host and not self.ca:
            raise ValueError("syslog_host needs ca, which tells whether it is the right one")
        if self.key and not self.certificate:
            raise ValueError("key needs a certificate")
        return self
