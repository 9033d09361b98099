"""Media interchange, character sets and security (PS3.2 A.5 to A.7)."""

from collections.abc import Iterator

from config.settings import Settings


def media() -> Iterator[str]:
    """Yield media interchange: there is none."""
    yield "## 5 Media Interchange"
    yield "Not supported."


def character_sets() -> Iterator[str]:
    """Yield the support of character sets."""
    yield "## 6 Support of Character Sets"
    yield (
        "Received instances are stored as they are, in whatever Specific Character Set. An object that is sent has the "
        "Specific Character Set of the image that it inherits from, and its patient's name unchanged, also where that "
        "name does not obey its character set. What the node writes itself is of the default repertoire (ISO_IR 6), "
        "which every character set contains; other characters of a model's name or notes become question marks. A Private "
        "or unknown character set is inherited like any other."
    )


def security(settings: Settings) -> Iterator[str]:
    """Yield security."""
    dicom = settings.dicom
    yield "## 7 Security"
    yield "### 7.1 Security Profiles"
    yield (
        "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile (PS3.15 B.12), as acceptor and as requestor: TLS 1.2 "
        "with ECDHE and AES-GCM or ChaCha20-Poly1305, or TLS 1.3; without fallback. Certificates are verified up to the "
        "authorities that the settings name, and against their revocation lists where these are given. "
        + _as_configured(settings)
        + " Audit Trail Message Format Profile and Audit Trail Message Transmission Profile - SYSLOG-TLS (PS3.15 A.5, A.6): "
        "patients by Patient ID, never by name. No User Identity, no digital signatures."
    )
    yield "### 7.2 Association Level Security"
    yield (
        f"The called AE title is {'checked' if dicom.require_called_ae else 'not checked'}. Callers are "
        + (
            "not checked."
            if dicom.allow_unknown_callers
            else "checked by AE title and, where it is stated, IP address."
        )
        + (
            " Neither is an authentication: keep the node in a protected network."
            if not (settings.tls.listen and settings.tls.mutual)
            else " Beyond that they show a certificate, to which an AE title may be bound."
        )
    )
    yield "### 7.3 Application Level Security"
    yield (
        "None. Received images lie in the store as they were sent. Log lines name exams, instances and AE titles, and no "
        "patient. The shown configuration has no secret in it."
    )


def _as_configured(settings: Settings) -> str:
    if not settings.tls.listen:
        door = "As configured here, the node listens without TLS"
    elif settings.tls.mutual:
        door = "As configured here, the node listens with TLS only, and callers must show a certificate"
    else:
        door = "As configured here, the node listens with TLS only, and callers may do without a certificate"
    over = [destination.name for destination in settings.destinations if destination.tls]
    return f"{door}; {', '.join(over) if over else 'no destination'} is called over TLS."
