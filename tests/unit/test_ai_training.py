"""What a training run is fed: manifests, patient-grouped folds, samples, augmentation, losses."""

import math
from collections import Counter
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.breast import Geometry
from ai.datasets.manifest import read_manifest
from ai.datasets.records import Record, split_by_patient
from ai.errors import InvalidDataset
from ai.training.augmentation import STRONG, Augmentation
from ai.training.samples import ellipses, load_samples
from tests.builders import L_CC, R_MLO
from tests.drawn import a_data_set

if TYPE_CHECKING:
    from torch import Tensor

HEADER = "file,patient_id,laterality,view,malignant,pathologies,boxes_xywh"


def a_manifest(folder: Path, *lines: str, header: str = HEADER) -> Path:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_row_says_what_the_image_shows(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").touch()
    manifest = a_manifest(
        tmp_path,
        'images/a.png,P1,L,CC,1,MALIGNANT|BENIGN,"[[1, 2, 3, 4], [5.5, 6, 7, 8]]"',
        "images/b.png,P2,R,MLO,0,,[]",
        "images/c.png,P2,R,MLO,,,",
    )
    boxes = ((1, 2, 3, 4), (5.5, 6, 7, 8))
    assert read_manifest(manifest) == [
        Record("images/a.png", "P1", L_CC, boxes, True, ("MALIGNANT", "BENIGN"), ("masks/a.png",)),  # noqa: FBT003
        Record("images/b.png", "P2", R_MLO, (), False),  # noqa: FBT003
        Record("images/c.png", "P2", R_MLO, labelled=False),
    ]


def test_other_column_names_are_known_too(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, 'a.png,P1,R,MLO,"[[1, 2, 3, 4]]"', header="file,patient,side,view,boxes_xywh_800")
    assert read_manifest(manifest) == [Record("a.png", "P1", R_MLO, ((1, 2, 3, 4),))]


def test_only_rows_with_the_wanted_values_are_taken(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path, "a.png,P1,L,CC,1,,[]", "b.png,P1,L,SPOT,1,,[]", "c.png,P2,L,CC,0,,[]")
    assert [r.file for r in read_manifest(manifest, {"view": "CC"})] == ["a.png", "c.png"]
    assert [r.file for r in read_manifest(manifest, {"view": "CC", "patient_id": "P2"})] == ["c.png"]
    assert read_manifest(manifest, {"view": "XCCL"}) == []
    with pytest.raises(
        InvalidDataset, match=r"manifest\.csv: there is no column 'vendor'; there are file, patient_id, "
    ):
        read_manifest(manifest, {"vendor": "X"})


@pytest.mark.parametrize(
    "line",
    [
        "b.png,P1,L,SPOT,0,,[]",
        "b.png,P1,LEFT,CC,0,,[]",
        "b.png,P1,L,CC,0,,[[1 2 3 4]]",
        'b.png,P1,L,CC,0,,"[[1, 2, 3]]"',
        'b.png,P1,L,CC,0,,"[1, 2, 3, 4]"',
        'b.png,P1,L,CC,0,,"[[1, 2, 3, ""x""]]"',
        "b.png,P1,L,CC,yes,,[]",
        "b.png,P1,L",
    ],
)
def test_a_value_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidDataset, match="line 3: "):
        read_manifest(a_manifest(tmp_path, "a.png,P1,L,CC,0,,[]", line))


@pytest.mark.parametrize("column", ["file", "patient_id", "laterality", "view"])
def test_a_missing_column_is_refused_by_name(tmp_path: Path, column: str) -> None:
    manifest = a_manifest(tmp_path, "a.png,P1,L,CC,0,,[]", header=HEADER.replace(column, "other"))
    name = {"patient_id": "patient", "laterality": "side"}.get(column, column)
    with pytest.raises(InvalidDataset, match=f"line 2: .*{name}"):
        read_manifest(manifest)


def test_a_manifest_that_is_not_there_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"gone\.csv"):
        read_manifest(tmp_path / "gone.csv")
    (tmp_path / "picture.csv").write_bytes(b"\xff\xd8\xff\xe0\n\x80\x81")
    with pytest.raises(InvalidDataset, match=r"picture\.csv"):
        read_manifest(tmp_path / "picture.csv")


