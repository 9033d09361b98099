"""The reader of Madsen's project: a picture that keeps its 16 bits, and regions, masks and pathologies at their places."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.errors import InvalidCard, NoBreast, UnknownArchitecture, UnusableWeights
from ai.exam import STANDARD_VIEWS, Exam, Laterality, View, ViewImage
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.builders import A_MASS_IN_EACH, L_CC, R_CC
from tests.drawn import a_breast
from tests.models import a_model, untrained
from tests.seed_networks import network, registered

if TYPE_CHECKING:
    from ai.readers.base import Reader

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
CANVAS = (320, 160)


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


def a_card(**roles: dict[str, Any]) -> dict[str, Any]:
    """Return the architecture; what is given for a role changes its table."""
    card: dict[str, Any] = {
        "clip_limit": 3.0,
        "detector": {"network": "bright_box", "canvas": list(CANVAS), "weights": ["detector.safetensors"]},
        "segmenter": {"network": "bright_mask", "side": 64, "weights": ["segmenter.safetensors"]},
        "classifier": {"network": "contrast", "weights": ["classifier.safetensors"]},
    }
    for role, changes in roles.items():
        card[role] = {k: v for k, v in (card[role] | changes).items() if v is not None}
    return card


def parts(**changes: Any) -> dict[str, Any]:
    """Return networks that find what is above 0.8, and say 0.81 and sigmoid(1) of it."""
    return {
        "detector": network("bright_box", level=0.8, margin=4.0, score=0.81),
        "segmenter": network("bright_mask", slope=50.0, middle=0.8),
        "classifier": network("contrast", slope=0.0, bias=1.0),
    } | changes


def reader(
    folder: Path, given: dict[str, Any] | None = None, card: dict[str, Any] | None = None, mass: float = 0.3
) -> "Reader":
    from ai.readers.registry import load_reader

    model = a_model(folder, "madsen", card or a_card(), {"mass": mass}, given or parts())
    return load_reader(model, "cpu")


def drawn(pixels: Floats, view: View = L_CC, **changes: Any) -> ViewImage:
    return ViewImage("1.2.3", view, pixels, **changes)


def mirrored(image: ViewImage) -> ViewImage:
    side = Laterality.RIGHT if image.view.laterality is Laterality.LEFT else Laterality.LEFT
    return replace(image, view=View(side, image.view.position), pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


@cache
def painted() -> tuple[Exam, dict[View, Mask]]:
    """Return a small phantom exam whose masses are white and the rest at most 0.4, and where they are."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    images, truth = [], {}
    for view, dataset in zip(STANDARD_VIEWS, exam.images, strict=True):
        image = view_image(dataset, view)
        (mass,) = exam.masses(view)
        images.append(replace(image, pixels=np.where(mass.mask, 1, 0.4 * image.pixels).astype(np.float32)))
        truth[view] = mass.mask
    return Exam(tuple(images)), truth


def centre(mask: Mask) -> NDArray[np.float64]:
    return np.asarray(np.argwhere(mask).mean(0) + 0.5)


# The picture


def test_the_brightest_pixels_stay_the_brightest_and_keep_their_low_bits() -> None:
    from ai.readers.madsen_preprocessing import breast, masked

    pixels = np.zeros((200, 160), np.uint16)
    pixels[50:150, :90] = 65535  # // 0xFF makes 257 of it, which is 1 in 8 bits
    pixels[90:110, 30:60] = 0x8001  # & 255 leaves 1 of it
    mask = breast(pixels)
    assert mask[60:140, :80].all()
    assert not mask[:, 120:].any()
    kept = masked(pixels, mask)
    assert (kept[mask] == pixels[mask]).all()
    assert not kept[~mask].any()


