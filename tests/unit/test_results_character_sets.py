"""Names in the source's character set, known, broken or unknown: as they came, in every kind of object."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from config.mix import ObjectMix, ReportClass, ResultKind, SegmentationType
from node.results.answer import Answer, ImageAnswer, Predecessor
from node.results.encode import ENCODERS, to_bytes
from tests.answers import RIGHT, an_answer, encoded, phantom_headers

SOURCES = {
    "UTF-8, Japanese": (b"ISO_IR 192", "Yamada^Tarou=山田^太郎=やまだ^たろう".encode()),
    "ISO 8859-2": (b"ISO_IR 101", "Dvořák^Łucja".encode("iso8859_2")),
    "ISO 2022, Japanese": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ),
    "Latin-1 that calls itself UTF-8": (b"ISO_IR 192", b"M\xfcller^Zo\xeb"),
    "UTF-8 cut within a character": (b"ISO_IR 192", "Yamada^山".encode()[:-1]),
    "Shift-JIS that calls itself JIS X 0201": (b"ISO_IR 13", "山田^太郎".encode("shift_jis")),
    "bytes that GB18030 does not have": (b"GB18030", b"Wang^\xff\xff\x80"),
    "a character set that nobody knows": (b"ISO_IR 999", b"M\xfcller^Zo\xeb"),
    "an escape sequence that nobody knows": (b"\\ISO 2022 IR 87", b"Yamada^\x1b$X;3ED"),
    "no character set, yet more than ASCII": (None, b"M\xfcller^Zo\xeb"),
}
BROKEN = [name for name in SOURCES if "Japanese" not in name and "8859" not in name]
ALL = ObjectMix(tuple(kind for kind in ResultKind if kind in ENCODERS))


def even(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def a_source(source: str) -> Dataset:
    """Return a header as received from a file whose texts are these bytes in this character set."""
    charset, name = SOURCES[source]
    header = deepcopy(phantom_headers()[RIGHT[0]])
    header.pop("SpecificCharacterSet", None)
    short = even(name.partition(b"=")[0][:15])
    header.PatientName, header.PatientID = "N" * len(even(name)), "I" * len(short)
    header.StudyDescription = header.InstitutionName = header.Manufacturer = "I" * len(short)
    buffer = BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    data = buffer.getvalue().replace(b"N" * len(even(name)), even(name)).replace(b"I" * len(short), short)
    if charset is not None:
        before = data.index(b"\x08\x00\x08\x00CS")  # Image Type, the first attribute after the character set
        coded = b"\x08\x00\x05\x00CS" + len(even(charset)).to_bytes(2, "little") + even(charset)
        data = data[:before] + coded + data[before:]
    return dcmread(BytesIO(data))


def answered(source: str) -> Answer:
    """Return an answer on such a source that has something to say in every kind of object."""
    answer = an_answer(read=RIGHT[:1])
    former = Predecessor("2.25.1", "2.25.2", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.3")
    images = (ImageAnswer(a_source(source), answer.images[0].view),)
    return replace(answer, images=images, superseded=(former,), revision=2)


def values(data: bytes, tag: bytes) -> list[bytes]:
    """Return the values of a text attribute with a short length wherever it stands (PS3.5 7.1.2)."""
    found, at = [], data.find(tag)
    while at >= 0:
        length = int.from_bytes(data[at + 6 : at + 8], "little")
        found.append(data[at + 8 : at + 8 + length])
        at = data.find(tag, at + 1)
    return found


@pytest.mark.filterwarnings("ignore:Failed to", "ignore:Unknown encoding", "ignore:Value '", "ignore:Found")
@pytest.mark.filterwarnings("ignore:Invalid value for VR", "ignore:The value for the data element")
@pytest.mark.parametrize("source", SOURCES)
def test_name_and_patient_id_come_out_byte_for_byte_and_our_own_texts_are_readable(source: str) -> None:
    charset, name = SOURCES[source]
    made = encoded(answered(source), ALL)
    assert {each.kind for each in made} == set(ALL.objects)
    for each in made:
        data = to_bytes(each.dataset)
        assert (each.kind, values(data, b"\x10\x00\x10\x00PN")) == (each.kind, [even(name)])
        assert values(data, b"\x10\x00\x20\x00LO") == [even(name.partition(b"=")[0][:15])]
        assert values(data, b"\x08\x00\x05\x00CS") == ([] if charset is None else [even(charset)])
        assert b"esearch use only" in data
        stored = dcmread(BytesIO(data))
        assert stored.SeriesDescription.endswith("research use only")
        assert stored.Manufacturer == "Mammonode"


@pytest.mark.filterwarnings("ignore:Failed to", "ignore:Unknown encoding", "ignore:Value '", "ignore:Found")
@pytest.mark.parametrize("source", BROKEN)
def test_so_do_the_forms_that_go_out_in_another_forms_place(source: str) -> None:
    mix = ObjectMix(segmentation=SegmentationType.LABELMAP, report=ReportClass.COMPREHENSIVE_3D)
    for each in encoded(answered(source), mix):
        assert each.fallback is not None
        for dataset in (each.dataset, each.fallback.dataset):
            assert values(to_bytes(dataset), b"\x10\x00\x10\x00PN") == [even(SOURCES[source][1])]


@pytest.mark.parametrize("changed", [str, lambda name: f"{name}^Junior"])
def test_a_name_that_was_given_a_new_value_is_written_so(changed: Callable[[str], str]) -> None:
    source = a_source("UTF-8, Japanese")
    name = changed(str(source.PatientName))
    source.PatientName = name
    answer = an_answer(read=RIGHT[:1])
    made = encoded(replace(answer, images=(ImageAnswer(source, RIGHT[0]),)))
    assert {str(dcmread(BytesIO(to_bytes(each.dataset))).PatientName) for each in made} == {name}
