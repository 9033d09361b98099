"""The DICOM door, and TLS for it and for destinations."""

from ipaddress import ip_address
from typing import Self

from pydantic import Field, field_validator, model_validator

from config.settings.section import AETitle, FileName, Host, Port, Seconds, Section

TEST_AE_TITLE = "MAMMONODE-TEST"
"""Under it the node calls itself, to see whether its own doors are tended and its self-test comes through."""


class Caller(Section):
    """An application entity that may send to this node."""

    ae_title: AETitle
    address: str = ""
    host: Host = ""
    port: Port = 0
    subject: str = ""
    tls: bool = False

    @field_validator("address")
    @classmethod
    def _as_the_door_sees_it(cls, text: str) -> str:
        if not text.strip():
            return ""
        try:
            found = ip_address(text.strip())
        except ValueError:
            raise ValueError(f"{text!r} is no IP address; host names and networks are not looked up here") from None
        mapped = getattr(found, "ipv4_mapped", None)
        return f"::ffff:{mapped}" if mapped else str(found)


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


class Tls(Section):
    """TLS for DICOM (PS3.15 B.12), at the door and to whoever is called over it."""

    listen: bool = False
    certificate: FileName = ""
    key: FileName = ""
    ca: FileName = ""
    revoked: FileName = ""
    mutual: bool = True

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.listen and not self.certificate:
            raise ValueError("listen needs a certificate")
        if self.listen and self.mutual and not self.ca:
            raise ValueError("mutual needs ca, which tells whose certificates are good")
        if self.key and not self.certificate:
            raise ValueError("key needs a certificate")
        if self.revoked and not self.ca:
            raise ValueError("revoked needs ca, whose list it is")
        return self