@pytest.mark.parametrize("clip_limit", [2.0, 3.0, 100.0])
def test_the_enhancement_leaves_a_black_background_black(clip_limit: float) -> None:
    from ai.readers.madsen_preprocessing import equalise, to_16_bits

    pixels = to_16_bits(a_breast((500, 400)) * np.random.default_rng(0).random((500, 400), np.float32))
    enhanced = equalise(pixels, clip_limit)
    assert enhanced.dtype == np.uint16
    assert not enhanced[:, 300:].any()
    assert enhanced[200:300, :100].mean() > 5000


def test_the_clip_limit_is_obeyed() -> None:
    from ai.readers.madsen_preprocessing import equalise, to_16_bits

    rng = np.random.default_rng(1)
    pixels = to_16_bits((0.4 + 0.02 * rng.standard_normal((1400, 1400))).astype(np.float32))
    soft, hard = (equalise(pixels, limit).astype(float).std() for limit in (2.0, 100.0))
    assert pixels.astype(float).std() < soft < hard / 2


def test_the_chest_wall_is_where_it_is_brighter_and_two_flips_are_none() -> None:
    from ai.readers.madsen_preprocessing import chest_wall_at_the_right, flip, to_16_bits

    for columns in (120, 121):
        left = to_16_bits(a_breast((160, columns)))
        right = to_16_bits(a_breast((160, columns), right=True))
        assert not chest_wall_at_the_right(left)
        assert chest_wall_at_the_right(right)
        assert (flip(right, mirrored=True) == left).all()
        assert (flip(flip(right, mirrored=True), mirrored=True) == right).all()


@pytest.mark.parametrize("right", [False, True])
def test_labels_and_bright_borders_are_no_breast(*, right: bool) -> None:
    from ai.readers.madsen_preprocessing import enhance

    clean = a_breast((400, 300))
    dirty = clean.copy()
    dirty[20:50, 240:280] = 1
    dirty[:5], dirty[-5:], dirty[:, :5], dirty[:, -5:] = 1, 1, 1, 1
    turned = np.ascontiguousarray(dirty[:, ::-1]) if right else dirty
    found = enhance(drawn(turned), 3)
    assert found.mirrored is right
    shown = found.pixels[:, ::-1] if right else found.pixels
    assert not shown[20:50, 240:280].any()
    assert not shown[:, 220:].any()
    assert (shown > 0)[clean > 0].mean() > 0.97
    crop = found.crop
    assert (crop.right == 300) if right else (crop.left == 0)
    assert 20 <= crop.top <= 45
    assert 355 <= crop.bottom <= 380
    assert 180 <= crop.right - crop.left <= 200


def test_a_mirrored_image_is_enhanced_alike() -> None:
    from ai.readers.madsen_preprocessing import enhance

    exam, _ = painted()
    image = replace(exam.images[0], pixels=exam.images[0].pixels[:, 3:])
    one, other = enhance(image, 3), enhance(mirrored(image), 3)
    assert one.mirrored is not other.mirrored
    assert (one.pixels[:, ::-1] == other.pixels).all()
    assert one.crop.left == image.shape[1] - other.crop.right


@given(
    rows=st.integers(40, 900),
    columns=st.integers(40, 700),
    right=st.booleans(),
    aspect=st.floats(0.5, 2),
    data=st.data(),
)
def test_a_box_comes_back_from_the_canvas_to_its_pixels(
    rows: int, columns: int, *, right: bool, aspect: float, data: st.DataObject
) -> None:
    from ai.readers.madsen_preprocessing import Crop, Enhanced

    def span(low: int, high: int) -> tuple[int, int]:
        first = data.draw(st.integers(low, high - 1))
        return first, data.draw(st.integers(first + 1, high))

    (top, bottom), (left, right_) = span(0, rows), span(0, columns)
    shown = Enhanced(np.zeros((rows, columns), np.float32), Crop(top, bottom, left, right_), right)
    (first, last), (near, far) = span(top, bottom), span(left, right_)
    whole = shown.geometry((1024, 512), aspect)
    corners = np.array([[near, first], [far, last]], np.float64)
    region = shown.region(whole.points_to_image(whole.points_to_canvas(corners)), 64)
    assert region is not None
    assert region.crop == (near, first, far - near, last - first)
    assert region.mirrored is right
    assert region.covered == (64, 64)