@pytest.mark.parametrize(
    ("pathologies", "malignant", "boxes", "agreed"),
    [
        (("MALIGNANT",), True, 1, True),
        (("BENIGN_WITHOUT_CALLBACK",), False, 1, False),
        (("BENIGN", "BENIGN_WITHOUT_CALLBACK"), False, 2, False),
        (("MALIGNANT", "BENIGN"), True, 2, None),  # their order against the boxes is not known
        ((), True, 1, True),
        ((), True, 2, None),  # one of them is
        ((), False, 2, False),
        ((), False, 0, None),  # there is none
        ((), None, 1, None),
    ],
)
def test_a_mass_is_malignant_when_the_set_says_so_without_doubt(
    pathologies: tuple[str, ...], *, malignant: bool | None, boxes: int, agreed: bool | None
) -> None:
    record = Record("a", "P", L_CC, ((0, 0, 9, 9),) * boxes, malignant, pathologies)
    assert record.agreed_malignancy is agreed


def records_of(malignant: int, other: int, images: int = 2) -> list[Record]:
    return [
        Record(f"{kind}{patient}-{n}", f"{kind}{patient}", L_CC, malignant=kind == "M" and n == 0)
        for kind, count in (("M", malignant), ("B", other))
        for patient in range(count)
        for n in range(images)
    ]


@given(st.integers(0, 30), st.integers(0, 30), st.integers(2, 6), st.integers(0, 99))
def test_every_patient_is_in_one_fold_and_folds_are_alike(malignant: int, other: int, folds: int, seed: int) -> None:
    records = records_of(malignant, other)
    places = split_by_patient(records, folds, seed)
    assert places.keys() == {r.patient_id for r in records}
    assert set(places.values()) <= set(range(folds))
    for kind in "MB":
        counts = Counter(fold for patient, fold in places.items() if patient[0] == kind)
        assert max((counts[f] for f in range(folds)), default=0) - min(counts[f] for f in range(folds)) <= 1


def test_the_folds_depend_on_the_seed_and_not_on_the_order() -> None:
    records = records_of(20, 20)
    places = split_by_patient(records, 5, 1)
    assert split_by_patient(records[::-1], 5, 1) == places
    assert split_by_patient(records, 5, 2) != places


def test_the_folds_are_those_that_shipped_cards_were_made_with() -> None:
    # Another dealing would mix patients that a model was trained on into its validation.
    places = split_by_patient(records_of(4, 6), 5, 1)
    assert places == {"M1": 0, "M3": 1, "M2": 2, "M0": 3, "B1": 0, "B5": 1, "B0": 2, "B2": 3, "B3": 4, "B4": 0}


def test_samples_have_their_masses_where_the_boxes_are(tmp_path: Path) -> None:
    manifest = a_data_set(tmp_path / "set", 4)
    records = read_manifest(manifest)
    seen: list[int] = []
    samples = load_samples(manifest.parent, records, (96, 64), lambda: seen.append(1))
    assert len(samples) == len(seen) == 4
    for sample in samples:
        assert sample.pixels.shape == sample.mass.shape == (96, 64)
        assert sample.mass.any() == bool(sample.record.boxes)
        if sample.record.boxes:
            bright = (sample.pixels > 194).astype(np.uint8)
            common = (bright & sample.mass).sum()
            assert 2 * common / (bright.sum() + sample.mass.sum()) > 0.85


