"""TLS for DICOM (PS3.15 B.12, BCP 195): what the files of [tls] say, read at once or not at all, and how handshakes end."""

import re
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from threading import Lock
from typing import Any, Final, Self, cast

from cryptography import x509

from config.settings import Tls
from node.errors import TlsUnusable

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those that RFC 9325 4.2 recommends, all with forward secrecy; TLS 1.3 has no others."""

ANYBODY: Final = "*"
"""In place of a subject: any certificate of the authorities."""

CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)

SHORT: Final = {
    "commonName": "CN",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "stateOrProvinceName": "ST",
    "localityName": "L",
    "domainComponent": "DC",
    "serialNumber": "serialNumber",
    "emailAddress": "emailAddress",
}
"""Attribute types as RFC 2253 and OpenSSL write them."""

Certificate = dict[str, Any]
"""As ``SSLSocket.getpeercert`` returns it."""


class Fault(StrEnum):
    """Why a handshake failed, said of the other side."""

    UNKNOWN_AUTHORITY = "its certificate is of an authority that is not in tls.ca"
    EXPIRED = "its certificate has expired"
    NOT_YET = "its certificate is not valid yet: is a clock wrong?"
    REVOKED = "its certificate is revoked"
    NO_CERTIFICATE = "it showed no certificate"
    ANOTHER = "its certificate is somebody else's"
    ANOTHER_HOST = "its certificate is not for the host that is called: correct host, or say its subject"
    UNFIT = "its certificate is not one for this purpose"
    LIST_UNUSABLE = "there is no current revocation list of its authority in tls.revoked"
    OURS_REFUSED = "it does not take this node's certificate"
    NOTHING_IN_COMMON = "it offers no version and no cipher suite of BCP 195"
    NO_TLS = "it does not speak TLS at this port"
    TOO_LATE = "it did not end the handshake in time"
    OTHER = "the handshake failed"


VERIFICATION: Final = {
    3: Fault.LIST_UNUSABLE,
    9: Fault.NOT_YET,
    10: Fault.EXPIRED,
    11: Fault.LIST_UNUSABLE,
    12: Fault.LIST_UNUSABLE,
    **dict.fromkeys((2, 7, 18, 19, 20, 21, 24), Fault.UNKNOWN_AUTHORITY),
    23: Fault.REVOKED,
    26: Fault.UNFIT,
    **dict.fromkeys((62, 63, 64), Fault.ANOTHER_HOST),
}
"""By OpenSSL's code (x509_vfy.h)."""

REASONS: Final = (
    ("PEER_DID_NOT_RETURN_A_CERTIFICATE", Fault.NO_CERTIFICATE),
    ("ALERT_PROTOCOL_VERSION", Fault.NOTHING_IN_COMMON),
    ("ALERT_HANDSHAKE_FAILURE", Fault.NOTHING_IN_COMMON),
    ("ALERT_INSUFFICIENT_SECURITY", Fault.NOTHING_IN_COMMON),
    ("NO_SHARED_CIPHER", Fault.NOTHING_IN_COMMON),
    ("NO_SHARED_GROUP", Fault.NOTHING_IN_COMMON),
    ("NO_PROTOCOLS_AVAILABLE", Fault.NOTHING_IN_COMMON),
    ("UNSUPPORTED_PROTOCOL", Fault.NOTHING_IN_COMMON),
    ("VERSION_TOO_LOW", Fault.NOTHING_IN_COMMON),
    ("ALERT_CERTIFICATE", Fault.OURS_REFUSED),
    ("ALERT_BAD_CERTIFICATE", Fault.OURS_REFUSED),
    ("ALERT_UNSUPPORTED_CERTIFICATE", Fault.OURS_REFUSED),
    ("ALERT_NO_CERTIFICATE", Fault.OURS_REFUSED),
    ("ALERT_UNKNOWN_CA", Fault.OURS_REFUSED),
    ("ALERT_ACCESS_DENIED", Fault.OURS_REFUSED),
    ("WRONG_VERSION_NUMBER", Fault.NO_TLS),
    ("RECORD_LAYER_FAILURE", Fault.NO_TLS),
    ("PACKET_LENGTH_TOO_LONG", Fault.NO_TLS),
    ("UNEXPECTED_EOF", Fault.NO_TLS),
)
"""By a part of OpenSSL's reason, the first that fits; alerts (RFC 8446 6.2) are the other side's words."""


class AnotherSubject(ssl.SSLError):
    """A good certificate, of somebody else."""


def fault_of(error: OSError) -> Fault:
    """Return why a handshake failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return VERIFICATION.get(error.verify_code, Fault.OTHER)
    if isinstance(error, AnotherSubject):
        return Fault.ANOTHER
    if isinstance(error, TimeoutError):
        return Fault.TOO_LATE
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).upper().replace(" ", "_")
        return next((fault for part, fault in REASONS if part in reason), Fault.OTHER)
    return Fault.NO_TLS if isinstance(error, ConnectionError) else Fault.OTHER


def subject(certificate: Certificate) -> str:
    """Return a certificate's subject as RFC 2253 writes it: the last part first."""
    parts = [
        "+".join(f"{SHORT.get(kind, kind)}={_escaped(value)}" for kind, value in part)
        for part in certificate.get("subject", ())
    ]
    return ",".join(reversed(parts))


