"""Media types and their negotiation (PS3.18 8.7, RFC 9110 12.5.1)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom import uid
from starlette.requests import Request

from node.errors import BadRequest, NotAcceptable

DICOM: Final = "application/dicom"
DICOM_JSON: Final = "application/dicom+json"
DICOM_XML: Final = "application/dicom+xml"
OCTETS: Final = "application/octet-stream"
RELATED: Final = "multipart/related"
JPEG: Final = "image/jpeg"
PNG: Final = "image/png"
AS_STORED: Final = "*"
"""Of a transfer syntax: whichever it has (PS3.18 8.7.3.5.2)."""
NATIVE: Final = str(uid.ExplicitVRLittleEndian)
"""What is given when no transfer syntax is asked for (PS3.18 8.7.3.2)."""

LONGEST_ACCEPT: Final = 8192

IMAGES: Final[Mapping[str, str]] = MappingProxyType(
    {
        **dict.fromkeys(
            map(str, (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)), JPEG
        ),
        **dict.fromkeys(map(str, (uid.JPEGLSLossless, uid.JPEGLSNearLossless)), "image/jls"),
        **dict.fromkeys(map(str, (uid.JPEG2000Lossless, uid.JPEG2000)), "image/jp2"),
        **dict.fromkeys(map(str, (uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)), "image/jphc"),
        str(uid.RLELossless): "image/dicom-rle",
    }
)
"""Transfer syntax → media type of its frames (PS3.18 table 8.7.3-2)."""

_TOKEN: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z/-]+"  # noqa: S105 - of RFC 9110; the slash for type=application/dicom
_PARAMETER: Final = re.compile(rf'\s*;\s*({_TOKEN})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_RANGE: Final = re.compile(rf"\s*({_TOKEN})")


@dataclass(frozen=True)
class MediaType:
    """A media type or range with its parameters; names in lower case, and so is the value of ``type``."""

    name: str
    parameters: Mapping[str, str]

    @property
    def is_multipart(self) -> bool:
        """Whether it is of several parts."""
        return self.name.startswith("multipart/")

    @property
    def content(self) -> str:
        """The media range of what is inside: of the parts, or of the one that it is."""
        return self.parameters.get("type", "*/*") if self.is_multipart else self.name

    @property
    def transfer_syntax(self) -> str | None:
        """The one that is named, `AS_STORED`, or None."""
        return self.parameters.get("transfer-syntax")

    @property
    def quality(self) -> float:
        """How much it is wanted, 0 to 1."""
        try:
            return min(max(float(self.parameters.get("q", "1")), 0.0), 1.0)
        except ValueError:
            return 0.0

    def takes(self, name: str) -> bool:
        """Tell whether what is inside may be of this media type."""
        kind, _, sub = self.content.partition("/")
        return (kind in {"*", name.partition("/")[0]}) and sub in {"*", name.partition("/")[2]}


def parse_media_types(text: str) -> list[MediaType]:
    """Return the elements of an Accept or Content-Type header, the most wanted first.

    Raises
    ------
    BadRequest
        When it is none.
    """
    found, at = list[MediaType](), 0
    while text[at:].strip():
        named = _RANGE.match(text, at)
        if named is None:
            raise BadRequest("not a media type")
        at, parameters = named.end(), {}
        while parameter := _PARAMETER.match(text, at):
            at = parameter.end()
            value = re.sub(r"\\(.)", r"\1", parameter[2]) if parameter[2] is not None else parameter[3]
            name = parameter[1].lower()
            parameters[name] = value.lower() if name == "type" else value
        found.append(MediaType(named[1].lower(), MappingProxyType(parameters)))
        rest = text[at:].lstrip(" \t;")
        if rest and not rest.startswith(","):
            raise BadRequest("not a media type")
        at = len(text) - len(rest) + 1 if rest else len(text)
    return sorted(found, key=lambda each: -each.quality)


def accepted(request: Request) -> list[MediaType]:
    """Return what a request accepts, the most wanted first: the query parameter before the header (PS3.18 8.3.3.1).

    Raises
    ------
    BadRequest
        When that cannot be understood.
    """
    text = request.query_params.get("accept") or ",".join(request.headers.getlist("accept"))
    if len(text) > LONGEST_ACCEPT:
        raise BadRequest("Accept is too long")
    types = [each for each in parse_media_types(text) if each.quality > 0] if text.strip() else []
    if text.strip() and not types:
        raise NotAcceptable
    return types or [MediaType("*/*", MappingProxyType({}))]


def chosen(request: Request, offers: Sequence[str]) -> MediaType:
    """Return the first range that takes one of the offers, each of which is one document or, in XML, several parts.

    The answer has the offer as its ``name``.

    Raises
    ------
    NotAcceptable
        When none does.
    """
    for wanted in accepted(request):
        for offer in offers:
            if wanted.takes(offer):
                return MediaType(offer, wanted.parameters)
    raise NotAcceptable(f"here are {', '.join(offers)}")


@dataclass(frozen=True)
class Form:
    """How instances or frames are wanted.

    Attributes
    ----------
    multipart
        Several parts, or the one as it is.
    syntaxes
        Transfer syntaxes, the most wanted first, or `AS_STORED`.
    """

    multipart: bool
    syntaxes: tuple[str, ...]

    def syntax_of(self, stored: str) -> str | None:
        """Return the transfer syntax in which what is stored in one is given, or None when no form is acceptable."""
        if AS_STORED in self.syntaxes or stored in self.syntaxes:
            return stored
        return NATIVE if NATIVE in self.syntaxes else None


def instance_form(request: Request, *, single: bool) -> Form:
    """Return how a request wants instances as DICOM files; one alone may be wanted without parts.

    Raises
    ------
    NotAcceptable
        When it does not.
    """
    return _form(accepted(request), DICOM, single=single, default=(NATIVE,))


def frame_form(request: Request, *, single: bool, stored: str) -> Form:
    """Return how a request wants the frames of an instance that is stored in a transfer syntax.

    Raises
    ------
    NotAcceptable
        When it does not.
    """
    image, wanted = IMAGES.get(stored), list[MediaType]()
    for each in accepted(request):
        syntax = each.transfer_syntax
        if each.takes(OCTETS):
            wanted.append(each)
        elif image and each.takes(image) and syntax in {None, AS_STORED, stored}:
            return Form(each.is_multipart or not single, (stored,))
    return _form(wanted, OCTETS, single=single, default=(NATIVE,))


def _form(wanted: Sequence[MediaType], name: str, *, single: bool, default: tuple[str, ...]) -> Form:
    multipart, syntaxes = None, list[str]()
    for each in wanted:
        if not each.takes(name) or (each.name == name and not single):
            continue
        if multipart is None:
            multipart = not single or each.name != name
        if each.transfer_syntax:
            syntaxes.append(each.transfer_syntax)
        else:
            syntaxes += default
    if multipart is None:
        raise NotAcceptable(f"here is {name}")
    return Form(multipart, tuple(dict.fromkeys(syntaxes)))
