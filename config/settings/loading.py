"""All settings, and how they are read: environment before systemd's credentials before file."""

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from config.errors import InvalidSettings
from config.mix import ResultKind
from config.settings.destinations import TEST_DESTINATION, Delivery, Destination
from config.settings.dicom import TEST_AE_TITLE, Dicom, Tls
from config.settings.node import (
    Audit,
    Bucket,
    ExamClock,
    Jobs,
    Log,
    ReaderSection,
    Retention,
    SelfTest,
    Storage,
    WorklistSection,
)
from config.settings.section import A_FILE, Section
from config.settings.web import Http

ENVIRONMENT_PREFIX = "MAMMONODE_"
FILE_VARIABLE = "MAMMONODE_CONFIG"
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"
"""Where systemd puts what LoadCredential= names (systemd.exec(5))."""
CREDENTIALS_PREFIX = "mammonode_"
"""Before the name of each file of a folder that is loaded as the credential ``mammonode``."""
ANY = "0.0.0.0"  # noqa: S104 (compared, not bound)
DEFAULT_FILE = Path(__file__).parents[1] / "mammonode.toml"


class Settings(BaseSettings):
    """All settings of the node; what it is called with stands behind the environment and systemd's credentials."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    dicom: Dicom = Dicom()
    tls: Tls = Tls()
    storage: Storage = Storage()
    bucket: Bucket = Bucket()
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
    audit: Audit = Audit()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (pydantic-settings passes it)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (as above)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before credentials before what the file says."""
        return env_settings, InitSettingsSource(settings_cls, _from_credentials()), init_settings

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

    @property
    def addressed(self) -> Mapping[str, tuple[ResultKind, ...]]:
        """The kinds of objects that each of the places is to get, by its name."""
        return {place.name: place.mix.objects for place in self.places}

    def masked(self) -> dict[str, Any]:
        """Return all values as JSON types, secrets masked."""
        return self.model_dump(mode="json")


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 (commands without a file spare the time of its import)

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings([f"{path}: {error.strerror}"]) from None
    except ValueError as error:
        raise InvalidSettings([f"{path}: {error}"]) from None


def _from_credentials() -> dict[str, Any]:
    """Return the settings that systemd hands over as files, each named by its key: ``storage.database``.

    Where the setting is itself the name of a file, as ``tls.key`` is, it is that of the credential.
    """
    folder = Path(os.environ.get(CREDENTIALS_VARIABLE, os.devnull))
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        section, _, key = path.name.removeprefix(CREDENTIALS_PREFIX).partition(".")
        if section in Settings.model_fields and key:
            text = str(path) if _names_a_file(section, key) else path.read_text(encoding="utf-8").rstrip("\n")
            found.setdefault(section, {})[key] = text
    return found


def _names_a_file(section: str, key: str) -> bool:
    table = _section_of(Settings.model_fields[section].annotation)
    field = table.model_fields.get(key) if table else None
    return field is not None and A_FILE in field.metadata


def _unknown_sections(variables: Iterable[str]) -> Iterator[str]:
    """Yield the sections of variables ``MAMMONODE_SECTION__KEY`` that there are none of; pydantic-settings passes them over."""
    for name in variables:
        section, delimiter, _ = name.upper().removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if name.upper().startswith(ENVIRONMENT_PREFIX) and delimiter and section not in Settings.model_fields:
            yield section


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

    values = dict.fromkeys(_unknown_sections(os.environ)) | (_from_file(chosen) if chosen else {})
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise InvalidSettings([_fault(fault) for fault in error.errors()]) from None
    except SettingsError as error:  # which tells nothing of the text, a secret perhaps
        raise InvalidSettings([f"environment: {error}: lists are given as JSON"]) from None
    if faults := list(_contradictions(settings)):
        raise InvalidSettings(faults)
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yield what does not go together though each table is right by itself."""
    names = [destination.name for destination in settings.destinations]
    if len(set(names)) != len(names):
        yield "destinations: two have one name"
    if TEST_DESTINATION in names:
        yield f"destinations.name: {TEST_DESTINATION} is taken by the node itself"
    if not settings.tls.listen and any(caller.subject for caller in settings.dicom.callers):
        yield "dicom.callers.subject: only with tls.listen does anybody show a certificate"
    secured = [destination.name for destination in settings.destinations if destination.tls]
    secured += [caller.ae_title for caller in settings.dicom.callers if caller.tls]
    if secured and not settings.tls.ca:
        yield f"tls.ca: {', '.join(secured)} need it, which tells whose certificates are good"
    if settings.bucket.url and settings.retention.watermark_percent:
        yield "retention.watermark_percent: a bucket is never full; use sources_days"
    dicom, http = settings.dicom, settings.http
    if http.enabled and http.port and http.port == dicom.port and _meet(http.bind, dicom.bind):
        yield f"http.port: {http.port} is dicom.port too, at the same address"


def _meet(one: str, other: str) -> bool:
    """Tell whether two doors at one port would be in each other's way."""
    found = {"127.0.0.1" if bind == "localhost" else bind or ANY for bind in (one, other)}
    return len(found) == 1 or any(every in found and len({":" in bind for bind in found}) == 1 for every in (ANY, "::"))


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
    which = "".join(f" (number {part + 1})" for part in fault["loc"] if isinstance(part, int))
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(path, known_keys() + list(Settings.model_fields), n=1, cutoff=0.5)
        return f"{path}: unknown key{which}" + (f"; did you mean {near[0]}?" if near else "")
    return f"{path}: {fault['msg'].removeprefix('Value error, ')}{which}"
