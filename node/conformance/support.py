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
    yield "None: no Secure Transport Connection (TLS), no User Identity, no digital signatures, no audit trail messages."
    yield "### 7.2 Association Level Security"
    yield (
        f"The called AE title is {'checked' if dicom.require_called_ae else 'not checked'}. Callers are "
        + (
            "not checked."
            if dicom.allow_unknown_callers
            else "checked by AE title and, where it is stated, IP address."
        )
        + " Neither is an authentication: keep the node in a protected network."
    )
    yield "### 7.3 Application Level Security"
    yield (
        "None. Received images lie in the store as they were sent. Log lines name exams, instances and AE titles, and no "
        "patient. The shown configuration has no secret in it."
    )
