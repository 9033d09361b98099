"""Which attributes of received images the node works with, and what for (PS3.2 A.8.1)."""

from collections.abc import Iterator
from typing import Final

from pydicom.datadict import dictionary_description, tag_for_keyword
from pydicom.tag import Tag

from node.conformance.markdown import table

USAGE: Final = (
    (
        "Store and index",
        ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"),
        "required; C000H or 0117H without them",
    ),
    (
        "Exam",
        ("PatientID", "IssuerOfPatientID", "StudyInstanceUID"),
        "images of one patient and one study are one exam",
    ),
    (
        "Kind of image",
        (
            *("SOPClassUID", "PresentationIntentType", "Modality", "NumberOfFrames", "Rows"),
            *("Manufacturer", "ManufacturerModelName"),
        ),
        "mammograms open an exam; the node's own objects are known by manufacturer and model",
    ),
    (
        "Laterality",
        (
            *("ImageLaterality", "Laterality", "ViewPosition", "SharedFunctionalGroupsSequence"),
            *("PerFrameFunctionalGroupsSequence", "FrameAnatomySequence", "FrameLaterality"),
            *("AcquisitionDeviceProcessingDescription", "SeriesDescription"),
        ),
        "the last two only where the others say nothing; a contradiction makes the image unusable",
    ),
    (
        "View",
        (
            *("ViewPosition", "ViewCodeSequence", "CodeValue", "CodingSchemeDesignator"),
            *("AcquisitionDeviceProcessingDescription", "PatientOrientation", "SeriesDescription"),
        ),
        "the last three only where the others say nothing; a contradiction makes the image unusable",
    ),
    (
        "Not to be read",
        (
            *("ViewModifierCodeSequence", "EstimatedRadiographicMagnificationFactor", "PartialView", "ImageType"),
            *("QualityControlImage", "LossyImageCompression", "TransferSyntaxUID", "SamplesPerPixel"),
            *("PhotometricInterpretation", "NumberOfFrames"),
            *("Rows", "Columns", "BodyPartExamined", "AnatomicRegionSequence", "PrimaryAnatomicStructureSequence"),
        ),
        "modified, magnified or partial views, derived, lossy, colour, multi-frame images, and other body parts are not read",
    ),
    (
        "Choice among repeated views",
        (
            *("PresentationIntentType", "AcquisitionDateTime", "AcquisitionDate", "AcquisitionTime", "ContentDate"),
            *("ContentTime", "InstanceNumber", "SOPInstanceUID"),
        ),
        "For Presentation, then the latest, then the highest number, then the greatest UID; the next where that cannot be read",
    ),
    (
        "Identity",
        ("PatientName", "PatientBirthDate"),
        "images of one exam that differ in them are read, and the answer says that they state different patients",
    ),
    (
        "Pixels",
        (
            *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
            *("BitsAllocated", "BitsStored", "HighBit", "PhotometricInterpretation", "PresentationLUTShape"),
            *("VOILUTSequence", "LUTDescriptor", "LUTData", "VOILUTFunction"),
            *("PixelPaddingValue", "PixelPaddingRangeLimit"),
        ),
        "Modality LUT, first VOI LUT or else first window, polarity; padding is no tissue; values must fit Bits Stored, compressed ones Bits Allocated",
    ),
    (
        "Proportions",
        ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"),
        "pixels that are no squares are read in their proportions; the ratio counts where there is no possible spacing",
    ),
    (
        "Warnings",
        ("BreastImplantPresent", "PatientOrientation", "BitsStored", "BurnedInAnnotation"),
        "an implant, 8 bits, burned-in annotation, and a breast on another side than the orientation says are read with a warning",
    ),
    (
        "Sizes",
        (
            *("PixelSpacing", "PixelSpacingCalibrationType", "ImagerPixelSpacing"),
            "EstimatedRadiographicMagnificationFactor",
        ),
        "see 8.1.1",
    ),
)
"""Purpose, keywords, and the rule."""


def usage(number: str) -> Iterator[str]:
    """Yield the attributes that are used."""
    yield f"#### {number} Usage of attributes of received images"
    yield "What objects copy from images stands in the tables above."
    yield table(
        ("Purpose", "Attributes", "Rule"),
        [(purpose, "; ".join(map(_named, keywords)), rule) for purpose, keywords, rule in USAGE],
    )


def _named(keyword: str) -> str:
    tag = Tag(tag_for_keyword(keyword) or 0)
    return f"{dictionary_description(tag)} {tag}"