def test_a_box_beside_the_breast_is_no_region() -> None:
    from ai.readers.madsen_preprocessing import Crop, Enhanced

    shown = Enhanced(np.zeros((100, 80), np.float32), Crop(10, 90, 0, 50), mirrored=False)
    assert shown.region(np.array([[60.0, 20.0], [70.0, 30.0]]), 64) is None
    beyond = shown.region(np.array([[40.0, -20.0], [70.0, 30.0]]), 64)
    assert beyond is not None
    assert beyond.crop == (40, 10, 10, 20)


# Boxes of folds


def boxes(*found: tuple[float, float, float, float, float]) -> Any:
    from ai.readers.boxes import Boxes

    table = np.array(found, np.float64).reshape(-1, 5)
    return Boxes(table[:, :4], table[:, 4])


def test_one_fold_stays_as_it_is() -> None:
    from ai.readers.boxes import fuse

    fused = fuse([boxes((0, 0, 10, 10, 0.4), (1, 1, 11, 11, 0.9), (50, 50, 60, 60, 0.5))])
    assert fused.scores.tolist() == [0.9, 0.5, 0.4]
    assert fused.corners[0].tolist() == [1, 1, 11, 11]


def test_boxes_of_folds_that_overlap_are_one_and_what_one_alone_sees_counts_less() -> None:
    from ai.readers.boxes import fuse

    fused = fuse([boxes((0, 0, 10, 10, 0.9), (50, 50, 60, 60, 0.5)), boxes((0, 0, 10, 13, 0.3), (80, 0, 90, 10, 0.7))])
    assert fused.scores.tolist() == pytest.approx([0.6, 0.35, 0.25])
    assert fused.corners[0].tolist() == pytest.approx([0, 0, 10, 10.75])
    assert fused.corners[1].tolist() == [80, 0, 90, 10]


def test_no_boxes_are_no_boxes() -> None:
    from ai.readers.boxes import fuse

    fused = fuse([boxes(), boxes()])
    assert fused.corners.shape == (0, 4)
    assert fused.scores.shape == (0,)


# The reader


def test_in_each_view_the_mass_is_where_it_is(tmp_path: Path) -> None:
    exam, truth = painted()
    findings = reader(tmp_path).read(exam)
    assert [image.view for image in findings.images] == list(STANDARD_VIEWS)
    malignancy = 1 / (1 + np.exp(-1))
    for image in findings.images:
        [mass] = image.masses
        found, true = mass.full_mask(image.shape), truth[image.view]
        assert np.abs(centre(found) - centre(true)).max() < 1
        assert (found & true).sum() / (found | true).sum() > 0.85
        assert mass.detection == pytest.approx(0.81)
        assert mass.malignancy == pytest.approx(malignancy, abs=1e-5)
        assert mass.suspicion == image.score == round(100 * np.sqrt(0.81 * malignancy))
        assert image.malignancy == mass.malignancy
        assert image.probability is None
    assert {match.laterality for match in findings.matches} <= set(Laterality)


def test_a_mirrored_exam_has_mirrored_findings(tmp_path: Path) -> None:
    exam, _ = painted()
    image = replace(exam.images[0], pixels=exam.images[0].pixels[:, 3:])
    system = reader(tmp_path)
    [one] = system.read(Exam((image,))).images
    [other] = system.read(Exam((mirrored(image),))).images
    [mass], [twin] = one.masses, other.masses
    first, second = mass.full_mask(one.shape)[:, ::-1], twin.full_mask(other.shape)
    assert (first & second).sum() / (first | second).sum() > 0.97
    assert (mass.detection, mass.malignancy) == pytest.approx((twin.detection, twin.malignancy), abs=1e-3)


