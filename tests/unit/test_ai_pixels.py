"""Presentation values: what a radiologist would see, whatever form the stored values have; and millimetres by R11."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from ai.errors import CutPixels, MisplacedValues, OtherSize, TooManyPixels, UndecodablePixels, UnreadableFile
from ai.exam import Laterality, Spacing, SpacingRule, View, ViewPosition
from ai.pixels import SQUARE_FILM_ASPECT, file_image, pixel_spacing, presentation_values, view_image
from tests.builders import L_CC, LOSSLESS, R_MLO, compressed, monochrome1, quick_header
from tests.doors import an_image

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
"""Every 12-bit value once."""


def a_ramp(stored: NDArray[Any] = RAMP, **changes: Any) -> Dataset:
    """Return an image with these stored values and without a window."""
    window = {"WindowCenter": None, "WindowWidth": None, "WindowCenterWidthExplanation": None}
    image = an_image(
        **{k: v for k, v in window.items() if k not in changes},
        Rows=stored.shape[0],
        Columns=stored.shape[1],
        PixelData=stored.astype("<u2").tobytes(),
    )
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    return image


def a_lut(entries: list[int], first: int, bits: int) -> Sequence:
    """Return a VOI or Modality LUT Sequence (PS3.3 C.11.1.1, C.11.2.1.1)."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    item.ModalityLUTType = "US"
    return Sequence([item])


def test_without_window_the_stored_range_is_shown_from_black_to_white() -> None:
    np.testing.assert_allclose(presentation_values(a_ramp()), RAMP / 4095, atol=1e-6)


def test_a_linear_window_follows_the_formula_of_the_standard() -> None:
    center, width = 2000, 1001
    shown = presentation_values(a_ramp(WindowCenter=center, WindowWidth=width))
    # PS3.3 C.11.2.1.2.1
    expected = ((RAMP - (center - 0.5)) / (width - 1) + 0.5).clip(0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-5)
    assert (shown[RAMP < 1499] == 0).all()
    assert (shown[RAMP > 2501] == 1).all()


