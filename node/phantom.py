"""A synthetic four-view exam with exact truth, as valid Digital Mammography X-Ray images (PS3.3 A.26).

The demo, the self-test and the tests send it through the same doors as a real exam.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    ExplicitVRLittleEndian,
)

from ai.exam import STANDARD_VIEWS, Laterality, View, ViewPosition
from ai.phantom.exam import Woman
from ai.phantom.grid import Grid
from ai.phantom.lesions import Lesion
from ai.phantom.render import RAW_BITS
from ai.phantom.truth import PhantomMass, PhantomView
from ai.phantom.vendors import VENDORS, Vendor
from node.identity import IMPLEMENTATION_CLASS_UID

VIEW_CODES = {
    ViewPosition.CC: ("399162004", "cranio-caudal"),
    ViewPosition.MLO: ("399368009", "medio-lateral oblique"),
}
"""PS3.16 CID 4014, scheme SCT."""

ORIENTATIONS = {
    View(Laterality.LEFT, ViewPosition.CC): ["A", "R"],
    View(Laterality.RIGHT, ViewPosition.CC): ["P", "L"],
    View(Laterality.LEFT, ViewPosition.MLO): ["A", "FR"],
    View(Laterality.RIGHT, ViewPosition.MLO): ["P", "FL"],
}
"""Patient Orientation: chest wall at the left edge for a left breast, at the right edge for a right one."""

SOURCE_TO_DETECTOR, SOURCE_TO_PATIENT = 650, 620
"""In mm; Estimated Radiographic Magnification Factor is their quotient (PS3.3 C.8.7.2)."""


class VoiFunction(StrEnum):
    """VOI LUT Function (0028,1056), PS3.3 C.11.2."""

    #: Not written, which means LINEAR. OHIF 3.13 shows an image that has one as black (cornerstone3D issue 2844).
    NONE = "none"
    LINEAR = "LINEAR"
    LINEAR_EXACT = "LINEAR_EXACT"
    SIGMOID = "SIGMOID"


@dataclass(frozen=True)
class Form:
    """How the images of a phantom exam are written: what differs between senders.

    Attributes
    ----------
    voi_function
        Of the windows.
    one_series
        All views in one series; else each in one of its own.
    for_processing
        Whether each image has a For Processing twin, the exposure that it was made of, in a series of its own.
    """

    voi_function: VoiFunction = VoiFunction.NONE
    one_series: bool = False
    for_processing: bool = False


PLAIN = Form()


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """Four images, in the order of the standard views, and the masses in them.

    Attributes
    ----------
    images
        For Presentation.
    truth
        Masses, view by view.
    woman, vendor, views
        What the images were made of.
    acquired_at
        When the first was.
    twins
        For Processing, in the same order; empty when the form has none.
    """

    images: tuple[Dataset, ...]
    truth: tuple[PhantomMass, ...]
    woman: Woman
    vendor: Vendor
    views: tuple[PhantomView, ...]
    acquired_at: datetime
    twins: tuple[Dataset, ...] = ()

    def image(self, view: View) -> Dataset:
        """Return the image of a view."""
        return self.images[STANDARD_VIEWS.index(view)]

    def masses(self, view: View) -> tuple[PhantomMass, ...]:
        """Return the masses in a view."""
        return tuple(mass for mass in self.truth if mass.view == view)


def phantom_exam(
    seed: int,
    *,
    patient_id: str = "PHANTOM-1",
    masses: Sequence[Lesion] | None = None,
    small: bool = False,
    acquired_at: datetime = datetime(2026, 1, 10, 10, 15, tzinfo=UTC),
    vendor: Vendor = VENDORS["a"],
    form: Form = PLAIN,
) -> PhantomExam:
    """Make the exam that belongs to a seed: equal arguments give equal pixels and equal UIDs.

    Parameters
    ----------
    seed
        At least 0.
    masses
        The lesions; None draws one to three, an empty sequence makes the twin without masses.
    small
        512 rows and 416 columns of 0.45 mm instead of the vendor's detector.
    acquired_at
        When the first image was taken; the others follow a minute apart. Written as it stands, without its zone.
    vendor
        Of the detector.
    form
        How the images are written.
    """
    woman = Woman.draw(seed, masses)
    made_by = vendor.small if small else vendor
    key = f"{seed} {patient_id} {woman.lesions} {made_by} {form} {acquired_at.isoformat()}"
    study = StudyHeader(key, patient_id, acquired_at, woman.anatomy.age, form)
    views = tuple(woman.views(made_by))
    numbered = tuple(enumerate(views, start=1))
    images = tuple(mammogram(each.pixels, each.view, number, made_by, study) for number, each in numbered)
    twins: tuple[Dataset, ...] = ()
    if form.for_processing:
        twins = tuple(raw_mammogram(each.raw, each.view, number, made_by, study) for number, each in numbered)
    truth = tuple(mass for each in views for mass in each.masses)
    return PhantomExam(images, truth, woman, made_by, views, acquired_at, twins)


@dataclass(frozen=True)
class StudyHeader:
    """What the images of one phantom exam share.

    Attributes
    ----------
    key
        Text that tells this exam from every other phantom exam.
    patient_id, acquired_at, form
        As in `phantom_exam`.
    age
        Of the woman, in years.
    """

    key: str
    patient_id: str
    acquired_at: datetime
    age: int = 60
    form: Form = PLAIN

    def uid(self, kind: str) -> UID:
        """Return the UID of an object of the exam: 128 bits of SHA-256 under 2.25 (PS3.5 B.2)."""
        digest = sha256(f"{self.key} {kind}".encode()).digest()
        return UID(f"2.25.{int.from_bytes(digest[:16])}")


def mammogram(pixels: NDArray[np.uint16], view: View, number: int, vendor: Vendor, study: StudyHeader) -> Dataset:
    """Write one view as a For Presentation image."""
    image = _instance(view, number, vendor, study, DigitalMammographyXRayImageStorageForPresentation, "")
    image.PresentationIntentType, image.ImageType = "FOR PRESENTATION", ["DERIVED", "PRIMARY"]
    describe_pixels(image, vendor.bits, "LOG", sign=-1)
    middle, width = 1 << (vendor.bits - 1), 1 << vendor.bits
    image.WindowCenter, image.WindowWidth = [str(middle), str(middle)], [str(width), str(3 * width // 4)]
    image.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    if study.form.voi_function is not VoiFunction.NONE:
        image.VOILUTFunction = str(study.form.voi_function)
    _add_pixels(image, pixels)
    return image


def raw_mammogram(pixels: NDArray[np.uint16], view: View, number: int, vendor: Vendor, study: StudyHeader) -> Dataset:
    """Write the exposure of one view as a For Processing image."""
    image = _instance(view, number, vendor, study, DigitalMammographyXRayImageStorageForProcessing, " raw")
    image.PresentationIntentType, image.ImageType = "FOR PROCESSING", ["ORIGINAL", "PRIMARY"]
    describe_pixels(image, RAW_BITS, "LIN", sign=1)
    _add_pixels(image, pixels)
    return image


def _instance(view: View, number: int, vendor: Vendor, study: StudyHeader, sop_class: UID, kind: str) -> Dataset:
    """Return an image without pixels."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = sop_class
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = study.uid(f"image {view}{kind}")
    describe_study(image, study)
    moment = study.acquired_at + timedelta(minutes=number)
    image.SeriesDate = image.AcquisitionDate = image.ContentDate = moment.strftime("%Y%m%d")
    image.SeriesTime = image.AcquisitionTime = image.ContentTime = moment.strftime("%H%M%S")
    together = study.form.one_series
    image.SeriesInstanceUID = study.uid(f"series {'views' if together else view}{kind}")
    image.SeriesNumber = (1 if together else number) + (100 if kind else 0)
    image.AcquisitionNumber, image.InstanceNumber = number, number if together else 1
    image.SeriesDescription = f"{'Four views' if together else view}{kind}, phantom"
    image.ManufacturerModelName = f"Phantom {vendor.name.upper()}"
    describe_acquisition(image, view, vendor.grid)
    describe_view(image, view)
    return image


