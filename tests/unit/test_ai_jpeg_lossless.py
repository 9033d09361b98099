"""JPEG Lossless by libjpeg-turbo: the same values as GDCM's, and nothing made up where a codestream is cut."""

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
from ai.pixels import presentation_values
from tests.builders import compressed
from tests.doors import an_image

SYNTAXES = (JPEGLossless, JPEGLosslessSV1)


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
def test_values_are_those_that_were_compressed_and_that_gdcm_decodes(syntax: UID, bits: int, kind: str) -> None:
    stored = noise(bits, kind)
    image = compressed(an_image_of(stored, bits), syntax)
    ours = pixel_array(image, decoding_plugin=jpeg_lossless.PLUGIN)
    np.testing.assert_array_equal(ours, stored)
    np.testing.assert_array_equal(pixel_array(image, decoding_plugin="gdcm"), ours)
    assert ours.dtype == stored.dtype


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
    np.testing.assert_array_equal(pixel_array(image, decoding_plugin=jpeg_lossless.PLUGIN), stored)


def a_frame(stored: NDArray[Any]) -> bytes:
    image = compressed(an_image_of(stored, 12), JPEGLosslessSV1)
    return bytes(next(generate_frames(image.PixelData, number_of_frames=1)))


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.99])
def test_what_is_cut_off_is_not_made_up(kept: float) -> None:
    stored = noise(12, "<u2")
    frame = a_frame(stored)
    # libjpeg alone fills the rest with something and says nothing.
    assert imagecodecs.jpeg8_decode(frame[: int(kept * len(frame))]).shape == stored.shape
    image = with_codestream(an_image_of(stored, 12), frame[: int(kept * len(frame))])
    with pytest.raises(UndecodablePixels):
        presentation_values(image)


def test_the_padding_to_an_even_length_is_no_cut() -> None:
    stored = noise(12, "<u2")
    image = with_codestream(an_image_of(stored, 12), a_frame(stored).rstrip(b"\0") + b"\0\0\0")
    np.testing.assert_array_equal(pixel_array(image, decoding_plugin=jpeg_lossless.PLUGIN), stored)


@pytest.mark.parametrize("changes", [{"Rows": 61}, {"Columns": 47}])
def test_another_size_than_the_headers_is_refused(changes: dict[str, int]) -> None:
    stored = noise(12, "<u2")
    image = with_codestream(an_image_of(stored, 12), a_frame(stored))
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    with pytest.raises(OtherSize):
        presentation_values(image)
    with pytest.raises(RuntimeError, match=r"\(60, 48\) instead of"):
        pixel_array(image, decoding_plugin=jpeg_lossless.PLUGIN)


def test_colour_is_left_to_the_next_decoder() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    frame = imagecodecs.jpeg8_encode(colours, lossless=True, predictor=1, colorspace="RGB", outcolorspace="RGB")
    image = with_codestream(an_image_of(colours[..., 0], 8), frame)
    image.SamplesPerPixel, image.PlanarConfiguration, image.PhotometricInterpretation = 3, 0, "RGB"
    with pytest.raises(RuntimeError, match="3 samples per pixel"):
        pixel_array(image, decoding_plugin=jpeg_lossless.PLUGIN)
    np.testing.assert_array_equal(pixel_array(image), colours)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: UID(syntax).keyword)
def test_gdcm_is_asked_only_where_ours_fails(syntax: UID, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = get_decoder(syntax)
    assert set(decoder.available_plugins) == {jpeg_lossless.PLUGIN, "gdcm"}
    jpeg_lossless.be_first()  # again, which changes nothing
    assert set(decoder.available_plugins) == {jpeg_lossless.PLUGIN, "gdcm"}
    stored = noise(12, "<u2")
    image = compressed(an_image_of(stored, 12), syntax)
    asked: list[str] = []

    def fails(_: bytes, **__: Any) -> NDArray[Any]:
        asked.append("imagecodecs")
        raise ValueError

    monkeypatch.setattr(imagecodecs, "jpeg8_decode", fails)
    np.testing.assert_array_equal(pixel_array(image), stored)
    assert asked == ["imagecodecs"]
