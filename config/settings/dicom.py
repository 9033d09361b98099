"""The DICOM door."""

from pydantic import Field

from config.settings.section import AETitle, Port, Seconds, Section

TEST_AE_TITLE = "MAMMONODE-TEST"
"""Under it the node calls itself, to see whether its own doors are tended and its self-test comes through."""


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
