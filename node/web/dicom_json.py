"""Data sets in the DICOM JSON Model (PS3.18 F) and in the Native DICOM Model, which is XML (PS3.19 A.1)."""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any, Final
from xml.sax.saxutils import XMLGenerator
from xml.sax.xmlreader import AttributesImpl

from pydicom import DataElement, Dataset
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement, convert_raw_data_element
from pydicom.tag import BaseTag, Tag
from pydicom.valuerep import VR

from node.errors import TooManyLargeHeaders, UnparsableDataset
from node.records import LONGEST_VALUE, HeaderFile, Places, bulky, placed, require_inflatable, vr_of
from node.telemetry import logger

log = logger("web")

BULK: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
INLINE: Final = 1024
"""Bytes of a binary value that stand in the document itself; longer ones get an address of their own."""
VIEWERS: Final = Places(2, patience=5)
"""Those of all who ask for what is kept; to give the metadata of one large header takes up to 370 MB (measured)."""
DEEPEST: Final = 32
"""Levels of nested sequences that are given and taken."""
DEFERRED: Final = 65536
"""Bytes of a value that are not read with the header."""
UNDEFINED: Final = 0xFFFFFFFF
"""As a length (PS3.5 7.1.1)."""

VRS: Final = frozenset(vr.value for vr in VR if " " not in vr.value)
GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
"""Of the components of a person's name (PS3.18 F.2.2)."""
_TAG: Final = re.compile("[0-9A-Fa-f]{8}")

Model = dict[str, dict[str, Any]]
"""Tag as eight hexadecimal digits → VR and value."""
Address = Callable[[str], str]
"""Path of an element, tags and item numbers (`7FE00010`, `00081140/1/...`) → where its bulk data are."""


def open_dataset(path: Path) -> Dataset:
    """Read a file without its long values; these are read when they are asked for. A large header has a place until it is forgotten.

    What a header may not have is left out: sequences that together are too long, and too long values in those of undefined length.

    Raises
    ------
    UnparsableDataset
        When that cannot be done.
    TooManyLargeHeaders
        When no place became free for it.
    """
    try:
        require_inflatable(path)
        with HeaderFile(path, skips=True, places=VIEWERS) as file:
            dataset = placed(file, VIEWERS, defer_size=DEFERRED)
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnparsableDataset(type(error).__name__) from error
    except (UnparsableDataset, TooManyLargeHeaders):
        raise
    except Exception as error:  # pydicom raises whatever a garbled file provokes
        raise UnparsableDataset(type(error).__name__) from error
    for tag in bulky(dataset):
        raw: Any = dataset.get_item(tag, keep_deferred=True)
        if vr_of(raw) == "SQ":
            del dataset[tag]
    return dataset


def to_model(dataset: Dataset, address: Address) -> Model:
    """Return a data set; what cannot be represented is left out.

    Parameters
    ----------
    address
        Gives the BulkDataURI of what is too long to stand in the document.
    """
    return _model(dataset, address, "", 0)


def _model(dataset: Dataset, address: Address, path: str, depth: int) -> Model:
    found: Model = {}
    for tag in sorted(dataset.keys()):
        if tag.element == 0:
            continue
        name = f"{tag.group:04X}{tag.element:04X}"
        try:
            found[name] = _element(dataset, tag, address, f"{path}{name}", depth)
        except Exception as error:  # noqa: BLE001 - pydicom converts at access, and raises whatever odd bytes make it
            log.debug("an attribute cannot be given as JSON", tag=name, cause=type(error).__name__)
    return found


