"""Settings: one TOML file, overridable by environment, refused when a key is unknown or a value is wrong."""

from config.settings.destinations import TEST_DESTINATION, Delivery, Destination, Proof, WebService
from config.settings.dicom import TEST_AE_TITLE, Caller, Dicom, Tls
from config.settings.loading import (
    CREDENTIALS_PREFIX,
    CREDENTIALS_VARIABLE,
    DEFAULT_FILE,
    ENVIRONMENT_PREFIX,
    FILE_VARIABLE,
    Settings,
    changed_keys,
    known_keys,
    load_settings,
)
from config.settings.node import (
    Audit,
    ExamClock,
    Jobs,
    Log,
    ReaderSection,
    Recall,
    Retention,
    SelfTest,
    Storage,
    WorklistSection,
)
from config.settings.section import AETitle, FileName, Port, Seconds, Section, Url
from config.settings.web import Client, Http, Scope

__all__ = [
    "CREDENTIALS_PREFIX",
    "CREDENTIALS_VARIABLE",
    "DEFAULT_FILE",
    "ENVIRONMENT_PREFIX",
    "FILE_VARIABLE",
    "TEST_AE_TITLE",
    "TEST_DESTINATION",
    "AETitle",
    "Audit",
    "Caller",
    "Client",
    "Delivery",
    "Destination",
    "Dicom",
    "ExamClock",
    "FileName",
    "Http",
    "Jobs",
    "Log",
    "Port",
    "Proof",
    "ReaderSection",
    "Recall",
    "Retention",
    "Scope",
    "Seconds",
    "Section",
    "SelfTest",
    "Settings",
    "Storage",
    "Tls",
    "Url",
    "WebService",
    "WorklistSection",
    "changed_keys",
    "known_keys",
    "load_settings",
]