def common_name(certificate: Certificate) -> str:
    """Return a certificate's CN, '' without one."""
    return next((value for part in certificate.get("subject", ()) for kind, value in part if kind == "commonName"), "")


def is_of(certificate: Certificate, wanted: str) -> bool:
    """Tell whether a certificate is of a subject, or has it as its CN; '' and ``*`` want nobody in particular."""
    return wanted in {"", ANYBODY, subject(certificate), common_name(certificate)}


def _escaped(value: str) -> str:
    escaped = "".join(f"\\{letter}" if letter in ',+"\\<>;' else letter for letter in value)
    return f"\\{escaped}" if escaped.startswith(("#", " ")) else escaped


@dataclass(frozen=True)
class Dated:
    """Something that is good until some time.

    Attributes
    ----------
    what
        The key that names it, or whose it is.
    subject
        Of the certificate; of a revocation list, its issuer.
    ends
        When.
    """

    what: str
    subject: str
    ends: datetime


class Seen:
    """Certificates that others have shown, so that somebody can be told before they end; the latest of each."""

    MOST = 200

    def __init__(self) -> None:
        self._lock = Lock()
        self._of: dict[str, Dated] = {}

    def note(self, whose: str, certificate: Certificate) -> None:
        """Keep when a certificate ends; beyond so many of others, the oldest is forgotten."""
        if not certificate.get("notAfter"):
            return
        ends = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
        with self._lock:
            self._of.pop(whose, None)
            self._of[whose] = Dated(whose, subject(certificate), ends)
            if len(self._of) > self.MOST:
                del self._of[next(iter(self._of))]

    def all(self) -> list[Dated]:
        """Return what is known."""
        with self._lock:
            return list(self._of.values())


@dataclass(frozen=True)
class Transport:
    """What [tls] comes to: a context for the door, one for calls, and how long the files are good.

    Attributes
    ----------
    door
        None where the door listens without TLS.
    calls
        To whom must have a certificate for the host that is called; None where there is no authority to judge by.
    calls_to_subjects
        To whom must have a certificate of a certain subject.
    files
        Certificates and revocation lists that were read.
    seen
        What the other sides have shown.
    """

    door: ssl.SSLContext | None
    calls: ssl.SSLContext | None
    calls_to_subjects: ssl.SSLContext | None
    files: tuple[Dated, ...]
    seen: Seen

    @classmethod
    def open(cls, settings: Tls, seen: Seen | None = None, section: str = "tls") -> Self:
        """Read the files.

        Parameters
        ----------
        seen
            Of whom this one follows.
        section
            Of the settings, which names the files.

        Raises
        ------
        TlsUnusable
            When one cannot be read, or does not fit to another; then nothing of it holds.
        """
        files = [
            *certificates(settings.certificate, f"{section}.certificate"),
            *certificates(settings.ca, f"{section}.ca"),
            *_revocation_lists(settings.revoked),
        ]
        door = _context(ssl.PROTOCOL_TLS_SERVER, settings, section) if settings.listen else None
        if door:
            door.sslsocket_class = _Closing
            door.verify_mode = ssl.CERT_REQUIRED if settings.mutual else ssl.CERT_OPTIONAL
            # What is resumed is not verified again: each handshake shall be whole.
            door.num_tickets = 0
            door.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
        calls = _calling(settings, section) if settings.ca else None
        to_subjects = _calling(settings, section) if settings.ca else None
        if to_subjects:
            to_subjects.check_hostname = False
        return cls(door, calls, to_subjects, tuple(files), seen or Seen())

    def call(self, wanted: str) -> "Call | None":
        """Return what makes one connection over TLS; None where there is no authority to judge the other side by.

        Parameters
        ----------
        wanted
            Subject or CN that its certificate must have; '' for one that is for the host which is called.
        """
        context = self.calls_to_subjects if wanted else self.calls
        return Call(context, wanted) if context else None

    def own_fault(self) -> Fault | None:
        """Return why this node, which knocks at its own door, would not be let in there; None where it would, or has none."""
        if self.door is None or self.calls_to_subjects is None:
            return None
        there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
        ends = self.calls_to_subjects.wrap_bio(here, there), self.door.wrap_bio(there, here, server_side=True)
        try:
            for end in ends * 3:  # so often does each have something to say (RFC 5246 7.3)
                with suppress(ssl.SSLWantReadError):
                    end.do_handshake()
        except ssl.SSLError as error:
            return fault_of(error)
        return None

    def require_current(self, now: datetime) -> None:
        """Refuse what has ended already.

        Raises
        ------
        TlsUnusable
            When this node's own certificate, or a revocation list, has.
        """
        for file in self.files:
            if file.what != "tls.ca" and file.ends <= now:
                raise TlsUnusable(f"{file.what}: {file.subject} ended {file.ends:%Y-%m-%d}")


