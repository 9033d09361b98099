"""What the DICOM doors take and offer: SOP classes and transfer syntaxes."""

from pydicom import uid

MAMMOGRAMS = (
    uid.DigitalMammographyXRayImageStorageForPresentation,
    uid.DigitalMammographyXRayImageStorageForProcessing,
    uid.BreastTomosynthesisImageStorage,
    uid.BreastProjectionXRayImageStorageForPresentation,
    uid.BreastProjectionXRayImageStorageForProcessing,
)
"""Images that ask for an answer."""

OTHER_IMAGES = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
    uid.SecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    uid.CTImageStorage,
    uid.SegmentationStorage,
)
"""Mammograms were, and are, sent in these too; refusing one makes some modalities give up on the whole study."""

DOCUMENTS = (
    uid.XRayRadiationDoseSRStorage,
    uid.MammographyCADSRStorage,
    uid.BasicTextSRStorage,
    uid.EnhancedSRStorage,
    uid.ComprehensiveSRStorage,
    uid.Comprehensive3DSRStorage,
    uid.GrayscaleSoftcopyPresentationStateStorage,
    uid.KeyObjectSelectionDocumentStorage,
    uid.EncapsulatedPDFStorage,
)
"""Accepted and kept so that the association succeeds."""

UNCOMPRESSED = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian)

LOSSLESS = (
    uid.JPEGLosslessSV1,
    uid.JPEGLossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
    uid.HTJ2KLossless,
    uid.RLELossless,
)

LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000)
"""Taken last, so that the sender gets the answer "not analysed: lossy" (rule R5) and not a refusal it may hide."""

TRANSFER_SYNTAXES = {
    **dict.fromkeys((*MAMMOGRAMS, *OTHER_IMAGES), (*UNCOMPRESSED, *LOSSLESS, *LOSSY)),
    **dict.fromkeys(DOCUMENTS, UNCOMPRESSED),
}
"""SOP class → transfer syntaxes in the order of preference: of those proposed, the acceptor takes its own first one."""

VERIFICATION = uid.UID("1.2.840.10008.1.1")

STORAGE_COMMITMENT = uid.UID("1.2.840.10008.1.20.1")
STORAGE_COMMITMENT_INSTANCE = uid.UID("1.2.840.10008.1.20.1.1")
"""Its one, well-known SOP Instance (PS3.4 J.3.5)."""

STUDY_ROOT_FIND = uid.UID("1.2.840.10008.5.1.4.1.2.2.1")

VERIFICATION_SYNTAXES = (*UNCOMPRESSED, uid.DeflatedExplicitVRLittleEndian, uid.ExplicitVRBigEndian)
"""An echo has no data set: whatever a peer proposes will do."""

ACCEPTED = {VERIFICATION: VERIFICATION_SYNTAXES, **TRANSFER_SYNTAXES, STORAGE_COMMITMENT: UNCOMPRESSED}
"""The same for everything that an association may bring."""