@pytest.mark.parametrize("view", [L_CC, R_CC])
def test_what_the_segmenter_does_not_see_is_the_ellipse_in_the_detectors_box(tmp_path: Path, view: View) -> None:
    from ai.readers.madsen_preprocessing import enhance

    blind = parts(
        detector=network("bright_box", level=2.0, corners=[20.0, 100.0, 60.0, 150.0], score=0.5),
        segmenter=network("bright_mask", slope=1.0, middle=9.0),
    )
    image = drawn(a_breast((640, 320), right=view == R_CC), view)
    [found] = reader(tmp_path, blind).read(Exam((image,))).images
    [mass] = found.masses
    whole = enhance(image, 3).geometry(CANVAS)
    corners = whole.points_to_image(np.array([[20.0, 100.0], [60.0, 150.0]]))
    x, y, width, height = mass.box
    assert [x, y] == pytest.approx(corners.min(0).tolist(), abs=1.5)
    assert [x + width, y + height] == pytest.approx(corners.max(0).tolist(), abs=1.5)
    assert mass.mask.mean() == pytest.approx(np.pi / 4, abs=0.03)


def test_the_folds_of_each_step_are_averaged(tmp_path: Path) -> None:
    def logit(p: float) -> float:
        return float(np.log(p / (1 - p)))

    card = a_card(
        detector={"weights": ["d0.safetensors", "d1.safetensors"]},
        segmenter={"weights": ["s0.safetensors", "s1.safetensors"]},
        classifier={"weights": ["c0.safetensors", "c1.safetensors"]},
    )
    corners = [20.0, 100.0, 60.0, 150.0]
    given = {
        "d0": network("bright_box", level=2.0, corners=corners, score=0.9),
        "c1": network("contrast", slope=0.0, bias=logit(0.5)),
        "d1": network("bright_box", level=2.0, corners=corners, score=0.6),
        "s0": network("bright_mask", slope=-1.0, middle=9.0),  # everything is mass
        "s1": network("bright_mask", slope=1.0, middle=1.1),  # nothing, but less surely
        "c0": network("contrast", slope=0.0, bias=logit(0.9)),
    }
    image = drawn(a_breast((640, 320)))
    [found] = reader(tmp_path, given, card).read(Exam((image,))).images
    [mass] = found.masses
    assert mass.detection == pytest.approx(0.75)
    assert mass.malignancy == pytest.approx(0.7)
    assert mass.mask.mean() > 0.95  # the mean of both is above 0.5 in the whole box, no ellipse


def test_the_classifier_sees_a_mask_of_zeros_and_ones(tmp_path: Path) -> None:
    given = parts(
        detector=network("bright_box", level=2.0, corners=[20.0, 100.0, 60.0, 150.0], score=0.5),
        segmenter=network("bright_mask", slope=1.0, middle=-1.0),  # 0.73 to 0.88 everywhere
        classifier=network("contrast", area=1.0),
    )
    [found] = reader(tmp_path, given).read(Exam((drawn(a_breast((640, 320))),))).images
    [mass] = found.masses
    assert mass.malignancy == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-5)


def test_each_of_many_regions_keeps_its_own_score(tmp_path: Path) -> None:
    names = [f"d{n}" for n in range(10)]
    detectors = {
        name: network("bright_box", level=2.0, corners=[10.0, 60.0 + 20 * n, 40.0, 75.0 + 20 * n], score=0.5 + 0.05 * n)
        for n, name in enumerate(names)
    }
    given = {k: v for k, v in parts().items() if k != "detector"} | detectors
    card = a_card(detector={"weights": [f"{name}.safetensors" for name in names]})
    [found] = reader(tmp_path, given, card, mass=0.0).read(Exam((drawn(a_breast((640, 320))),))).images
    down = sorted(found.masses, key=lambda mass: mass.origin)
    assert [mass.detection for mass in down] == pytest.approx([(0.5 + 0.05 * n) / 10 for n in range(10)])
    assert [mass.number for mass in down] == list(range(10, 0, -1))


