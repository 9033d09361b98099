"""A synthetic four-view exam with exact truth, as valid Digital Mammography X-Ray images (PS3.3 A.26).

The demo, the self-test and the tests send it through the same doors as a real exam.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import UID, DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian

from ai.exam import STANDARD_VIEWS, Laterality, View, ViewPosition
from node.identity import IMPLEMENTATION_CLASS_UID
from node.phantom_pixels import Anatomy, Grid, Lesion, render

FULL = Grid(2560, 2048, 0.09)
SMALL = Grid(512, 416, 0.45)

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


@dataclass(frozen=True, eq=False)
class PhantomMass:
    """One mass in one view.

    Attributes
    ----------
    view
        The view it is in.
    lesion
        The lesion that it shows: the same in CC and MLO.
    mask
        Shape (rows, columns) of the image, bool: exactly the pixels whose centre is within the mass.
    """

    view: View
    lesion: Lesion
    mask: NDArray[np.bool_]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Bounding box x, y, width, height in pixels."""
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        left, top = int(columns[0]), int(rows[0])
        return left, top, int(columns[-1]) + 1 - left, int(rows[-1]) + 1 - top


@dataclass(frozen=True, eq=False)
class PhantomExam:
    """Four images, in the order of the standard views, and the masses in them."""

    images: tuple[Dataset, ...]
    truth: tuple[PhantomMass, ...]

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
) -> PhantomExam:
    """Make the exam that belongs to a seed: equal arguments give equal pixels and equal UIDs.

    Parameters
    ----------
    seed
        At least 0.
    masses
        The lesions; None draws one to three, an empty sequence makes an exam without findings.
    small
        512 rows and 416 columns of 0.45 mm instead of 2560 and 2048 of 0.09 mm.
    acquired_at
        When the first image was taken; the others follow a minute apart. Written as it stands, without its zone.
    """
    rng = np.random.default_rng(seed)
    anatomy = Anatomy.draw(rng)
    drawn = tuple(draw_lesions(rng))
    lesions = drawn if masses is None else tuple(masses)
    grid = SMALL if small else FULL
    study = StudyHeader(f"{seed} {patient_id} {lesions} {grid} {acquired_at.isoformat()}", patient_id, acquired_at)
    images, truth = [], []
    for number, view in enumerate(STANDARD_VIEWS, start=1):
        shown = tuple(lesion for lesion in lesions if lesion.laterality is view.laterality)
        pixels, masks = render(view, anatomy, shown, grid, np.random.default_rng([seed, number]))
        images.append(mammogram(pixels, view, number, grid, study))
        truth += [PhantomMass(view, lesion, mask) for lesion, mask in zip(shown, masks, strict=True)]
    return PhantomExam(tuple(images), tuple(truth))


def draw_lesions(rng: Generator) -> Iterator[Lesion]:
    """Draw one to three lesions, large ones rarer than small ones."""
    for _ in range(rng.integers(1, 4)):
        yield Lesion(
            laterality=Laterality.LEFT if rng.random() < 0.5 else Laterality.RIGHT,
            depth=rng.uniform(0.3, 0.75),
            lateral=rng.uniform(-0.5, 0.5),
            vertical=rng.uniform(-0.4, 0.4),
            radius=float(np.exp(rng.uniform(np.log(4), np.log(12)))),
            irregularity=rng.uniform(0.02, 0.22),
            contrast=rng.uniform(0.12, 0.24),
        )


@dataclass(frozen=True)
class StudyHeader:
    """What the images of one phantom exam share.

    Attributes
    ----------
    key
        Text that tells this exam from every other phantom exam.
    patient_id, acquired_at
        As in `phantom_exam`.
    """

    key: str
    patient_id: str
    acquired_at: datetime

    def uid(self, kind: str) -> UID:
        """Return the UID of an object of the exam: 128 bits of SHA-256 under 2.25 (PS3.5 B.2)."""
        digest = sha256(f"{self.key} {kind}".encode()).digest()
        return UID(f"2.25.{int.from_bytes(digest[:16])}")


def mammogram(pixels: NDArray[np.uint16], view: View, number: int, grid: Grid, study: StudyHeader) -> Dataset:
    """Write one view as a For Presentation image in a series of its own.

    Without VOI LUT Function: OHIF 3.13 shows an image that has one as black (cornerstone3D issue 2844).
    """
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    image.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = study.uid(f"image {view}")
    describe_study(image, study)
    moment = study.acquired_at + timedelta(minutes=number)
    image.SeriesDate = image.AcquisitionDate = image.ContentDate = moment.strftime("%Y%m%d")
    image.SeriesTime = image.AcquisitionTime = image.ContentTime = moment.strftime("%H%M%S")
    image.SeriesInstanceUID = study.uid(f"series {view}")
    image.SeriesNumber = image.AcquisitionNumber = number
    image.InstanceNumber = 1
    image.SeriesDescription = str(view)
    describe_acquisition(image, view, grid)
    describe_view(image, view)
    describe_pixels(image)
    image.Rows, image.Columns = pixels.shape
    image.add_new("PixelData", "OW", pixels.astype("<u2").tobytes())
    return image


def describe_study(image: Dataset, study: StudyHeader) -> None:
    """Write patient, study and equipment."""
    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName, image.PatientID = "PHANTOM^FOUR VIEWS", study.patient_id
    image.PatientBirthDate, image.PatientSex, image.PatientAge = "19650101", "F", "061Y"
    image.StudyInstanceUID, image.StudyID = study.uid("study"), "1"
    image.StudyDate = study.acquired_at.strftime("%Y%m%d")
    image.StudyTime = study.acquired_at.strftime("%H%M%S")
    image.StudyDescription = "Screening mammography (synthetic)"
    image.AccessionNumber = study.uid("accession")[-12:]
    image.ReferringPhysicianName = ""
    image.Manufacturer, image.ManufacturerModelName = "Mammonode phantom", "Four views"
    image.InstitutionName, image.StationName = "Synthetic images, no patient", "PHANTOM"
    image.DeviceSerialNumber, image.SoftwareVersions = "1", "1"


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
    image.Modality, image.PresentationIntentType = "MG", "FOR PRESENTATION"
    image.ImageType = ["DERIVED", "PRIMARY"]
    image.ImageLaterality, image.ViewPosition = str(view.laterality), str(view.position)
    image.PatientOrientation = ORIENTATIONS[view]
    value, meaning = VIEW_CODES[view.position]
    image.ViewCodeSequence = DicomSequence([coded(value, meaning)])
    image.ViewCodeSequence[0].ViewModifierCodeSequence = DicomSequence()
    image.AnatomicRegionSequence = DicomSequence([coded("76752008", "Breast")])
    image.AcquisitionContextSequence = DicomSequence()
    image.ImagesInAcquisition = "1"
    image.BreastImplantPresent = image.PartialView = "NO"


def describe_pixels(image: Dataset) -> None:
    """Write how the stored values are displayed."""
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    image.PixelIntensityRelationship, image.PixelIntensityRelationshipSign = "LOG", 1
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = "0", "1", "US"
    image.PresentationLUTShape = "IDENTITY"
    image.WindowCenter, image.WindowWidth = ["1800", "1800"], ["3200", "2200"]
    image.WindowCenterWidthExplanation = ["NORMAL", "HARDER"]
    image.BurnedInAnnotation, image.LossyImageCompression = "NO", "00"


def coded(value: str, meaning: str) -> Dataset:
    """Return a SNOMED CT code sequence item (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item