def test_of_several_windows_the_first_is_used() -> None:
    several = a_ramp(WindowCenter=[2000, 100], WindowWidth=[1000, 50])
    one = a_ramp(WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_array_equal(presentation_values(several), presentation_values(one))


def test_a_sigmoid_window_follows_the_formula_of_the_standard() -> None:
    shown = presentation_values(a_ramp(WindowCenter=2048, WindowWidth=1500, VOILUTFunction="SIGMOID"))
    curve = 1 / (1 + np.exp(-4 * (RAMP - 2048.0) / 1500))  # PS3.3 C.11.2.1.3.1
    np.testing.assert_allclose(shown, (curve - curve.min()) / (curve.max() - curve.min()), atol=1e-5)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_voi_lut_wins_over_the_window_whatever_its_depth(bits: int) -> None:
    top = 2**bits - 1
    entries = [round(top * (v / 2047) ** 2) for v in range(2048)]
    shown = presentation_values(a_ramp(WindowCenter=9, WindowWidth=9, VOILUTSequence=a_lut(entries, 1000, bits)))
    # Values below the first are shown as the first entry, values above the last as the last (PS3.3 C.11.2.1.1).
    expected = np.array(entries)[(RAMP.astype(int) - 1000).clip(0, 2047)] / top
    np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_an_empty_rescale_is_none() -> None:
    np.testing.assert_allclose(
        presentation_values(a_ramp(RescaleSlope="", RescaleIntercept="")), RAMP / 4095, atol=1e-6
    )


def test_a_voi_lut_as_bytes_is_the_same_lut() -> None:
    entries = [v * v // 4096 for v in range(4096)]
    as_numbers, as_bytes = a_lut(entries, 0, 12), a_lut(entries, 0, 12)
    del as_bytes[0].LUTData
    as_bytes[0].add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    np.testing.assert_array_equal(
        presentation_values(a_ramp(VOILUTSequence=as_bytes)), presentation_values(a_ramp(VOILUTSequence=as_numbers))
    )


def test_a_voi_lut_of_single_bytes_is_the_same_lut() -> None:
    entries = [v * v // 65536 for v in range(4096)]
    as_numbers, as_bytes = a_lut(entries, 0, 8), a_lut(entries, 0, 8)
    del as_bytes[0].LUTData
    as_bytes[0].add_new("LUTData", "OW", np.array(entries, "u1").tobytes())
    np.testing.assert_array_equal(
        presentation_values(a_ramp(VOILUTSequence=as_bytes)), presentation_values(a_ramp(VOILUTSequence=as_numbers))
    )


def test_an_empty_voi_lut_function_is_linear_and_stays_in_the_header() -> None:
    empty = a_ramp(WindowCenter=2000, WindowWidth=1000, VOILUTFunction="")
    linear = a_ramp(WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_array_equal(presentation_values(empty), presentation_values(linear))
    assert "VOILUTFunction" in empty


def test_an_empty_voi_lut_sequence_leaves_the_window() -> None:
    with_sequence = a_ramp(VOILUTSequence=Sequence(), WindowCenter=2000, WindowWidth=1000)
    without = a_ramp(WindowCenter=2000, WindowWidth=1000)
    np.testing.assert_array_equal(presentation_values(with_sequence), presentation_values(without))


def test_the_window_is_meant_for_rescaled_values() -> None:
    shown = presentation_values(a_ramp(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3000, WindowWidth=2001))
    expected = ((2.0 * RAMP - 1000 - 2999.5) / 2000 + 0.5).clip(0, 1)
    np.testing.assert_allclose(shown, expected, atol=1e-5)


def test_a_falling_rescale_turns_the_picture() -> None:
    shown = presentation_values(a_ramp(RescaleSlope=-1, RescaleIntercept=4095))
    np.testing.assert_allclose(shown, 1 - RAMP / 4095, atol=1e-6)


def test_a_modality_lut_comes_before_the_window() -> None:
    entries = [4095 - v for v in range(4096)]
    image = a_ramp(ModalityLUTSequence=a_lut(entries, 0, 16), WindowCenter=1000, WindowWidth=501)
    expected = ((4095.0 - RAMP - 999.5) / 500 + 0.5).clip(0, 1)
    shown = presentation_values(image)
    np.testing.assert_allclose(shown, (expected - expected.min()) / np.ptp(expected), atol=1e-5)


def test_signed_values_keep_their_order() -> None:
    signed = RAMP.astype(np.int16) - 2048
    image = a_ramp(signed.astype("<i2").view("<u2"), PixelRepresentation=1, BitsStored=16, HighBit=15)
    np.testing.assert_allclose(presentation_values(image), RAMP / 4095, atol=1e-6)


def test_monochrome1_shows_the_same_picture() -> None:
    image = an_image()
    np.testing.assert_allclose(presentation_values(monochrome1(image)), presentation_values(image), atol=1e-3)


@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE", None])
def test_monochrome1_is_inverted_once_whatever_the_presentation_lut_shape(shape: str | None) -> None:
    image = a_ramp(PhotometricInterpretation="MONOCHROME1", PresentationLUTShape=shape)
    np.testing.assert_allclose(presentation_values(image), 1 - RAMP / 4095, atol=1e-6)


def test_an_inverse_presentation_lut_shape_alone_inverts_too() -> None:
    np.testing.assert_allclose(presentation_values(a_ramp(PresentationLUTShape="INVERSE")), 1 - RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize(("photometric", "background"), [("MONOCHROME2", 4095), ("MONOCHROME1", 0)])
def test_padding_is_black_and_does_not_stretch_the_range(photometric: str, background: int) -> None:
    stored = np.clip(RAMP, 1000, 3000)
    stored[:8] = background
    image = a_ramp(stored, PhotometricInterpretation=photometric, PixelPaddingValue=background)
    shown = presentation_values(image)
    assert (shown[:8] == 0).all()
    grey = (stored[8:] - 1000.0) / 2000
    np.testing.assert_allclose(shown[8:], 1 - grey if photometric == "MONOCHROME1" else grey, atol=1e-6)


def test_a_padding_range_counts_from_either_end() -> None:
    for value, limit in ((10, 100), (100, 10)):
        shown = presentation_values(a_ramp(PixelPaddingValue=value, PixelPaddingRangeLimit=limit))
        assert (shown[(RAMP >= 10) & (RAMP <= 100)] == 0).all()
        assert (shown[(RAMP > 100)] > 0).all()


def test_an_image_of_padding_alone_is_black() -> None:
    assert not presentation_values(a_ramp(np.full((64, 64), 7, np.uint16), PixelPaddingValue=7)).any()


def test_one_value_everywhere_is_black() -> None:
    assert not presentation_values(a_ramp(np.full((64, 64), 900, np.uint16))).any()


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_every_lossless_syntax_gives_identical_values(syntax: UID) -> None:
    image = an_image()
    packed = compressed(image, syntax)
    assert packed.file_meta.TransferSyntaxUID == syntax
    assert packed.PixelData != image.PixelData
    np.testing.assert_array_equal(presentation_values(packed), presentation_values(image))


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_cut_compressed_pixel_data_are_refused(syntax: UID) -> None:
    image = compressed(an_image(), syntax)
    image.PixelData = image.PixelData[: len(image.PixelData) // 2]
    with pytest.raises(UndecodablePixels, match="transfer syntax"):
        presentation_values(image)


def test_cut_uncompressed_pixel_data_are_told_as_such() -> None:
    image = an_image()
    image.PixelData = image.PixelData[:-2]
    with pytest.raises(CutPixels, match="end before the last row"):
        presentation_values(image)


@pytest.mark.parametrize("stated", [{"Rows": 65535, "Columns": 65535}, {"NumberOfFrames": 1_000_000}])
def test_more_pixels_than_any_mammogram_has_are_not_decoded(
    stated: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = compressed(a_ramp(), RLELossless)
    for keyword, value in stated.items():
        setattr(image, keyword, value)
    monkeypatch.setattr(Dataset, "pixel_array", None)
    with pytest.raises(TooManyPixels, match="rows, columns and frames"):
        presentation_values(image)


@pytest.mark.parametrize(
    "syntax", [each for each in LOSSLESS if each != RLELossless], ids=lambda syntax: UID(syntax).keyword
)
def test_a_compressed_image_is_not_cut_into_rows_of_another_length(syntax: UID) -> None:
    image = compressed(a_ramp(), syntax)
    np.testing.assert_array_equal(presentation_values(image), presentation_values(a_ramp()))
    image.Rows, image.Columns = 32, 128
    with pytest.raises(OtherSize, match="other rows or columns"):
        presentation_values(image)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: UID(syntax).keyword)
def test_a_compressed_image_of_twelve_bits_is_not_read_as_one_of_eight(syntax: UID) -> None:
    image = compressed(a_ramp(), syntax)
    image.BitsAllocated = image.BitsStored = 8
    image.HighBit = 7
    # RLE Lossless has a segment for each byte of a value (PS3.5 G.2), and its decoder counts them.
    with pytest.raises(UndecodablePixels if syntax == RLELossless else OtherSize):
        presentation_values(image)


def test_rows_that_fill_up_a_compressed_image_are_left_out() -> None:
    image = compressed(a_ramp(), JPEGLSLossless)
    image.Rows = 60
    np.testing.assert_array_equal(presentation_values(image), presentation_values(a_ramp(RAMP[:60])))


def test_a_compressed_image_that_states_too_many_pixels_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    image = compressed(a_ramp(), JPEGLSLossless)
    small, large = (b"\x0c" + struct.pack(">HH", side, side) for side in (64, 65535))  # precision, rows, columns
    image.PixelData = image.PixelData.replace(small, large, 1)
    monkeypatch.setattr(Dataset, "pixel_array", None)
    with pytest.raises(TooManyPixels):
        presentation_values(image)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=lambda syntax: syntax.keyword)
def test_left_aligned_values_are_not_taken_for_noise(syntax: UID) -> None:
    image = a_ramp(RAMP << 4, HighBit=15)
    with pytest.raises(MisplacedValues, match="High Bit"):
        presentation_values(image if syntax == ExplicitVRLittleEndian else compressed(image, syntax))


@pytest.mark.parametrize("high", [15, 7, None])
@pytest.mark.parametrize("signed", [0, 1])
def test_a_wrong_high_bit_refuses_no_values_that_fit_bits_stored(high: int | None, signed: int) -> None:
    stored = (RAMP.astype("<i2") - 2048 * signed).view("<u2")
    image = a_ramp(stored, HighBit=high, PixelRepresentation=signed)
    np.testing.assert_allclose(presentation_values(image), RAMP / 4095, atol=1e-6)


def test_what_lies_above_the_high_bit_is_left_out() -> None:
    image = a_ramp(RAMP | 0x8000)  # an overlay in an unused bit, as PS3.5 8.1.2 once allowed
    np.testing.assert_allclose(presentation_values(image), RAMP / 4095, atol=1e-6)


def two_frames() -> Dataset:
    image = a_ramp(NumberOfFrames=2)
    image.PixelData = image.PixelData * 2
    return image


def colour() -> Dataset:
    image = a_ramp(np.zeros((64, 64), np.uint16))
    image.SamplesPerPixel, image.PlanarConfiguration, image.PhotometricInterpretation = 3, 0, "RGB"
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = bytes(3 * 64 * 64)
    return image


def without_pixels() -> Dataset:
    image = a_ramp()
    del image.PixelData
    return image


def short_lut() -> Dataset:
    image = a_ramp(VOILUTSequence=a_lut([0, 1], 0, 12))
    image.VOILUTSequence[0].LUTDescriptor = [4096, 0, 12]
    return image


def empty_bits_stored() -> Dataset:
    return a_ramp(BitsStored=None)


def window_of_no_width() -> Dataset:
    return a_ramp(WindowCenter=2000, WindowWidth=0)


def window_that_is_no_number() -> Dataset:
    return a_ramp(WindowCenter="nan", WindowWidth="nan")


def unknown_function() -> Dataset:
    return a_ramp(WindowCenter=9, WindowWidth=9, VOILUTFunction="CUBIC")


def packed_rows_beyond_rows() -> Dataset:
    image = compressed(a_ramp(), RLELossless)
    image.Rows = 60  # the decoder panics, and Rust's panics are no Exception
    return image


BROKEN = (
    *(without_pixels, two_frames, colour, empty_bits_stored, window_of_no_width, unknown_function, short_lut),
    *(packed_rows_beyond_rows, window_that_is_no_number),
)


@pytest.mark.parametrize("broken", BROKEN)
def test_what_cannot_be_shown_is_refused(broken: Callable[[], Dataset]) -> None:
    with pytest.raises(UndecodablePixels):
        view_image(broken(), L_CC)


def test_a_single_frame_that_is_counted_is_an_image() -> None:
    np.testing.assert_array_equal(presentation_values(a_ramp(NumberOfFrames=1)), presentation_values(a_ramp()))


SPACINGS = [
    pytest.param({}, None, id="nothing"),
    pytest.param({"ImagerPixelSpacing": [0.1, 0.2]}, (0.1, 0.2, SpacingRule.DETECTOR), id="detector"),
    pytest.param(
        {"ImagerPixelSpacing": [0.1, 0.2], "EstimatedRadiographicMagnificationFactor": 2},
        (0.05, 0.1, SpacingRule.MAGNIFICATION),
        id="magnification",
    ),
    pytest.param(
        {
            "PixelSpacing": [0.3, 0.4],
            "PixelSpacingCalibrationType": "GEOMETRY",
            "ImagerPixelSpacing": [0.1, 0.2],
            "EstimatedRadiographicMagnificationFactor": 2,
        },
        (0.3, 0.4, SpacingRule.CALIBRATED),
        id="calibrated wins",
    ),
    pytest.param(
        {"PixelSpacing": [0.3, 0.4], "ImagerPixelSpacing": [0.1, 0.2]},
        (0.3, 0.4, SpacingRule.CALIBRATED),
        id="other than the detector's: corrected",
    ),
    pytest.param(
        {
            "PixelSpacing": [0.1, 0.2],
            "ImagerPixelSpacing": [0.1, 0.2],
            "EstimatedRadiographicMagnificationFactor": 1.25,
        },
        (0.08, 0.16, SpacingRule.MAGNIFICATION),
        id="copied from the detector: not calibrated",
    ),
    pytest.param(
        {"PixelSpacing": [0.1, 0.2], "ImagerPixelSpacing": [0.1, 0.2], "PixelSpacingCalibrationType": "FIDUCIAL"},
        (0.1, 0.2, SpacingRule.CALIBRATED),
        id="calibrated to the same",
    ),
    pytest.param(
        {"ImagerPixelSpacing": [0.1, 0.2], "EstimatedRadiographicMagnificationFactor": 0},
        (0.1, 0.2, SpacingRule.DETECTOR),
        id="factor zero",
    ),
    pytest.param(
        {"ImagerPixelSpacing": [0.1, 0.2], "EstimatedRadiographicMagnificationFactor": None},
        (0.1, 0.2, SpacingRule.DETECTOR),
        id="factor empty",
    ),
    pytest.param({"ImagerPixelSpacing": [0, 0.1]}, None, id="zero"),
    pytest.param({"ImagerPixelSpacing": 0.1}, None, id="one value"),
    pytest.param({"ImagerPixelSpacing": None}, None, id="empty"),
    pytest.param(
        {"PixelSpacing": [0.0, 0.0], "ImagerPixelSpacing": [0.1, 0.1]},
        (0.1, 0.1, SpacingRule.DETECTOR),
        id="broken pixel spacing",
    ),
]


@pytest.mark.parametrize(("attributes", "expected"), SPACINGS)
def test_millimetres_come_from_where_the_rule_says(
    attributes: dict[str, Any], expected: tuple[float, float, SpacingRule] | None
) -> None:
    header = quick_header(EstimatedRadiographicMagnificationFactor=None)
    for keyword, value in attributes.items():
        setattr(header, keyword, value)
    found = pixel_spacing(header)
    if expected is None:
        assert found is None
        return
    assert found
    assert (found.row, found.column) == pytest.approx(expected[:2])
    assert found.rule is expected[2]


def test_an_image_carries_uid_view_and_spacing() -> None:
    image = an_image()
    made = view_image(image, L_CC)
    assert (made.uid, made.view, made.shape) == (image.SOPInstanceUID, L_CC, (image.Rows, image.Columns))
    assert isinstance(made.spacing, Spacing)
    assert made.warnings == ()
    assert made.pixel_aspect == 1


@pytest.mark.parametrize(
    ("attributes", "aspect"),
    [
        ({"ImagerPixelSpacing": [0.33, 0.2]}, 1.65),
        ({"ImagerPixelSpacing": [0.07, 0.0701]}, 1),
        ({"ImagerPixelSpacing": [0.33, 0.2], "PixelAspectRatio": [1, 1]}, 1.65),
        ({"ImagerPixelSpacing": [330, 200], "PixelAspectRatio": [3, 2]}, 1.5),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [3, 2]}, 1.5),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [50, 1]}, 1),
        ({"ImagerPixelSpacing": None, "PixelAspectRatio": [0, 1]}, 1),
        ({"ImagerPixelSpacing": None}, 1),
    ],
)
def test_pixels_that_are_no_squares_are_told_by_their_spacing_or_else_by_their_ratio(
    attributes: dict[str, Any], aspect: float
) -> None:
    image = an_image(**attributes)
    assert view_image(image, L_CC).pixel_aspect == pytest.approx(aspect)


def test_missing_spacing_and_eight_bits_warn_and_do_not_refuse() -> None:
    image = a_ramp(RAMP >> 4, BitsStored=8, HighBit=7)
    del image.ImagerPixelSpacing
    made = view_image(image, L_CC)
    assert made.spacing is None
    assert made.warnings == ("no pixel spacing: sizes are in pixels", "only 8 bits stored")


@pytest.mark.parametrize(("name", "kind"), [("a.png", np.uint8), ("a.png", np.uint16), ("a.jpg", np.uint8)])
def test_pictures_are_read_in_their_depth(tmp_path: Path, name: str, kind: type[np.generic]) -> None:
    top = 255 if kind is np.uint8 else 65535
    grey = (np.add.outer(np.arange(48.0), np.arange(32.0)) / 78 * top).astype(kind)
    cv2.imwrite(str(tmp_path / name), grey, [cv2.IMWRITE_JPEG_QUALITY, 100])
    made = file_image(tmp_path / name, R_MLO)
    assert (made.uid, made.view, made.spacing, made.pixel_aspect) == (name, R_MLO, None, 1)
    np.testing.assert_allclose(made.pixels, grey / top, atol=0.02 if name.endswith("jpg") else 1e-4)
    if kind is np.uint16:
        assert len(np.unique(made.pixels)) == len(np.unique(grey))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_grey_picture_stored_in_colour_is_the_grey_picture(tmp_path: Path, channels: int) -> None:
    grey = np.arange(48 * 32, dtype=np.uint8).reshape(48, 32)
    stored = np.dstack([grey] * 3 + [np.full_like(grey, 128)] * (channels - 3))
    cv2.imwrite(str(tmp_path / "a.png"), stored)
    np.testing.assert_allclose(file_image(tmp_path / "a.png", L_CC).pixels, grey / 255, atol=1e-6)


def test_a_square_picture_is_taken_for_a_film_that_was_resized(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.eye(40, dtype=np.uint8))
    assert file_image(tmp_path / "a.png", L_CC).pixel_aspect == SQUARE_FILM_ASPECT


def test_a_dicom_file_is_read_as_the_instance_it_holds(tmp_path: Path) -> None:
    image = an_image()
    image.save_as(tmp_path / "no-suffix", enforce_file_format=True)
    made = file_image(tmp_path / "no-suffix", View(Laterality.RIGHT, ViewPosition.CC))
    assert made.uid == image.SOPInstanceUID
    np.testing.assert_array_equal(made.pixels, presentation_values(image))


@pytest.mark.parametrize("content", [b"", b"no image at all" * 20, b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_a_file_that_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "letter.jpg").write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"letter\.jpg"):
        file_image(tmp_path / "letter.jpg", L_CC)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"gone\.png"):
        file_image(tmp_path / "gone.png", L_CC)