def _add_pixels(image: Dataset, pixels: NDArray[np.uint16]) -> None:
    """Write the stored values."""
    image.Rows, image.Columns = pixels.shape
    image.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())


def describe_study(image: Dataset, study: StudyHeader) -> None:
    """Write patient, study and equipment."""
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName, image.PatientID = "PHANTOM^FOUR VIEWS", study.patient_id
    image.PatientBirthDate, image.PatientSex, image.PatientAge = _birth_date(study), "F", f"{study.age:03d}Y"
    image.StudyInstanceUID, image.StudyID = study.uid("study"), "1"
    image.StudyDate = study.acquired_at.strftime("%Y%m%d")
    image.StudyTime = study.acquired_at.strftime("%H%M%S")
    image.StudyDescription = "Phantom, synthetic: screening mammography"
    image.AccessionNumber = study.uid("accession")[-12:]
    image.ReferringPhysicianName = ""
    image.Manufacturer = "Mammonode phantom"
    image.InstitutionName, image.StationName = "Synthetic images, no patient", "PHANTOM"
    image.DeviceSerialNumber, image.SoftwareVersions = "1", "1"


def _birth_date(study: StudyHeader) -> str:
    """Return the first day of the year in which a woman of that age was born or would have been."""
    return f"{study.acquired_at.year - study.age}0101"


