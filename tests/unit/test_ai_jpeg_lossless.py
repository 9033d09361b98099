"""JPEG Lossless by libjpeg-turbo: the same values as GDCM's, and none where a codestream is cut or damaged."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID, JPEGLossless, JPEGLosslessSV1

from ai import jpeg_lossless
from ai.errors import OtherSize, UndecodablePixels
from ai.jpeg_lossless import Scan
from ai.pixels import presentation_values
from tests.builders import compressed
from tests.doors import an_image

SYNTAXES = (JPEGLossless, JPEGLosslessSV1)
EOI = b"\xff\xd9"


@pytest.fixture
def with_gdcm() -> Iterator[None]:
    """Let pydicom have GDCM, too, as it comes."""
    decoders = [get_decoder(syntax) for syntax in SYNTAXES]
    for decoder in decoders:
        decoder.add_plugin("gdcm", ("pydicom.pixels.decoders.gdcm", "_decode_frame"))
    yield
    for decoder in decoders:
        decoder.remove_plugin("gdcm")


def an_image_of(stored: NDArray[Any], bits: int) -> Dataset:
    return an_image(
        Rows=stored.shape[0],
        Columns=stored.shape[1],
        BitsAllocated=8 * stored.itemsize,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(stored.dtype.kind == "i"),
        PixelData=stored.tobytes(),
    )


def with_codestream(image: Dataset, codestream: bytes | bytearray) -> Dataset:
    image.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    image.PixelData = encapsulate([bytes(codestream)])
    image["PixelData"].is_undefined_length = True
    return image


def noise(bits: int, kind: str, shape: tuple[int, int] = (60, 48)) -> NDArray[Any]:
    low, high = (-(1 << bits - 1), 1 << bits - 1) if np.dtype(kind).kind == "i" else (0, 1 << bits)
    return np.random.default_rng(bits).integers(low, high, shape).astype(kind)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: UID(syntax).keyword)
@pytest.mark.parametrize(
    ("bits", "kind"),
    [(8, "u1"), *((bits, "<u2") for bits in (8, 10, 12, 14, 16)), *((bits, "<i2") for bits in (12, 14, 16))],
)
@pytest.mark.usefixtures("with_gdcm")
def test_values_are_those_that_were_compressed_and_that_gdcm_decodes(syntax: UID, bits: int, kind: str) -> None:
    stored = noise(bits, kind)
    image = compressed(an_image_of(stored, bits), syntax)
    ours = pixel_array(image)
    np.testing.assert_array_equal(ours, stored)
    np.testing.assert_array_equal(pixel_array(image, decoding_plugin="gdcm"), ours)
    assert ours.dtype == stored.dtype
    image.decompress(generate_instance_uid=False)
    np.testing.assert_array_equal(image.pixel_array, stored)
    assert len(image.PixelData) == stored.nbytes


@settings(max_examples=40, deadline=None)
@given(
    predictor=st.integers(1, 7),
    bits=st.sampled_from((8, 12, 16)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    seed=st.integers(0, 99),
)
def test_every_predictor_and_size_comes_back(predictor: int, bits: int, shape: tuple[int, int], seed: int) -> None:
    stored = np.random.default_rng(seed).integers(0, 1 << bits, shape).astype("u1" if bits == 8 else "<u2")
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=predictor, bitspersample=bits)
    image = with_codestream(an_image_of(stored, bits), frame)
    np.testing.assert_array_equal(pixel_array(image), stored)


def a_frame(stored: NDArray[Any]) -> bytes:
    image = compressed(an_image_of(stored, 12), JPEGLosslessSV1)
    return bytes(next(generate_frames(image.PixelData, number_of_frames=1))).rstrip(b"\0")


def smooth(shape: tuple[int, int] = (200, 150)) -> NDArray[np.uint16]:
    """Return a picture as compressible as a mammogram: its codes have many lengths."""
    rows, columns = np.indices(shape)
    grain = np.random.default_rng(0).normal(0, 8, shape)
    return (2000 + 900 * np.sin(rows / 40) * np.cos(columns / 30) + grain).round().astype("<u2")


def refused(codestream: bytes, stored: NDArray[Any]) -> None:
    with pytest.raises(UndecodablePixels):
        presentation_values(with_codestream(an_image_of(stored, 12), codestream))


@pytest.mark.parametrize("end", [b"", EOI], ids=["no end", "an end put back"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_what_is_cut_off_is_not_made_up(kept: float, end: bytes) -> None:
    stored = smooth()
    frame = a_frame(stored)
    cut = frame[: int(kept * len(frame))] + end
    # libjpeg alone fills the rest with something and says nothing.
    assert imagecodecs.jpeg8_decode(cut).shape == stored.shape
    refused(cut, stored)


@pytest.mark.parametrize(
    "damage",
    [b"\xff\xd0", b"\xff\x00" * 8, bytes(400), EOI, np.random.default_rng(1).integers(0, 255, 512, np.uint8).tobytes()],
    ids=["a restart marker", "codes that do not exist", "zeros", "an end", "noise"],
)
@pytest.mark.parametrize("at", [0.25, 0.5, 0.75])
def test_values_beyond_a_damage_are_not_taken(damage: bytes, at: float) -> None:
    stored = smooth()
    frame = a_frame(stored)
    place = int(at * len(frame))
    refused(frame[:place] + damage + frame[place + len(damage) :], stored)


def test_a_piece_that_is_missing_in_the_middle_is_noticed() -> None:
    stored = smooth()
    frame = a_frame(stored)
    third = len(frame) // 3
    refused(frame[:third] + frame[2 * third :], stored)


@settings(max_examples=60, deadline=None)
@given(shape=st.tuples(st.integers(1, 50), st.integers(1, 50)), bits=st.sampled_from((8, 12, 14, 16)), data=st.data())
def test_the_bits_that_values_need_are_those_that_an_encoder_wrote(
    shape: tuple[int, int], bits: int, data: st.DataObject
) -> None:
    steep = data.draw(st.floats(0, 1))
    noisy = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape)
    stored = ((1 - steep) * 0.5 + steep * noisy) * ((1 << bits) - 1)
    values = stored.astype("u1" if bits == 8 else "<u2")
    scan = Scan.of(bytes(imagecodecs.jpeg8_encode(values, lossless=True, predictor=1, bitspersample=bits)))
    assert scan
    scan.require(values)
    with pytest.raises(ValueError, match="bits"):
        replace(scan, bits=scan.bits - 8).require(values)
    with pytest.raises(ValueError, match="bits"):
        replace(scan, bits=scan.bits + 8, padding=0).require(values)


def test_an_image_of_several_blocks_is_counted_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = smooth()
    scan = Scan.of(a_frame(stored))
    assert scan
    for block in (1, 150, 151, 4000, 1 << 20):
        monkeypatch.setattr(jpeg_lossless, "_BLOCK", block)
        scan.require(stored)
        with pytest.raises(ValueError, match="bits"):
            scan.require(stored[:, ::-1].copy() + np.arange(150, dtype=np.uint16))


@pytest.mark.parametrize("added", [b"\0", b"\0\0\0"], ids=["padding", "more of it"])
def test_the_padding_to_an_even_length_is_no_damage(added: bytes) -> None:
    stored = noise(12, "<u2")
    image = with_codestream(an_image_of(stored, 12), a_frame(stored) + added)
    np.testing.assert_array_equal(pixel_array(image), stored)


DNL = b"\xff\xdc\0\4\0\x3c"
COMMENT = b"\xff\xfe\0\7hello"


@pytest.mark.parametrize(
    "fill",
    [b"\xff", b"\xff\xff\xff", b"\0\0", bytes(7), DNL, COMMENT],
    ids=["fill byte", "fill bytes", "a padded scan", "a padded word", "number of lines", "a comment"],
)
@pytest.mark.parametrize("after", [b"", b"old\xff\xd9"], ids=["", "and a stale rest"])
def test_what_may_stand_around_the_end_is_no_damage(fill: bytes, after: bytes) -> None:
    stored = noise(12, "<u2")
    image = with_codestream(an_image_of(stored, 12), a_frame(stored).removesuffix(EOI) + fill + EOI + after)
    np.testing.assert_array_equal(pixel_array(image), stored)


def test_tables_of_other_processes_are_none_of_ours() -> None:
    stored = noise(12, "<u2")
    frame = a_frame(stored)
    at = frame.index(b"\xff\xc4")
    other = b"\xff\xc4\0\x14\x10" + bytes([1, *[0] * 15]) + b"\0"  # of class 1 and the same number
    for place in (at, frame.index(b"\xff\xda")):
        image = with_codestream(an_image_of(stored, 12), frame[:place] + other + frame[place:])
        np.testing.assert_array_equal(pixel_array(image), stored)


@pytest.mark.parametrize("black", [False, True], ids=["all breast", "half black"])
@pytest.mark.parametrize("kind", ["noise", "a piece of it twice", "a byte that is missing"])
def test_nearly_every_damage_is_noticed_wherever_it_is(kind: str, *, black: bool) -> None:
    stored = smooth()
    stored[:, 75:] *= not black
    frame = a_frame(stored)
    rng = np.random.default_rng(7)
    begin = frame.index(b"\xff\xda") + 10
    tries, passed = 0, 0
    while tries < 100:
        at, other = (int(each) for each in rng.integers(begin, len(frame) - 514, 2))
        damages = {
            "noise": (rng.integers(0, 255, 512, np.uint8).tobytes(), 512),
            "a piece of it twice": (frame[other : other + 512], 512),
            "a byte that is missing": (b"", 1),
        }
        piece, length = damages[kind]
        image = with_codestream(an_image_of(stored, 12), frame[:at] + piece + frame[at + length :])
        try:
            different = (pixel_array(image) != stored).any()
        except RuntimeError:
            tries += 1
        else:
            tries += int(different)
            passed += int(different)
    # A byte that is missing slips by where codes fall into step again.
    assert passed <= (50 if kind == "a byte that is missing" else 4)


@pytest.mark.parametrize(("allocated", "bits"), [(8, 7), (32, 12)])
def test_where_gdcm_would_end_the_process_it_is_not_asked(allocated: int, bits: int) -> None:
    stored = noise(bits, f"<u{allocated // 8}")
    narrow = stored.astype("u1" if bits <= 8 else "<u2")
    frame = imagecodecs.jpeg8_encode(narrow, lossless=True, predictor=4, bitspersample=bits)
    with pytest.raises(RuntimeError, match=f"{bits} bits stored of {allocated}"):
        pixel_array(with_codestream(an_image_of(stored, bits), frame))


def test_a_codestream_of_fewer_bits_than_the_header_allocates_fills_what_it_allocates() -> None:
    stored = noise(8, "u1")
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=8)
    image = with_codestream(an_image_of(stored.astype("<u2"), 12), frame)
    np.testing.assert_array_equal(pixel_array(image), stored)
    assert pixel_array(image).dtype == np.uint16
    image.decompress(generate_instance_uid=False)
    assert len(image.PixelData) == 2 * stored.size
    np.testing.assert_array_equal(image.pixel_array, stored)


@pytest.mark.parametrize("changes", [{"Rows": 61}, {"Columns": 47}])
def test_another_size_than_the_headers_is_refused(changes: dict[str, int]) -> None:
    stored = noise(12, "<u2")
    image = with_codestream(an_image_of(stored, 12), a_frame(stored))
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    with pytest.raises(OtherSize):
        presentation_values(image)
    with pytest.raises(RuntimeError, match=r"\(60, 48\) of 2 bytes instead of"):
        pixel_array(image)


def test_colour_and_other_predictions_are_gdcms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagecodecs, "jpeg8_decode", lambda _: pytest.fail("not to be asked"))
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    frame = imagecodecs.jpeg8_encode(colours, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB")
    image = with_codestream(an_image_of(colours[..., 0], 8), frame)
    image.SamplesPerPixel, image.PlanarConfiguration, image.PhotometricInterpretation = 3, 0, "RGB"
    np.testing.assert_array_equal(pixel_array(image), colours)
    stored = noise(12, "<u2")
    frame = imagecodecs.jpeg8_encode(stored, lossless=True, predictor=4, bitspersample=12)
    np.testing.assert_array_equal(pixel_array(with_codestream(an_image_of(stored, 12), frame)), stored)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: UID(syntax).keyword)
def test_pydicom_asks_nobody_else(syntax: UID) -> None:
    for _ in range(2):
        assert get_decoder(syntax).available_plugins == (jpeg_lossless.PLUGIN,)
        jpeg_lossless.be_first()
