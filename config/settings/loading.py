"""All settings, and how they are read: environment before systemd's credentials before file."""

import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from config.errors import InvalidSettings
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
DEFAULT_FILE = Path(__file__).parents[1] / "mammonode.toml"


class Settings(Section):
    """All settings of the node."""

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


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib  # noqa: PLC0415 (commands without a file spare the time of its import)

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidSettings([f"{path}: {error.strerror}"]) from None
    except ValueError as error:
        raise InvalidSettings([f"{path}: {error}"]) from None


def _from_credentials(folder: Path) -> dict[str, Any]:
    """Return the settings that systemd hands over as files, each named by its key: ``storage.database``.

    Where the setting is itself the name of a file, as ``tls.key`` is, it is that of the credential.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        section, _, key = path.name.removeprefix(CREDENTIALS_PREFIX).partition(".")
        if section in Settings.model_fields and key:
            text = str(path) if _names_a_file(section, key) else path.read_text(encoding="utf-8").rstrip("\n")
            found.setdefault(section, {})[key] = text
    return found


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings that variables give, ``MAMMONODE_SECTION__KEY``; lists, and whole sections, as JSON."""
    sections: dict[str, Any] = {}
    keys: dict[str, dict[str, Any]] = {}
    for variable, text in environment.items():
        name = variable.upper()
        section, delimiter, key = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
        if not name.startswith(ENVIRONMENT_PREFIX):
            continue
        if delimiter:
            keys.setdefault(section, {})[key] = _json(name, text) if _is_list(section, key) else text
        elif section in Settings.model_fields:
            sections[section] = _json(name, text)
    return _laid_over(sections, keys)


def _json(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:  # which tells nothing of the text, a secret perhaps
        raise InvalidSettings([f"{name}: not JSON: {error}"]) from None


def _laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    both = (name for name in base.keys() & top if isinstance(base[name], dict) and isinstance(top[name], dict))
    return base | top | {name: base[name] | top[name] for name in both}


def _is_list(section: str, key: str) -> bool:
    field = _field(section, key)
    return field is not None and get_origin(field.annotation) is tuple


def _names_a_file(section: str, key: str) -> bool:
    field = _field(section, key)
    return field is not None and A_FILE in field.metadata


def _field(section: str, key: str) -> FieldInfo | None:
    table = _section_of(Settings.model_fields[section].annotation) if section in Settings.model_fields else None
    return table.model_fields.get(key) if table else None


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

    values = _from_file(chosen) if chosen else {}
    values = _laid_over(values, _from_credentials(Path(os.environ.get(CREDENTIALS_VARIABLE, os.devnull))))
    values = _laid_over(values, _from_environment(os.environ))
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise InvalidSettings([_fault(fault) for fault in error.errors()]) from None
    names = [destination.name for destination in settings.destinations]
    if len(set(names)) != len(names):
        raise InvalidSettings(["destinations: two have one name"])
    if TEST_DESTINATION in names:
        raise InvalidSettings([f"destinations.name: {TEST_DESTINATION} is taken by the node itself"])
    if not settings.tls.listen and any(caller.subject for caller in settings.dicom.callers):
        raise InvalidSettings(["dicom.callers.subject: only with tls.listen does anybody show a certificate"])
    secured = [destination.name for destination in settings.destinations if destination.tls]
    secured += [caller.ae_title for caller in settings.dicom.callers if caller.tls]
    if secured and not settings.tls.ca:
        raise InvalidSettings([f"tls.ca: {', '.join(secured)} need it, which tells whose certificates are good"])
    if settings.bucket.url and settings.retention.watermark_percent:
        raise InvalidSettings(["retention.watermark_percent: a bucket is never full; use sources_days"])
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