def reason_of(error: Exception, key: bytes | None = None) -> str:
    """Return in words why a certificate or a key cannot be used.

    Parameters
    ----------
    key
        What the file of the key holds, where one was to be loaded: OpenSSL gives no reason for one with a password, or none.
    """
    if key is not None and b"PRIVATE KEY-----" not in key:
        return "no private key in PEM format"
    if key is not None and b"ENCRYPTED" in key:
        return "the key has a password, which nobody is there to type: openssl pkey -in KEY -out NEW writes it without"
    return str(getattr(error, "reason", None) or type(error).__name__).lower().replace("_", " ")


def _context(protocol: int, settings: Tls, section: str) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    trust_as_given(context)
    if settings.certificate:
        key = _read(settings.key or settings.certificate, f"{section}.key")
        try:
            # A key with a password fails: there is nobody to ask.
            context.load_cert_chain(settings.certificate, settings.key or None, password="")
        except (OSError, ValueError) as error:
            files = f"{section}.certificate = {settings.certificate} and {section}.key = {settings.key}"
            raise TlsUnusable(f"{files}: {reason_of(error, key)}") from error
    if settings.ca:
        context.load_verify_locations(settings.ca)
    if settings.revoked:
        context.load_verify_locations(settings.revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def trust_as_given(context: ssl.SSLContext) -> None:
    """Let an authority be good because its certificate is in the file, whether the root that has signed it is there or not."""
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def _calling(settings: Tls, section: str) -> ssl.SSLContext:
    context = _context(ssl.PROTOCOL_TLS_CLIENT, settings, section)
    context.sslsocket_class = _Watched
    return context


def certificates(name: str, key: str) -> list[Dated]:
    """Return when the certificates of a PEM file end; none for ''.

    Parameters
    ----------
    key
        Of the setting that names the file.

    Raises
    ------
    TlsUnusable
        When it cannot be read, or has none.
    """
    try:
        found = x509.load_pem_x509_certificates(_read(name, key)) if name else []
    except ValueError as error:
        raise TlsUnusable(f"{key} = {name}: no certificate in PEM format") from error
    return [Dated(key, one.subject.rfc4514_string(), one.not_valid_after_utc) for one in found]


def _revocation_lists(name: str) -> list[Dated]:
    key = "tls.revoked"
    if not name:
        return []
    try:
        found = [x509.load_pem_x509_crl(part) for part in CRL.findall(_read(name, key))]
    except ValueError as error:
        raise TlsUnusable(f"{key} = {name}: a revocation list that cannot be read") from error
    if not found:
        raise TlsUnusable(f"{key} = {name}: no revocation list in PEM format")
    never = datetime.max.replace(tzinfo=UTC)
    return [Dated(key, one.issuer.rfc4514_string(), one.next_update_utc or never) for one in found]


def _read(name: str, key: str) -> bytes:
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise TlsUnusable(f"{key} = {name}: {error.strerror}") from error


class _Closing(ssl.SSLSocket):
    """A connection that is closed also when the other side was quicker to end it."""

    def shutdown(self, how: int) -> None:
        """End it both ways; pynetdicom 3.0 goes on to close it only if this does not fail."""
        try:
            super().shutdown(how)
        except OSError:
            self.close()
            raise


class _Watched(_Closing):
    """A connection that keeps for its call what went wrong; whoever uses it hears only that it is closed."""

    call: "Call | None" = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 (the base's)
        """Shake hands, and see whose certificate it is."""
        try:
            super().do_handshake(block)
            if self.call:
                self.call.judge(cast("Certificate", self.getpeercert()))
        except OSError as error:
            self._note(error)
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read; with TLS 1.3 the other side judges our certificate only after the handshake."""
        try:
            return super().recv(buflen, flags)
        except ssl.SSLError as error:
            self._note(error)
            raise

    def _note(self, error: OSError) -> None:
        if self.call and self.call.fault is None:
            self.call.fault = fault_of(error)


class Call:
    """One connection to be made over TLS; pynetdicom takes it for the context, of which it wants ``wrap_socket`` only.

    Parameters
    ----------
    context
        For calls.
    wanted
        Subject or CN that the other side's certificate must have; '' for one that is for the host which is called.
    """

    def __init__(self, context: ssl.SSLContext, wanted: str) -> None:
        self._context = context
        self._wanted = wanted
        self.fault: Fault | None = None
        self.certificate: Certificate = {}

    def wrap_socket(self, plain: socket.socket, *, server_side: bool, server_hostname: str) -> ssl.SSLSocket:  # noqa: ARG002 (as of SSLContext)
        """Return the connection that will shake hands."""
        secured = cast("_Watched", self._context.wrap_socket(plain, server_hostname=server_hostname))
        secured.call = self
        return secured

    def judge(self, certificate: Certificate) -> None:
        """Keep the other side's certificate, also one that is refused.

        Raises
        ------
        AnotherSubject
            When it is somebody else's.
        """
        self.certificate = certificate
        if not is_of(certificate, self._wanted):
            raise AnotherSubject(subject(certificate))
