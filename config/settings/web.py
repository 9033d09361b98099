"""The HTTP door."""

from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Self

from pydantic import Field, model_validator

from config.settings.section import FileName, Port, Section, UrlOrNone, written

Issuer = Annotated[
    str,
    written(
        r"|https://\S+|http://(127\.0\.0\.1|localhost|\[::1\])[:/]\S*",
        "must begin with https://, or with http:// and is on this machine (localhost)",
    ),
]
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
    certificate: FileName = ""
    key: FileName = ""
    client_ca: FileName = ""
    clients: tuple[Client, ...] = ()
    oidc_issuer: Issuer = ""
    oidc_audience: str = ""
    oidc_jwks: Issuer = ""
    oidc_claim: str = "scope"
    maximum_requests: int = Field(default=64, ge=1, le=1000)
    maximum_body_mb: float = Field(default=16384, gt=0)
    maximum_parts: int = Field(default=5000, ge=1)
    requests_per_second: float = Field(default=200, gt=0)
    network_timeout: float = Field(default=60, gt=0)
    address: UrlOrNone = ""

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