def test_the_classifier_sees_the_mask_and_what_the_card_normalises_by(tmp_path: Path) -> None:
    exam, _ = painted()
    given = parts(classifier=network("contrast", slope=1.0, bias=0.0))
    image = Exam(exam.images[:1])
    [plain] = reader(tmp_path / "a", given).read(image).images[0].masses
    card = a_card(classifier={"mean": 0.5, "std": 0.25})
    [normal] = reader(tmp_path / "b", given, card).read(image).images[0].masses
    inside = -np.log(1 / (plain.malignancy or 0) - 1)
    assert 0.8 < inside <= 1  # the white mass alone, not its surroundings
    assert normal.malignancy == pytest.approx(1 / (1 + np.exp(-(inside - 0.5) / 0.25)), abs=1e-4)


def test_regions_the_detector_is_not_sure_enough_of_are_not_told(tmp_path: Path) -> None:
    exam, _ = painted()
    findings = reader(tmp_path, mass=0.82).read(exam)
    assert findings.count == findings.score == 0
    assert {image.malignancy for image in findings.images} == {0.0}


@pytest.mark.parametrize("shape", [(61, 47), (33, 200), (200, 33), (225, 224)])
def test_images_of_any_size_are_read(tmp_path: Path, shape: tuple[int, int]) -> None:
    image = drawn(a_breast(shape))
    everything = parts(detector=network("bright_box", level=0.01, margin=2.0, score=0.5))
    [found] = reader(tmp_path, everything).read(Exam((image,))).images
    [mass] = found.masses
    x, y, width, height = mass.box
    assert x == 0
    assert y + height / 2 == pytest.approx(shape[0] / 2, abs=max(2, shape[0] / 10))
    assert y + height <= shape[0]
    assert width <= shape[1]


def test_people_see_what_the_detector_saw(tmp_path: Path) -> None:
    exam, _ = painted()
    for image in reader(tmp_path).read(exam).images:
        assert image.prepared is not None
        assert image.prepared.max() > 200  # enhanced
        assert image.prepared[:, 0].mean() > image.prepared[:, -1].mean()  # chest wall at the left


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (160, 120)])
def test_an_image_without_a_breast_is_refused_by_name(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(NoBreast) as refused:
        reader(tmp_path).read(Exam((drawn(np.zeros(shape, np.float32)),)))
    assert refused.value.image_uid == "1.2.3"


def test_a_black_exam_of_no_image_has_no_findings(tmp_path: Path) -> None:
    findings = reader(tmp_path).read(Exam(()))
    assert (findings.images, findings.breasts, findings.score) == ((), (), 0)


@pytest.mark.parametrize(
    ("card", "key"),
    [
        ({**a_card(), "clip_limit": 0}, r"architecture\.clip_limit"),
        ({k: v for k, v in a_card().items() if k != "segmenter"}, r"architecture\.segmenter"),
        ({**a_card(), "colour": "red"}, r"architecture\.colour"),
        (a_card(detector={"network": None}), r"architecture\.detector\.network"),
        (a_card(detector={"weights": []}), r"architecture\.detector\.weights"),
        (
            a_card(detector={"weights": ["other.safetensors"]}),
            r"architecture\.detector\.weights: other\.safetensors is not",
        ),
        (a_card(segmenter={"weights": ["detector.safetensors"]}), r"detector\.safetensors is named twice"),
        (a_card(segmenter={"network": "contrast"}), r"architecture\.segmenter\.network: contrast gives no masks"),
        (a_card(segmenter={"network": "transres_unet", "side": 60}), r"architecture\.segmenter\.side"),
        (a_card(classifier={"std": 0.0}), r"architecture\.classifier\.std"),
    ],
)
def test_a_card_with_a_wrong_architecture_is_refused_with_the_key(
    tmp_path: Path, card: dict[str, Any], key: str
) -> None:
    with pytest.raises(InvalidCard, match=key):
        reader(tmp_path, card=card)


def test_a_file_without_a_role_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidCard, match=r"spare\.safetensors has no role"):
        reader(tmp_path, parts(spare=network("contrast")))


