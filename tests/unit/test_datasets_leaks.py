"""What leaks: patients and pictures on both sides of a split, and pictures known again by their prints."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.datasets.leaks import Duplicate, check_duplicates, check_patients, find_duplicates
from ai.datasets.prints import Copy, copies, print_of
from ai.datasets.records import Dataset, Record
from ai.datasets.sources import Source
from ai.errors import DuplicateImages, InvalidDataset, LeakingSplit
from tests.builders import L_CC
from tests.datasets import a_picture, write_png


def a_record(file: str = "a.png", patient: str = "P1", **known: object) -> Record:
    return replace(Record(file, patient, L_CC), **known)  # type: ignore[arg-type]


def test_a_patient_on_both_sides_is_refused_by_name() -> None:
    one, two, three = (a_record(f"{p}.png", p) for p in ("P1", "P2", "P3"))
    check_patients([one, two], [three])
    with pytest.raises(LeakingSplit, match="1 patient: P2"):
        check_patients([one, two], [two, three])


def a_texture(seed: int) -> NDArray[np.uint8]:
    """Return structure of all sizes, the larger the stronger, as in tissue."""
    random, texture = np.random.default_rng(seed), np.zeros((180, 140), np.float32)
    for octave in range(4):
        noise = random.random((9 << octave, 7 << octave), np.float32) / np.float32(1 << octave)
        texture += cv2.resize(noise, (140, 180), interpolation=cv2.INTER_CUBIC)
    texture -= texture.min()
    return np.asarray(np.round(255 * texture / texture.max()), np.uint8)


def test_a_picture_under_two_patients_is_found_however_it_was_turned_scaled_and_stored(tmp_path: Path) -> None:
    picture = a_texture(1)
    pictures = {
        "0.png": picture,
        "1.png": picture,
        "2.png": picture[:, ::-1],
        "3.png": picture[::-1],
        "4.png": picture[::-1, ::-1],
        "5.jpg": cv2.resize(picture, (300, 310)),
        "6.png": a_texture(2),
        "7.png": np.clip(picture.astype(int) + 12 * (a_texture(3) > 128), 0, 255).astype(np.uint8),
        "8.png": picture,
    }
    for name, pixels in pictures.items():
        write_png(tmp_path / name, pixels)
    patients = {name: name[0] for name in pictures} | {"8.png": "0"}
    records = tuple(a_record(name, patient) for name, patient in patients.items())
    seen: list[int] = []
    found = find_duplicates(Dataset(Source("d"), tmp_path, records), lambda: seen.append(1))
    assert len(seen) == 9
    of_first = {d.second.file: d.turned for d in found if d.first.file == "0.png"}
    # 8.png is of the same patient; 7.png differs in what its pixels say.
    assert of_first == {
        "1.png": "as it is",
        "2.png": "mirrored",
        "3.png": "upside down",
        "4.png": "half turned",
        "5.jpg": "as it is",
    }
    assert {name for d in found for name in (d.first.file, d.second.file)} & {"6.png", "7.png"} == set()
    assert {d.second.patient_id for d in found if d.first.file == "1.png"} == {"0", "2", "3", "4", "5"}


def test_a_print_does_not_depend_on_size_or_scale() -> None:
    picture = cv2.resize(a_texture(1), (128, 128)).astype(np.float32) / np.float32(255)
    large = cv2.resize(picture, (512, 256), interpolation=cv2.INTER_NEAREST)
    one, other = print_of(picture), print_of(large * np.float32(0.5))
    assert np.abs(one.thumbnail.astype(int) - other.thumbnail).max() <= 1
    assert np.bitwise_count(one.words ^ other.words).sum() <= 4
    assert print_of(np.zeros((70, 80), np.float32)).thumbnail.max() == 0


@given(
    st.integers(0, 50),
    st.sampled_from(["as it is", "mirrored", "upside down", "half turned"]),
    st.floats(0.7, 1.4),
    st.floats(0.5, 1),
    st.integers(130, 400),
    st.integers(130, 400),
)
def test_a_copy_is_known_however_it_was_turned_scaled_and_brightened(
    seed: int, turned: str, gamma: float, scale: float, rows: int, columns: int
) -> None:
    picture = a_texture(seed).astype(np.float32) / np.float32(255)
    copy = cv2.resize(picture, (columns, rows), interpolation=cv2.INTER_AREA).clip(0, 1) ** np.float32(gamma) * scale
    copy = copy[:: -1 if turned in ("upside down", "half turned") else 1]
    copy = copy[:, :: -1 if turned in ("mirrored", "half turned") else 1]
    prints = [print_of(each) for each in (a_texture(seed + 1000).astype(np.float32), picture, copy)]
    assert list(copies(prints, ["A", "B", "C"])) == [Copy(1, 2, turned)]
    assert list(copies(prints, ["A", "B", "B"])) == []


def test_no_picture_has_no_copy() -> None:
    assert list(copies([], [])) == []


def test_a_drawn_breast_with_a_mass_is_another_picture_than_without() -> None:
    breast = a_picture().astype(np.float32)
    shown = np.asarray(cv2.circle(breast.copy(), (30, 80), 9, (230,), -1), np.float32)
    assert list(copies([print_of(breast), print_of(shown)], ["A", "B"])) == []


def test_a_picture_in_two_parts_is_refused_and_in_one_part_it_is_not() -> None:
    pair = Duplicate(a_record("a.png", "P1"), a_record("b.png", "P2"), "mirrored")
    check_duplicates([pair], {"P1": 0, "P2": 0, "P3": 1})
    check_duplicates([pair], {"P1": 0})
    with pytest.raises(DuplicateImages, match=r"a\.png \(patient P1\) = b\.png \(patient P2\), mirrored"):
        check_duplicates([pair], {"P1": 0, "P2": 1})


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"a\.png: .*no DICOM|a\.png"):
        find_duplicates(Dataset(Source("d"), tmp_path, (a_record(),)))
