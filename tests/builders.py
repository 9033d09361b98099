"""Data sets and values that tests are made of: each builder gives something valid, and the test names what differs."""

import tempfile
from collections.abc import Iterable
from copy import deepcopy
from pathlib import Path
from typing import Any

import gdcm
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    BreastTomosynthesisImageStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    KeyObjectSelectionDocumentStorage,
    RLELossless,
)

from ai.exam import Laterality, View, ViewPosition
from ai.phantom.lesions import Lesion
from node.exams import Candidate
from node.phantom import coded
from node.views import ImageKind

L_CC = View(Laterality.LEFT, ViewPosition.CC)
R_CC = View(Laterality.RIGHT, ViewPosition.CC)
L_MLO = View(Laterality.LEFT, ViewPosition.MLO)
R_MLO = View(Laterality.RIGHT, ViewPosition.MLO)

A_MASS_IN_EACH = (
    Lesion(Laterality.RIGHT, depth=0.6, lateral=-0.2, vertical=0.1, radius=8.6, irregularity=0.08),
    Lesion(Laterality.LEFT, depth=0.6, lateral=-0.35, vertical=-0.1, radius=7.0, irregularity=0.1),
)
"""Of a phantom exam: one mass in every view."""

LOSSLESS = (RLELossless, JPEGLSLossless, JPEG2000Lossless, JPEGLosslessSV1, JPEGLossless)
"""The compressed transfer syntaxes that can be written here; HTJ2K has no encoder among the dependencies."""


