"""Parts of a body that become files: whole, whatever the pieces, with the digest that is made of the file."""

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from node.digests import digest
from node.records import START, dataset_begins, dataset_offset, read_header
from node.web.receiving import LONGEST_META, PREAMBLE, InstancePart


def an_instance(comment: str = "") -> bytes:
    image = Dataset()
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.PrivateInformationCreatorUID, image.file_meta.PrivateInformation = UID("1.2"), comment.encode()
    image.BitsAllocated, image.PixelData = 8, bytes(range(250)) * 2
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


INSTANCES = (an_instance(), an_instance("x" * 300), an_instance("x" * 2 * LONGEST_META))


def received(folder: Path, data: bytes, cuts: list[int]) -> tuple[bytes, str, str]:
    """Return what is in the file, its digest, and the one that is made by reading it."""
    found: list[tuple[bytes, str, str]] = []

    def on_end(path: Path, made: str) -> None:
        try:
            offset = dataset_offset(read_header(path))
        except Exception:  # noqa: BLE001 - no DICOM file
            offset = 0
        found.append((path.read_bytes(), made, digest(path, offset)))
        path.unlink()

    part = InstancePart(folder, on_end)
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        part.write(memoryview(data)[start:end])
    part.end()
    assert not list(folder.iterdir())
    return found[0]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from(INSTANCES[:2]),
    st.sampled_from([0, len(PREAMBLE)]),
    st.lists(st.integers(0, 800), max_size=8).map(sorted),
)
def test_an_instance_is_whole_and_digested_however_it_is_cut(
    tmp_path: Path, instance: bytes, lacks: int, cuts: list[int]
) -> None:
    sent = instance[lacks:]
    kept, made, read = received(tmp_path, sent, [min(cut, len(sent)) for cut in cuts])
    assert kept == instance
    assert made == read
    assert dataset_begins(kept) == dataset_offset(dcmread(BytesIO(kept))) > 0


@pytest.mark.parametrize("garbage", [b"", b"\2", b"\2\0", b"no DICOM at all", bytes(128) + b"DICM", b"x" * 5000])
def test_what_is_no_instance_is_kept_as_it_came(tmp_path: Path, garbage: bytes) -> None:
    kept, made, read = received(tmp_path, garbage, [min(1, len(garbage))])
    assert kept == (PREAMBLE + garbage if garbage == b"\2\0" else garbage)
    assert made == read


def test_a_head_that_says_it_has_no_end_is_not_waited_for(tmp_path: Path) -> None:
    endless = bytes(128) + START + b"\xff\xff\xff\xff" + b"x" * 3 * LONGEST_META
    part = InstancePart(tmp_path, lambda _path, _digest: None)
    part.write(memoryview(endless))
    [file] = tmp_path.iterdir()
    assert file.read_bytes() == endless
    part.discard()
    assert not list(tmp_path.iterdir())
    kept, _, _ = received(tmp_path, INSTANCES[2], [1000])
    assert kept == INSTANCES[2]