def test_samples_take_masks_before_boxes(tmp_path: Path) -> None:
    manifest = a_data_set(tmp_path / "set", 1)
    (record,) = read_manifest(manifest)
    x, y, width, height = (int(side) for side in record.boxes[0])
    mask = np.zeros((160, 120), np.uint8)
    mask[y : y + height, x : x + width // 2] = 255  # the left half of the box
    (manifest.parent / "masks").mkdir()
    cv2.imwrite(str(manifest.parent / "masks" / "000.png"), mask)
    (sample,) = load_samples(manifest.parent, read_manifest(manifest), (96, 64))
    expected = sample.geometry.to_canvas((mask > 0).astype(np.float32)) > 0.5
    assert expected.any()
    assert (sample.mass == expected).all()


def test_an_image_that_cannot_be_used_stops_the_training_by_name(tmp_path: Path) -> None:
    manifest = a_data_set(tmp_path / "set", 2)
    cv2.imwrite(str(manifest.parent / "images" / "001.png"), np.zeros((90, 60), np.uint8))
    with pytest.raises(InvalidDataset, match=r"images/001\.png.*breast"):
        load_samples(manifest.parent, read_manifest(manifest), (64, 64))


@pytest.mark.parametrize(
    "geometry",
    [Geometry((200, 150), (10, 20, 120, 160), mirrored, (0.5, 0.5), (80, 64)) for mirrored in (False, True)],
    ids=["left", "mirrored"],
)
def test_an_ellipse_fills_its_box_and_no_more(geometry: Geometry) -> None:
    mass = ellipses([(30, 60, 40, 60)], geometry)
    assert mass.sum() == pytest.approx(np.pi * 10 * 15, rel=0.1)
    corners = geometry.points_to_canvas(np.array([[30.0, 60.0], [70.0, 120.0]]))
    rows, columns = np.nonzero(mass)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    expected = [*corners.min(0), *corners.max(0)]
    np.testing.assert_allclose(found, expected, atol=1)


QUIET = replace(
    Augmentation(), rotation=0, scale=(1, 1), aspect=0, shift=0, gamma=(1, 1), contrast=0, brightness=0, noise=0, flip=0
)


ITS_BOX = np.array([[10.0, 32, 31, 49]])


def a_disc(x: int = 20, y: int = 40) -> NDArray[np.uint8]:
    mass = np.zeros((96, 64), np.uint8)
    cv2.ellipse(mass, (x, y), (9, 5), 30, 0, 360, (1,), -1)
    return mass


def test_without_changes_the_sample_stays_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64)).astype(np.uint8)
    image, truth, boxes = QUIET(pixels, a_disc(), ITS_BOX, np.random.default_rng(0))
    np.testing.assert_allclose(image, pixels / 127.5 - 1, atol=1e-6)
    np.testing.assert_array_equal(truth, a_disc())
    np.testing.assert_allclose(boxes, ITS_BOX)
    assert image.dtype == truth.dtype == np.float32


@given(st.integers(0, 2**32), st.integers(15, 45), st.integers(25, 70))
def test_the_mask_moves_with_the_image(seed: int, x: int, y: int) -> None:
    moves = replace(Augmentation(), noise=0, gamma=(1, 1), contrast=0, brightness=0)
    mass = a_disc(x, y)
    image, truth, _ = moves(255 * mass, mass, np.zeros((0, 4)), np.random.default_rng(seed))
    shown = image > 0
    if shown.sum() + truth.sum() > 60:
        assert 2 * (shown & (truth > 0)).sum() / (shown.sum() + truth.sum()) > 0.9
    assert set(np.unique(truth)) <= {0, 1}


@given(st.integers(0, 2**32), st.integers(6, 14), st.integers(6, 20))
def test_the_box_stays_around_the_ellipse_that_is_inscribed_in_it(seed: int, across: int, down: int) -> None:
    mass = np.zeros((128, 96), np.uint8)
    cv2.ellipse(mass, ((47.5, 63.5), (2 * across, 2 * down), 0.0), 1, cv2.FILLED)
    box = np.array([[48.0 - across, 64 - down, 48 + across, 64 + down]])
    _, truth, changed = STRONG(mass, mass, box, np.random.default_rng(seed))
    rows, columns = np.flatnonzero(truth.any(1)), np.flatnonzero(truth.any(0))
    np.testing.assert_allclose(changed[0], [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], atol=2)


MOVES: list[dict[str, Any]] = [{"rotation": 12}, {"scale": (0.8, 0.8)}, {"aspect": 0.3}, {"shift": 0.06}, {"flip": 1}]
EXPOSURES: list[dict[str, Any]] = [{"gamma": (2, 2)}, {"contrast": 0.3}, {"brightness": 0.2}, {"noise": 0.1}]


@pytest.mark.parametrize("change", MOVES, ids=lambda c: next(iter(c)))
def test_each_move_moves_the_mask(change: dict[str, Any]) -> None:
    _, truth, boxes = replace(QUIET, **change)(255 * a_disc(), a_disc(), ITS_BOX, np.random.default_rng(3))
    assert (truth != a_disc()).any()
    assert (boxes != ITS_BOX).any()