def _element(dataset: Dataset, tag: BaseTag, address: Address, path: str, depth: int) -> dict[str, Any]:
    raw: Any = dataset.get_item(tag, keep_deferred=True)
    if isinstance(raw, RawDataElement) and raw.length and not raw.value and vr_of(raw) != "SQ":
        if raw.value is None:
            return {"vr": raw.VR or _known_vr(tag), "BulkDataURI": address(path)}
        if LONGEST_VALUE < raw.length < UNDEFINED:
            raise ValueError("too long to be read with its sequence")
    element = dataset[tag]
    if element.VR == "SQ":
        if depth >= DEEPEST:
            raise ValueError("nested too deep")
        items = [_model(item, address, f"{path}/{n}/", depth + 1) for n, item in enumerate(element.value or (), 1)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    vr = str(element.VR)
    if vr in BULK or " or " in vr:
        value = element.value
        vr = "OW" if " or " in vr else vr
        if isinstance(value, bytes | bytearray) and len(value) > INLINE:
            return {"vr": vr, "BulkDataURI": address(path)}
    made: dict[str, Any] = _finite(element.to_json_dict(None, INLINE))
    return made


def _finite(value: Any) -> Any:
    """Return a value without what JSON does not know: not a number, and the infinities, become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list) else value


def _known_vr(tag: BaseTag) -> str:
    try:
        vr = dictionary_VR(tag)
    except KeyError:
        return "UN"
    return "OW" if " or " in vr else vr


def bulk_element(dataset: Dataset, path: str) -> DataElement | RawDataElement | None:
    """Return the element at a path as `to_model` gives it, or None when there is none; the value may not be read yet."""
    steps = path.split("/")
    try:
        for tag, number in zip(steps[:-1:2], steps[1::2], strict=True):
            dataset = dataset[Tag(int(tag, 16))].value[int(number) - 1]
        return dataset.get_item(Tag(int(steps[-1], 16)), keep_deferred=True)
    except (KeyError, IndexError, ValueError, TypeError, OverflowError, AttributeError):
        return None


def element_value(dataset: Dataset, element: DataElement | RawDataElement) -> bytes:
    """Return the bytes of a binary element.

    Raises
    ------
    UnparsableDataset
        When it is not one.
    """
    if isinstance(element, RawDataElement):
        element = dataset[element.tag] if element.value is None else convert_raw_data_element(element)
    if not isinstance(element.value, bytes | bytearray):
        raise UnparsableDataset("no bulk data")
    return bytes(element.value)


def attribute(keyword: str, *values: Any) -> Model:
    """Return one attribute of a document; without a value that is not '' or None it is empty."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    vr = _known_vr(Tag(tag))
    kept = [_typed(vr, value) for value in values if value not in {"", None}] if vr != "SQ" else list(values)
    return {f"{tag:08X}": {"vr": vr, "Value": kept} if kept else {"vr": vr}}


def _typed(vr: str, value: Any) -> Any:
    if vr != "PN":
        return value
    return {group: part for group, part in zip(GROUPS, str(value).split("="), strict=False) if part}


def is_model(document: object, depth: int = 0) -> bool:
    """Tell whether a JSON document is a data set as PS3.18 F.2 has it, to be given as JSON and XML again.

    Parameters
    ----------
    depth
        Sequences that it lies in.
    """
    if not isinstance(document, dict) or depth > DEEPEST:
        return False
    return all(_TAG.fullmatch(name) and _is_element(each, depth) for name, each in document.items())


def _is_element(element: object, depth: int) -> bool:
    if not isinstance(element, dict) or element.keys() - {"vr", "Value", "InlineBinary", "BulkDataURI"}:
        return False
    vr, values = element.get("vr"), element.get("Value", [])
    if not isinstance(vr, str) or vr not in VRS or not isinstance(values, list):
        return False
    if not all(_is_text(element.get(name, "")) for name in ("InlineBinary", "BulkDataURI")):
        return False
    match vr:
        case "SQ":
            return all(is_model(each, depth + 1) for each in values)
        case "PN":
            return all(each is None or _is_name(each) for each in values)
        case _:
            return all(each is None or _is_text(each) or _is_number(each) for each in values)


def _is_name(value: object) -> bool:
    return isinstance(value, dict) and not value.keys() - set(GROUPS) and all(map(_is_text, value.values()))


def _is_number(value: object) -> bool:
    # Python's reader takes what JSON does not have: not a number, and the infinities.
    return isinstance(value, int | float) and not isinstance(value, bool) and value - value == 0


def _is_text(value: object) -> bool:
    """Tell whether it is text that a database takes: without the null character and halves of surrogate pairs."""
    return isinstance(value, str) and not re.search("[\0\ud800-\udfff]", value)


def json_bytes(document: object) -> bytes:
    """Return a document as JSON text."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def json_array(documents: Iterator[Model]) -> Iterator[bytes]:
    """Yield documents as one JSON array, as they come."""
    separator = b"["
    for document in documents:
        yield separator + json_bytes(document)
        separator = b","
    yield b"]" if separator == b"," else b"[]"


_CONTROL: Final = {code: " " for code in range(32) if code not in {9, 10, 13}} | {0xFFFE: " ", 0xFFFF: " "}


def xml_bytes(document: Mapping[str, Any]) -> bytes:
    """Return a document of the DICOM JSON Model as one of the Native DICOM Model (PS3.19 A.1.6)."""
    text = StringIO()
    writer = XMLGenerator(text, "UTF-8", short_empty_elements=True)
    writer.startDocument()
    _begin(writer, "NativeDicomModel", {"xmlns": "http://dicom.nema.org/PS3.19/models/NativeDICOM"})
    _attributes(writer, document)
    writer.endElement("NativeDicomModel")
    return text.getvalue().encode("utf-8", "replace")


def _begin(writer: XMLGenerator, name: str, attributes: Mapping[str, str]) -> None:
    writer.startElement(name, AttributesImpl(dict(attributes)))


def _attributes(writer: XMLGenerator, document: Mapping[str, Any]) -> None:
    for name, element in document.items():
        named = {"tag": name, "vr": element["vr"]}
        if keyword := keyword_for_tag(int(name, 16)):
            named["keyword"] = keyword
        _begin(writer, "DicomAttribute", named)
        for number, value in enumerate(element.get("Value", ()), 1):
            _value(writer, element["vr"], number, value)
        if "InlineBinary" in element:
            _leaf(writer, "InlineBinary", {}, element["InlineBinary"])
        if "BulkDataURI" in element:
            _leaf(writer, "BulkData", {"uri": element["BulkDataURI"]}, "")
        writer.endElement("DicomAttribute")


def _value(writer: XMLGenerator, vr: str, number: int, value: Any) -> None:
    place = {"number": str(number)}
    if value is None:
        return
    if vr == "SQ":
        _begin(writer, "Item", place)
        _attributes(writer, value)
        writer.endElement("Item")
    elif vr == "PN":
        _begin(writer, "PersonName", place)
        for group, components in value.items():
            _begin(writer, group, {})
            names = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")
            for name, part in zip(names, components.split("^"), strict=False):
                if part:
                    _leaf(writer, name, {}, part)
            writer.endElement(group)
        writer.endElement("PersonName")
    else:
        _leaf(writer, "Value", place, str(value))


def _leaf(writer: XMLGenerator, name: str, attributes: Mapping[str, str], text: str) -> None:
    _begin(writer, name, attributes)
    writer.characters(text.translate(_CONTROL))
    writer.endElement(name)