@pytest.mark.parametrize("thresholds", [{"mass": 1.5}, {"outline": 0.0}, {"dark": 0.1}])
def test_a_card_with_wrong_thresholds_is_refused_with_the_key(tmp_path: Path, thresholds: dict[str, float]) -> None:
    from ai.readers.registry import load_reader

    model = a_model(tmp_path, "madsen", a_card(), {"mass": 0.3} | thresholds, parts())
    with pytest.raises(InvalidCard, match=rf"thresholds\.{next(iter(thresholds))}"):
        load_reader(model, "cpu")


def test_networks_that_are_not_known_and_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match="crystal_ball"):
        reader(tmp_path, card=a_card(detector={"network": "crystal_ball"}))
    with pytest.raises(UnusableWeights, match=r"segmenter\.safetensors"):
        reader(tmp_path, parts(segmenter=network("contrast")))


def test_the_papers_networks_read_untrained(tmp_path: Path) -> None:
    import torch

    widths = {"side": 32, "widths": [4, 4, 4, 8], "layers": 1, "heads": 1}
    card = a_card(
        detector={"network": "retinanet_resnet50_fpn", "options": {"canvas": [64, 64]}, "canvas": [64, 64]},
        segmenter={"network": "transres_unet", "options": widths, "side": 32},
        classifier={"network": "three_branch_resnet50"},
    )
    detector = untrained("retinanet_resnet50_fpn", {"canvas": [64, 64]})
    with torch.no_grad():
        for name, value in detector.named_parameters():
            if name.endswith("cls_logits.bias"):
                value.zero_()  # an untrained RetinaNet is sure that there is nothing
    given = {
        "detector": detector.half(),
        "segmenter": untrained("transres_unet", widths).half(),
        "classifier": untrained("three_branch_resnet50").half(),
    }
    image = drawn(a_breast((100, 80), mass=(20, 50, 9)))
    [found] = reader(tmp_path, given, card).read(Exam((image,))).images
    assert 0 < len(found.masses) <= 300
    assert [mass.number for mass in found.masses] == list(range(1, len(found.masses) + 1))
    for mass in found.masses:
        assert 0 < mass.detection < 1
        assert 0 < (mass.malignancy or 0) < 1
        x, y, width, height = mass.box
        assert 0 <= x < x + width <= 80
        assert 0 <= y < y + height <= 100


@given(rows=st.integers(20, 250), columns=st.integers(20, 250), seed=st.integers(0, 5), right=st.booleans())
def test_any_image_is_enhanced_in_its_place_or_refused(*, rows: int, columns: int, seed: int, right: bool) -> None:
    from ai.readers.madsen_preprocessing import enhance

    noise = np.random.default_rng(seed).random((rows, columns), np.float32)
    try:
        found = enhance(drawn(a_breast((rows, columns), right=right) * (0.5 + 0.5 * noise)), 3)
    except NoBreast as refused:
        assert refused.image_uid == "1.2.3"  # noqa: PT017 (most sizes are not refused)
        return
    top, bottom, left, end = found.crop.top, found.crop.bottom, found.crop.left, found.crop.right
    assert 0 <= top < bottom <= rows
    assert 0 <= left < end <= columns
    beside = found.pixels.copy()
    beside[found.crop.window] = 0
    assert not beside.any()
    assert 0 < found.pixels.max() <= 1
    whole = found.geometry(CANVAS)
    assert whole.to_canvas(found.pixels).max() > 0