@pytest.mark.parametrize("change", EXPOSURES, ids=lambda c: next(iter(c)))
def test_each_exposure_leaves_the_mask_in_its_place(change: dict[str, Any]) -> None:
    pixels = np.full((96, 64), 100, np.uint8)
    image, truth, boxes = replace(QUIET, **change)(pixels, a_disc(), ITS_BOX, np.random.default_rng(1))
    np.testing.assert_array_equal(truth, a_disc())
    np.testing.assert_allclose(boxes, ITS_BOX)
    assert np.abs(image - (100 / 127.5 - 1)).max() > 0.01


def test_every_change_is_tried() -> None:
    assert {key for change in MOVES + EXPOSURES for key in change} == {field.name for field in fields(Augmentation)}


def test_the_same_generator_gives_the_same_change() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 64)).astype(np.uint8)
    first, second, third = (Augmentation()(pixels, a_disc(), ITS_BOX, np.random.default_rng(s)) for s in (5, 5, 6))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[0] != third[0]).any()


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def full(value: float, *shape: int) -> "Tensor":
    import torch

    return torch.full(shape, float(value))


def test_focal_tversky_by_hand() -> None:
    from ai.training.losses import focal_tversky

    target = full(0, 1, 2, 2)
    target[0, 0] = 1
    # p = 0.8 everywhere on four pixels, two of them mass: tp 1.6, fp 1.6, fn 0.4.
    expected = (1 - (1.6 + 1) / (1.6 + 0.4 * 1.6 + 0.6 * 0.4 + 1)) ** 0.75
    assert focal_tversky(full(logit(0.8), 1, 2, 2), target).item() == pytest.approx(expected, rel=1e-5)


def test_focal_tversky_is_the_mean_over_images_and_blames_misses_more() -> None:
    import torch

    from ai.training.losses import focal_tversky

    target = full(0, 2, 8, 8)
    target[:, :, :4] = 1
    misses, extra = full(-20, 1, 8, 8), full(20, 1, 8, 8)
    missed, overdone = focal_tversky(misses, target[:1]), focal_tversky(extra, target[:1])
    both = focal_tversky(torch.cat([misses, extra]), target)
    assert both.item() == pytest.approx((missed.item() + overdone.item()) / 2)
    assert missed > overdone


def test_an_empty_mask_costs_nothing_when_nothing_is_found_and_something_else() -> None:
    from ai.training.losses import focal_tversky

    empty = full(0, 1, 8, 8)
    assert focal_tversky(full(-30, 1, 8, 8), empty).item() < 1e-4
    assert focal_tversky(full(30, 1, 8, 8), empty).item() == pytest.approx((1 - 1 / (0.4 * 64 + 1)) ** 0.75)


def the_loss(
    mass_logit: float,
    malignant_logit: float,
    image_logit: float,
    *,
    area: int = 2,
    mass_label: float = math.nan,
    image_label: float = math.nan,
) -> float:
    import torch

    from ai.training.losses import mass_loss

    maps = torch.stack([full(mass_logit, 2, 2), full(malignant_logit, 2, 2)])[None].requires_grad_()
    mass = full(0, 1, 2, 2)
    mass.view(-1)[:area] = 1
    image = full(image_logit, 1).requires_grad_()
    loss = mass_loss(maps, image, mass, full(mass_label, 1), full(image_label, 1))
    loss.backward()  # type: ignore[no-untyped-call]
    assert maps.grad is not None
    assert maps.grad.isfinite().all()
    assert image.grad is None or bool(image.grad.isfinite().all())
    return float(loss.item())


def test_the_loss_of_the_map_by_hand() -> None:
    bce = -(2 * 3 * math.log(0.8) + 2 * math.log(0.2)) / 4
    tversky = (1 - 2.6 / (1.6 + 0.4 * 1.6 + 0.6 * 0.4 + 1)) ** 0.75
    assert the_loss(logit(0.8), 5, 7) == pytest.approx(bce + tversky, rel=1e-5)


def test_malignancy_counts_inside_masses_whose_label_is_known() -> None:
    without = the_loss(logit(0.8), logit(0.3), 7)
    assert the_loss(logit(0.8), logit(0.9), 7) == pytest.approx(without)
    assert the_loss(logit(0.8), logit(0.3), 7, mass_label=1) - without == pytest.approx(-0.5 * math.log(0.3), rel=1e-4)
    assert the_loss(logit(0.8), logit(0.3), 7, mass_label=0) - without == pytest.approx(-0.5 * math.log(0.7), rel=1e-4)


