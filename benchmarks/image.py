"""The image that senders send: made with the phantom's header, which takes imports that no sender should wait for."""

import numpy as np
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from benchmarks.images import TOKENS, Image
from node.phantom import phantom_exam

ROWS, COLUMNS = 3328, 2560


def the_image() -> Image:
    """Return the phantom's header with random pixels of twelve bits, 3328 x 2560."""
    image = phantom_exam(1, small=True).images[0]
    image.StudyInstanceUID, image.SeriesInstanceUID = TOKENS["study"].decode(), TOKENS["series"].decode()
    image.SOPInstanceUID, image.PatientID = TOKENS["instance"].decode(), TOKENS["patient"].decode()
    image.Rows, image.Columns = ROWS, COLUMNS
    pixels = np.random.default_rng(0).integers(0, 1 << 12, (ROWS, COLUMNS), dtype=np.uint16).tobytes()
    image.PixelData = pixels
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, image)
    data = buffer.getvalue()
    at = data.index(pixels)
    return Image(str(image.SOPClassUID).encode(), data[:at], data[at:])