def describe_acquisition(image: Dataset, view: View, grid: Grid) -> None:
    """Write X-ray acquisition, detector and geometry: Imager Pixel Spacing only, no Frame of Reference."""
    image.BodyPartExamined, image.OrganExposed = "BREAST", "BREAST"
    image.KVP, image.ExposureTime, image.XRayTubeCurrent = "28", "1000", "100"
    image.Exposure, image.ExposureInuAs, image.RelativeXRayExposure = "100", "100000", "400"
    image.OrganDose, image.EntranceDoseInmGy = "0.012", "6"
    image.DistanceSourceToDetector, image.DistanceSourceToPatient = str(SOURCE_TO_DETECTOR), str(SOURCE_TO_PATIENT)
    image.EstimatedRadiographicMagnificationFactor = f"{SOURCE_TO_DETECTOR / SOURCE_TO_PATIENT:.6f}"
    image.BodyPartThickness, image.CompressionForce = "55", "90"
    angle = 0 if view.position is ViewPosition.CC else 45
    image.PositionerType = "MAMMOGRAPHIC"
    image.PositionerPrimaryAngle = str(angle if view.laterality is Laterality.LEFT else -angle)
    image.AnodeTargetMaterial, image.FilterMaterial, image.Grid = "TUNGSTEN", "RHODIUM", "NONE"
    image.DetectorType, image.DetectorConfiguration = "DIRECT", "AREA"
    image.DetectorID, image.DetectorTemperature = "1", "25"
    image.DetectorActiveShape = image.FieldOfViewShape = "RECTANGLE"
    image.FieldOfViewDimensions = [str(int(side * grid.spacing)) for side in (grid.rows, grid.columns)]
    image.FieldOfViewOrigin, image.FieldOfViewRotation = [0.0, 0.0], "0"
    image.FieldOfViewHorizontalFlip = "NO"
    image.ImagerPixelSpacing = [grid.spacing, grid.spacing]


def describe_view(image: Dataset, view: View) -> None:
    """Write laterality, view and what else PS3.3 C.8.11.7 asks of a mammogram."""
    image.Modality = "MG"
    image.ImageLaterality, image.ViewPosition = str(view.laterality), str(view.position)
    image.PatientOrientation = ORIENTATIONS[view]
    value, meaning = VIEW_CODES[view.position]
    image.ViewCodeSequence = DicomSequence([coded(value, meaning)])
    image.ViewCodeSequence[0].ViewModifierCodeSequence = DicomSequence()
    image.AnatomicRegionSequence = DicomSequence([coded("76752008", "Breast")])
    image.AcquisitionContextSequence = DicomSequence()
    image.ImagesInAcquisition = "1"
    image.BreastImplantPresent = image.PartialView = "NO"


def describe_pixels(image: Dataset, bits: int, relationship: str, *, sign: int) -> None:
    """Write what the stored values are.

    Parameters
    ----------
    bits
        Of a stored value.
    relationship, sign
        To the X-ray beam's intensity (PS3.3 C.8.11.3.1.2); -1 where higher values are less of it.
    """
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, bits, bits - 1, 0
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = relationship, sign
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "0", "1", "US"
    image.PresentationLUTShape = "IDENTITY"
    image.BurnedInAnnotation, image.LossyImageCompression = "NO", "00"


def coded(value: str, meaning: str) -> Dataset:
    """Return a SNOMED CT code sequence item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