def test_the_image_label_counts_where_it_is_known() -> None:
    without = the_loss(logit(0.8), 0, logit(0.6))
    assert the_loss(logit(0.8), 0, logit(0.6), image_label=1) - without == pytest.approx(-0.5 * math.log(0.6), rel=1e-4)


def test_an_image_without_mass_has_no_malignancy_of_masses() -> None:
    assert the_loss(-30, 3, 0, area=0, mass_label=1) == pytest.approx(0, abs=1e-3)


def test_malignancy_of_masses_is_the_mean_over_images_that_have_one() -> None:
    import torch

    from ai.training.losses import mass_loss

    maps = torch.stack([full(-30, 3, 2, 2), full(logit(0.3), 3, 2, 2)], 1)
    maps[:2, 0] = 30
    mass = full(0, 3, 2, 2)
    mass[:2] = 1
    labels = torch.tensor([1.0, 0.0, math.nan])
    expected = 0.5 * (-math.log(0.3) - math.log(0.7)) / 2
    loss = mass_loss(maps, full(0, 3), mass, labels, full(math.nan, 3))
    assert loss.item() == pytest.approx(expected, abs=2e-3)


def the_box_loss(centres: "Tensor", distances: "Tensor", *boxes: tuple[float, ...]) -> float:
    import torch

    from ai.training.losses import box_loss

    placed = torch.tensor([boxes], dtype=torch.float32).reshape(1, -1, 4)
    return float(box_loss(centres, distances, placed, stride=4).item())


def test_the_loss_of_one_box_by_hand() -> None:
    # Two by two cells of 4 pixels; the box's middle (2, 2) is the middle of the first, its half sides 4 pixels are 1 each.
    box = (-2.0, -2.0, 6.0, 6.0)
    there, away = math.log(0.8) * 0.2**2, math.log(0.4) * 0.6**2
    centres = full(logit(0.6), 1, 2, 2)
    centres[0, 0, 0] = logit(0.8)
    side, corner = 1 - math.exp(-4.5), 1 - math.exp(-9)
    expected = -(there + 2 * away * side**4 + away * corner**4)
    # The first cell tells a box of 8 x 8 with 4 to either side, which is right; then one of 4 x 8 within it.
    assert the_box_loss(centres, full(4, 1, 4, 2, 2), box) == pytest.approx(expected, rel=1e-4)
    narrow = full(4, 1, 4, 2, 2)
    narrow[:, ::2] = 2
    assert the_box_loss(centres, narrow, box) == pytest.approx(expected + 1 - 0.5, rel=1e-4)


def test_a_box_beside_the_truth_costs_more_than_one_that_misses_it_nearly() -> None:
    box, certain = (0.0, 0.0, 4.0, 4.0), full(-20, 1, 8, 8)
    told = full(2, 1, 4, 8, 8)
    far = told.clone()
    far[:, 0], far[:, 2] = -20, 24  # a box whose left edge is to the right of the truth
    assert the_box_loss(certain, far, box) - the_box_loss(certain, told, box) > 1


def test_without_a_mass_every_cell_is_none_and_no_box_costs() -> None:
    quiet, wrong = full(-20, 1, 4, 4), full(logit(0.5), 1, 4, 4)
    distances = full(4, 1, 4, 4, 4)
    assert the_box_loss(quiet, distances) == pytest.approx(0, abs=1e-6)
    assert the_box_loss(wrong, distances) == pytest.approx(-16 * math.log(0.5) * 0.25, rel=1e-5)
    nan = (math.nan,) * 4
    assert the_box_loss(wrong, distances, nan, nan) == pytest.approx(the_box_loss(wrong, distances))


def test_each_cell_learns_the_box_that_it_is_nearest_to() -> None:
    import torch

    from ai.training.losses import box_loss

    boxes = torch.tensor([[[0.0, 0, 16, 16], [32, 0, 48, 16]]])
    distances = full(8, 1, 4, 8, 16).requires_grad_()
    box_loss(full(0, 1, 8, 16), distances, boxes, stride=4).backward()  # type: ignore[no-untyped-call]
    assert distances.grad is not None
    learns = distances.grad[0].abs().sum(0) > 0
    assert learns[1:3, 1:3].all()
    assert learns[1:3, 9:11].all()
    assert not learns[:, 4:8].any()
    assert not learns[5:].any()