def quick_header(**overrides: Any) -> Dataset:
    """Return the header of a left CC For Presentation image without pixels; None takes an attribute away."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    attributes: dict[str, Any] = {
        "SOPClassUID": DigitalMammographyXRayImageStorageForPresentation,
        "SOPInstanceUID": "1.2.3.4",
        "StudyInstanceUID": "1.2",
        "SeriesInstanceUID": "1.2.3",
        "PatientID": "P1",
        "Modality": "MG",
        "PresentationIntentType": "FOR PRESENTATION",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "ImageLaterality": "L",
        "ViewPosition": "CC",
        "EstimatedRadiographicMagnificationFactor": "1.05",
        "PartialView": "NO",
        "LossyImageCompression": "00",
        "SamplesPerPixel": 1,
        "Rows": 512,
        "Columns": 416,
        "InstanceNumber": 1,
        "AcquisitionDate": "20260110",
        "AcquisitionTime": "101500",
    }
    for keyword, value in (attributes | overrides).items():
        if value is not None:
            setattr(header, keyword, value)
    return header


def view_code(value: str, *modifiers: str, scheme: str = "SCT") -> Sequence:
    """Return a View Code Sequence with modifiers."""
    view = coded(value, "a view")
    view.CodingSchemeDesignator = scheme
    view.ViewModifierCodeSequence = modifier_codes(*modifiers, scheme=scheme)
    return Sequence([view])


def modifier_codes(*values: str, scheme: str = "SCT") -> Sequence:
    """Return a View Modifier Code Sequence."""
    modifiers = [coded(value, "a modifier") for value in values]
    for modifier in modifiers:
        modifier.CodingSchemeDesignator = scheme
    return Sequence(modifiers)


def frame_laterality(side: str) -> Sequence:
    """Return a Shared or Per-frame Functional Groups Sequence that says which breast is shown."""
    anatomy, group = Dataset(), Dataset()
    anatomy.FrameLaterality = side
    group.FrameAnatomySequence = Sequence([anatomy])
    return Sequence([group])


def tomosynthesis_header(**overrides: Any) -> Dataset:
    """Return the header of a left CC tomosynthesis, which tells its breast per frame."""
    return quick_header(
        **{
            "SOPClassUID": BreastTomosynthesisImageStorage,
            "ImageLaterality": None,
            "PresentationIntentType": None,
            "ViewPosition": None,
            "NumberOfFrames": 60,
            "ViewCodeSequence": view_code("399162004"),
            "SharedFunctionalGroupsSequence": frame_laterality("L"),
        }
        | overrides
    )


def own_result_header() -> Dataset:
    """Return the header of a structured report that this node wrote."""
    return quick_header(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.34",
        Modality="SR",
        Manufacturer="Mammonode",
        ManufacturerModelName="Mammonode",
        Rows=None,
        Columns=None,
    )


def key_objects(images: Iterable[Dataset], title: str, uid: str = "1.2.77.1", **overrides: Any) -> Dataset:
    """Return a Key Object Selection of images of one study under a document title of PS3.16 CID 7010."""
    chosen = tuple(images)
    content, evidence = [], []
    for image in chosen:
        reference, item, series = Dataset(), Dataset(), Dataset()
        reference.ReferencedSOPClassUID = image.SOPClassUID
        reference.ReferencedSOPInstanceUID = image.SOPInstanceUID
        item.RelationshipType, item.ValueType = "CONTAINS", "IMAGE"
        item.ReferencedSOPSequence = Sequence([reference])
        series.SeriesInstanceUID = image.SeriesInstanceUID
        series.ReferencedSOPSequence = Sequence([deepcopy(reference)])
        content.append(item)
        evidence.append(series)
    named = coded(title, "a title")
    named.CodingSchemeDesignator = "DCM"
    study = Dataset()
    study.StudyInstanceUID = chosen[0].StudyInstanceUID
    study.ReferencedSeriesSequence = Sequence(evidence)
    attributes: dict[str, Any] = {
        "SOPClassUID": KeyObjectSelectionDocumentStorage,
        "SOPInstanceUID": uid,
        "StudyInstanceUID": chosen[0].StudyInstanceUID,
        "SeriesInstanceUID": "1.2.77",
        "PatientID": chosen[0].PatientID,
        "Modality": "KO",
        "ValueType": "CONTAINER",
        "ConceptNameCodeSequence": Sequence([named]),
        "CurrentRequestedProcedureEvidenceSequence": Sequence([study]),
        "ContentSequence": Sequence(content),
    }
    note = Dataset()
    note.file_meta = FileMetaDataset()
    note.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword, value in (attributes | overrides).items():
        if value is not None:
            setattr(note, keyword, value)
    return note


def altered(image: Dataset, **changes: Any) -> Dataset:
    """Return a copy with other attributes; None takes one away."""
    copy = deepcopy(image)
    for keyword, value in changes.items():
        if value is None:
            delattr(copy, keyword)
        else:
            setattr(copy, keyword, value)
    copy.file_meta.MediaStorageSOPClassUID = UID(copy.SOPClassUID)
    copy.file_meta.MediaStorageSOPInstanceUID = UID(copy.SOPInstanceUID)
    return copy


def for_processing(image: Dataset) -> Dataset:
    """Return the For Processing image that a phantom image could have been made of, with a UID of its own."""
    return altered(
        image,
        SOPClassUID=DigitalMammographyXRayImageStorageForProcessing,
        SOPInstanceUID=f"{image.SOPInstanceUID}.1",
        PresentationIntentType="FOR PROCESSING",
        ImageType=["ORIGINAL", "PRIMARY"],
        PixelIntensityRelationship="LIN",
        PixelIntensityRelationshipSign=1,
        WindowCenter=None,
        WindowWidth=None,
        WindowCenterWidthExplanation=None,
        PixelData=inverted(image),
    )


def monochrome1(image: Dataset) -> Dataset:
    """Return the same picture with inverted stored values: 0 is white."""
    width = 1 << image.BitsStored
    return altered(
        image,
        PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE",
        PixelIntensityRelationshipSign=1,
        WindowCenter=[str(width - 1 - int(centre)) for centre in image.WindowCenter],
        PixelData=inverted(image),
    )


def inverted(image: Dataset) -> bytes:
    """Return the pixels with black and white exchanged."""
    highest = (1 << image.BitsStored) - 1
    data: bytes = (highest - image.pixel_array).astype("<u2").tobytes()
    return data


def compressed(image: Dataset, syntax: UID) -> Dataset:
    """Return the same image and instance in a compressed transfer syntax."""
    if syntax in (JPEGLossless, JPEGLosslessSV1):
        return jpeg_lossless(image, syntax)
    copy = deepcopy(image)
    copy.compress(syntax, generate_instance_uid=False)
    return copy


def jpeg_lossless(image: Dataset, syntax: UID) -> Dataset:
    """Return the image as JPEG Lossless, which pydicom cannot write but GDCM can."""
    with tempfile.TemporaryDirectory() as folder:
        before, after = str(Path(folder) / "before.dcm"), str(Path(folder) / "after.dcm")
        image.save_as(before, enforce_file_format=True)
        reader = gdcm.ImageReader()
        reader.SetFileName(before)
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        kinds = {
            JPEGLossless: gdcm.TransferSyntax.JPEGLosslessProcess14,
            JPEGLosslessSV1: gdcm.TransferSyntax.JPEGLosslessProcess14_1,
        }
        change.SetTransferSyntax(gdcm.TransferSyntax(kinds[syntax]))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(after)
        assert writer.Write()
        return dcmread(after)


def a_candidate(uid: str, view: View | None = L_CC, **overrides: Any) -> Candidate:
    """Return a usable image; one with ``obstacles`` is not."""
    fields: dict[str, Any] = {
        "kind": ImageKind.FOR_PRESENTATION,
        "laterality": view.laterality if view else None,
        "usable": not overrides.get("obstacles"),
        "acquired_at": "20260110101500.000000",
        "instance_number": 1,
    }
    return Candidate(instance_uid=uid, view=view, **(fields | overrides))
