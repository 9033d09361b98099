"""Rule R6: what makes two instances with one UID different, and what does not."""

from copy import deepcopy
from pathlib import Path

import pytest
from pydicom import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGLosslessSV1, RLELossless

from node import comparison, records
from node.comparison import BEYOND_BOUNDS, differences
from node.corrections import is_correction
from node.phantom import phantom_exam
from tests.builders import compressed


@pytest.fixture(scope="module")
def an_image() -> Dataset:
    image = phantom_exam(5, small=True).images[0]
    image.add_new(0x00190010, "LO", "A MODALITY")
    image.add_new(0x00191001, "LO", "odd")
    image.add_new(0x00191002, "FD", 0.1)
    return image


@pytest.fixture
def saved(tmp_path: Path, an_image: Dataset) -> Path:
    return written(an_image, tmp_path / "first.dcm")


def written(image: Dataset, path: Path, syntax: UID | None = None) -> Path:
    copy = deepcopy(image)
    if syntax:
        copy.file_meta.TransferSyntaxUID = syntax
    copy.save_as(path, enforce_file_format=True)
    return path


def test_an_instance_is_equal_to_its_copy(saved: Path, an_image: Dataset, tmp_path: Path) -> None:
    an_image.file_meta.SourceApplicationEntityTitle = "OTHER"
    assert differences(saved, written(an_image, tmp_path / "again.dcm")) == ()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_the_encoding_of_elements_does_not_count(saved: Path, an_image: Dataset, tmp_path: Path, syntax: UID) -> None:
    assert differences(saved, written(an_image, tmp_path / "again.dcm", syntax)) == ()


def test_pixels_that_take_too_much_memory_differ(
    saved: Path, an_image: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "MEMORY", 1 << 20)
    again = written(compressed(an_image, RLELossless), tmp_path / "again.dcm")
    assert differences(saved, again) == ("PixelData",)


def test_long_values_are_compared_and_not_read_into_memory(
    an_image: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LARGEST_HEADER", 6 << 20)
    images = [deepcopy(an_image) for _ in range(3)]
    for image, last in zip(images, (b"\1", b"\1", b"\2"), strict=True):
        image.add_new(0x7E011010, "OB", bytes((7 << 20) - 1) + last)
    first, same, other = (written(each, tmp_path / f"{n}.dcm") for n, each in enumerate(images))
    assert differences(first, same) == ()
    assert differences(first, other) == ("(7E01,1010)",)


def test_headers_that_take_too_much_memory_differ_in_more_than_whose_they_are(
    saved: Path, an_image: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = deepcopy(an_image)
    other.PatientID = "ANOTHER"
    again = written(other, tmp_path / "again.dcm")
    monkeypatch.setattr(records, "LARGEST_HEADER", 1000)
    assert differences(saved, again) == (BEYOND_BOUNDS,)
    assert not is_correction([BEYOND_BOUNDS], identity_changed=True)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLosslessSV1])
def test_lossless_compression_does_not_count(saved: Path, an_image: Dataset, tmp_path: Path, syntax: UID) -> None:
    assert differences(saved, written(compressed(an_image, syntax), tmp_path / "again.dcm")) == ()


def test_group_lengths_and_padding_do_not_count(saved: Path, an_image: Dataset, tmp_path: Path) -> None:
    other = deepcopy(an_image)
    other.add_new(0x00080000, "UL", 4)
    assert differences(saved, written(other, tmp_path / "again.dcm")) == ()


def test_the_character_set_of_a_name_does_not_count_as_a_different_name(
    saved: Path, an_image: Dataset, tmp_path: Path
) -> None:
    one, other = deepcopy(an_image), deepcopy(an_image)
    one.PatientName = other.PatientName = "Mäder^Anne"
    other.SpecificCharacterSet = "ISO_IR 100"
    found = differences(written(one, tmp_path / "one.dcm"), written(other, tmp_path / "other.dcm"))
    assert found == ("SpecificCharacterSet",)


def test_every_attribute_that_differs_is_named(saved: Path, an_image: Dataset, tmp_path: Path) -> None:
    other = deepcopy(an_image)
    other.PatientID = "SOMEBODY ELSE"
    other.add_new(0x00191001, "LO", "odder")
    del other.StationName
    other.ViewCodeSequence[0].CodeMeaning = "another view"
    found = differences(saved, written(other, tmp_path / "other.dcm"))
    assert set(found) == {"PatientID", "(0019,1001)", "StationName", "ViewCodeSequence"}


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_one_pixel_is_a_difference(saved: Path, an_image: Dataset, tmp_path: Path, syntax: UID) -> None:
    other = deepcopy(an_image)
    pixels = other.pixel_array.copy()
    pixels[100, 100] ^= 1
    other.PixelData = pixels.tobytes()
    if syntax.is_compressed:
        other = compressed(other, syntax)
    assert differences(saved, written(other, tmp_path / "other.dcm")) == ("PixelData",)


def test_pixels_that_cannot_be_decoded_are_different(saved: Path, an_image: Dataset, tmp_path: Path) -> None:
    other = compressed(an_image, RLELossless)
    other.PixelData = other.PixelData[:200] + bytes(len(other.PixelData) - 200)
    assert differences(saved, written(other, tmp_path / "other.dcm")) == ("PixelData",)


def test_what_follows_the_pixels_counts(saved: Path, an_image: Dataset, tmp_path: Path) -> None:
    padded, signed = deepcopy(an_image), deepcopy(an_image)
    padded.add_new(0xFFFCFFFC, "OB", b"\0\0")
    signed.add_new(0xFFFAFFFA, "SQ", [Dataset()])
    assert differences(saved, written(padded, tmp_path / "padded.dcm")) == ()
    assert differences(saved, written(signed, tmp_path / "signed.dcm")) == ("PixelData",)
