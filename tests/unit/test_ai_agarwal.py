"""The reader of Agarwal et al.: where windows lie, what the map is between them, and that both forms find the same."""

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
from ai.exam import STANDARD_VIEWS, Exam, Laterality, Spacing, SpacingRule, View, ViewImage
from ai.pixels import view_image
from node.phantom import phantom_exam
from tests.builders import A_MASS_IN_EACH, L_CC
from tests.drawn import a_breast
from tests.models import a_model, untrained
from tests.seed_networks import centre_patch, registered

if TYPE_CHECKING:
    from torch import nn

    from ai.readers.agarwal import SlidingWindow
    from ai.readers.base import Reader

Floats = NDArray[np.float32]
CARD = {"network": "centre_patch", "stride": 16, "windows": "literal"}
THRESHOLDS = {"mass": 0.5, "candidate": 0.5}


@pytest.fixture(autouse=True)
def networks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with registered(monkeypatch):
        yield


def reader(folder: Path, *folds: "nn.Module", thresholds: dict[str, float] | None = None, **changes: Any) -> "Reader":
    """Return the reader; without folds its network marks what is 3 deviations above its surroundings' mean."""
    from ai.readers.registry import load_reader

    given = {f"fold-{number}": fold for number, fold in enumerate(folds or [centre_patch(8, 3)])}
    return load_reader(a_model(folder, "agarwal", CARD | changes, thresholds or THRESHOLDS, given), "cpu")


def mass_map(network: "nn.Module", **changes: Any) -> "SlidingWindow":
    import torch

    from ai.readers.agarwal import AgarwalCard, SlidingWindow
    from ai.readers.memory import Memory

    return SlidingWindow(AgarwalCard.model_validate(CARD | changes), [network.eval()], Memory(torch.device("cpu")))


def drawn(pixels: Floats, view: View = L_CC, **changes: Any) -> ViewImage:
    return ViewImage("1.2.3", view, pixels, **changes)


def mirrored(image: ViewImage) -> ViewImage:
    side = Laterality.RIGHT if image.view.laterality is Laterality.LEFT else Laterality.LEFT
    return replace(image, view=View(side, image.view.position), pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


@cache
def painted() -> tuple[Exam, dict[View, tuple[int, int, int, int]]]:
    """Return a small phantom exam whose masses are white and the rest at most 0.3, and their boxes."""
    exam = phantom_exam(3, masses=A_MASS_IN_EACH, small=True)
    images, truth = [], {}
    for view, dataset in zip(STANDARD_VIEWS, exam.images, strict=True):
        image = view_image(dataset, view)
        (mass,) = exam.masses(view)
        images.append(replace(image, pixels=np.where(mass.mask, 1, 0.3 * image.pixels).astype(np.float32)))
        truth[view] = mass.box
    return Exam(tuple(images)), truth


@given(st.integers(1, 400), st.integers(1, 300), st.integers(1, 224))
def test_windows_lie_around_centres_that_begin_at_the_first_pixel_and_cover_the_image(
    rows: int, columns: int, stride: int
) -> None:
    from ai.readers.sliding import windows

    pixels = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    found = windows(pixels, stride)
    down, across = found.shape[:2]
    assert rows - 1 <= (down - 1) * stride < rows - 1 + stride
    assert columns - 1 <= (across - 1) * stride < columns - 1 + stride
    inside = found[: (rows - 1) // stride + 1, : (columns - 1) // stride + 1, 112, 112]
    assert (inside == pixels[::stride, ::stride]).all()


def test_beyond_its_edges_the_image_is_reflected() -> None:
    from ai.readers.sliding import windows

    pixels = np.random.default_rng(0).random((300, 250)).astype(np.float32)
    first = windows(pixels, 56)[0, 0]
    assert (first[112:, 112:] == pixels[:112, :112]).all()
    assert (first[:112, 112:] == pixels[112:0:-1, :112]).all()


@given(st.integers(1, 200), st.floats(0.3, 3), st.integers(1, 224))
def test_between_centres_the_map_is_linear_at_the_pixels_own_places(length: int, scale: float, stride: int) -> None:
    from ai.readers.sliding import cells, centres, interpolate

    resampled = max(round(length * scale), 1)
    count = centres(resampled, stride)
    # A ramp that says at which resampled pixel a centre lies.
    grid = np.repeat(np.arange(count, dtype=np.float32)[:, None] * stride, 2, 1)
    places = interpolate(grid, cells(length, resampled, stride), np.array([0.0, 0.4, 1.0]))
    expected = ((np.arange(length) + 0.5) * resampled / length - 0.5).clip(0, (count - 1) * stride)
    assert np.allclose(places, expected[:, None], atol=1e-3)


def test_patches_get_zero_mean_and_unit_deviation_each_and_flat_ones_become_zeros() -> None:
    import torch

    from ai.readers.sliding import normalise

    patches = torch.stack(
        [torch.rand(1, 224, 224) * 0.1 + 0.4, torch.rand(1, 224, 224) * 5, torch.full((1, 224, 224), 0.3)]
    )
    normal = normalise(patches)
    assert normal[:2].mean((1, 2, 3)).abs().max() < 1e-4
    assert normal[:2].std((1, 2, 3), correction=0).sub(1).abs().max() < 1e-4
    assert normal[2].abs().max() < 1e-2


@pytest.mark.parametrize("windows", ["literal", "fast"])
def test_in_each_view_the_mass_is_where_it_is_within_a_stride(tmp_path: Path, windows: str) -> None:
    exam, truth = painted()
    findings = reader(tmp_path, windows=windows).read(exam)
    assert [image.view for image in findings.images] == list(STANDARD_VIEWS)
    for image in findings.images:
        [mass] = image.masses
        x, y, width, height = truth[image.view]
        left, top, wide, high = mass.box
        assert abs(left + wide / 2 - x - width / 2) <= 8
        assert abs(top + high / 2 - y - height / 2) <= 8
        assert abs(wide - width) <= 16
        assert abs(high - height) <= 16
        assert mass.malignancy is None
        assert mass.suspicion == round(100 * mass.detection)
        assert image.malignancy is None
        assert image.probability is not None
        row, column = np.unravel_index(image.probability.argmax(), image.probability.shape)
        assert mass.full_mask(image.shape)[row, column]  # 512 rows: the map is as fine as the image


def test_a_mirrored_exam_has_mirrored_findings(tmp_path: Path) -> None:
    exam, _ = painted()
    image = replace(exam.images[0], pixels=exam.images[0].pixels[:, 3:])
    system = reader(tmp_path)
    [one] = system.read(Exam((image,))).images
    [other] = system.read(Exam((mirrored(image),))).images
    [mass], [twin] = one.masses, other.masses
    assert (mass.full_mask(one.shape)[:, ::-1] == twin.full_mask(other.shape)).all()
    assert mass.detection == pytest.approx(twin.detection, abs=1e-5)


def breast_at_full_size(image: ViewImage) -> NDArray[np.bool_]:
    from ai.breast import breast_mask

    mask = breast_mask(image.pixels)
    assert mask.shape == image.shape
    return mask


def test_skipping_the_background_changes_nothing_within_the_breast_and_adds_nothing_elsewhere() -> None:
    exam, _ = painted()
    for image in exam.images:
        literal, fast = (mass_map(centre_patch(1, -0.3), windows=form) for form in ("literal", "fast"))
        everywhere, skipped = literal(image).mass, fast(image).mass
        inside = breast_at_full_size(image)
        assert np.abs(everywhere - skipped)[inside].max() < 1e-6
        assert (skipped <= everywhere + 1e-6).all()
        assert np.abs(everywhere - skipped).max() > 0.3  # the background is told by the literal one alone


def test_the_fast_form_looks_at_fewer_patches() -> None:
    exam, _ = painted()
    seen = {}
    for form in ("literal", "fast"):
        network = centre_patch(8, 3)
        mass_map(network, windows=form)(exam.images[0])
        seen[form] = network.seen
    assert seen["literal"] == 33 * 27
    assert seen["fast"] < 0.6 * seen["literal"]


def test_an_untrained_resnet_says_the_same_in_both_forms() -> None:
    network = untrained("resnet50_patch")
    image = drawn(a_breast((150, 150), mass=(40, 70, 15)))
    literal, fast = (mass_map(network, windows=form, stride=64)(image).mass for form in ("literal", "fast"))
    inside = breast_at_full_size(image)
    assert np.abs(literal - fast)[inside].max() < 1e-4
    assert (fast <= literal + 1e-4).all()
    assert literal[inside].std() > 0


def test_folds_are_averaged(tmp_path: Path) -> None:
    image = drawn(a_breast())
    folds = centre_patch(0, 0, bias=float(np.log(9))), centre_patch(0, 0, bias=float(np.log(7 / 3)))
    [found] = reader(tmp_path, *folds).read(Exam((image,))).images
    [mass] = found.masses
    assert mass.detection == pytest.approx(0.8, abs=1e-4)
    assert (mass.suspicion, found.score) == (80, 80)


@pytest.mark.parametrize("shape", [(61, 47), (223, 90), (225, 224), (113, 112), (40, 300)])
@pytest.mark.parametrize("windows", ["literal", "fast"])
def test_images_of_any_size_are_read(tmp_path: Path, shape: tuple[int, int], windows: str) -> None:
    image = drawn(a_breast(shape))
    [found] = reader(tmp_path, centre_patch(0, 0, bias=2), windows=windows, stride=56).read(Exam((image,))).images
    [mass] = found.masses
    full = mass.full_mask(shape)
    assert full[breast_at_full_size(image)].all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (160, 120)])
def test_an_image_without_a_breast_is_refused_by_name(tmp_path: Path, shape: tuple[int, int]) -> None:
    with pytest.raises(NoBreast) as refused:
        reader(tmp_path).read(Exam((drawn(np.zeros(shape, np.float32)),)))
    assert refused.value.image_uid == "1.2.3"


def test_patches_are_cut_at_the_cards_spacing_and_masses_told_at_the_images() -> None:
    exam, truth = painted()
    image = replace(exam.images[0], spacing=Spacing(0.07, 0.14, SpacingRule.CALIBRATED))
    network = centre_patch(8, 3)
    told = mass_map(network, spacing=0.14)(image)
    values, geometry = told.mass, told.geometry
    assert network.seen == 17 * 27  # 256 rows of 0.14 mm
    assert values.shape == image.shape
    assert geometry.crop == (0, 0, 416, 512)
    x, y, width, height = truth[image.view]
    rows, columns = np.nonzero(values > 0.5)
    assert rows.mean() == pytest.approx(y + height / 2, abs=16)
    assert columns.mean() == pytest.approx(x + width / 2, abs=8)


def test_people_see_what_the_patches_were_cut_from() -> None:
    pixels = 0.8 * a_breast((200, 160), right=True)
    seen = mass_map(centre_patch(1, 0))(drawn(pixels)).prepared
    np.testing.assert_array_equal(seen, np.round(255 * pixels[:, ::-1]).astype(np.uint8))


def test_without_a_spacing_the_pixels_are_taken_as_they_are_but_for_their_aspect() -> None:
    image = drawn(a_breast((200, 160), mass=(40, 100, 20)), pixel_aspect=2.0)
    network = centre_patch(8, 1.5)
    values = mass_map(network, spacing=0.07)(image).mass
    assert network.seen == 26 * 11
    assert values.shape == (200, 160)
    rows, columns = np.nonzero(values > 0.5)
    assert [rows.mean(), columns.mean()] == pytest.approx([100, 40], abs=6)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"windows": "quick"}, r"architecture\.windows"),
        ({"windows": None}, r"architecture\.windows"),
        ({"stride": 0}, r"architecture\.stride"),
        ({"spacing": -0.1}, r"architecture\.spacing"),
        ({"colour": "red"}, r"architecture\.colour"),
        ({"network": None}, r"architecture\.network"),
        ({"network": "tile_unet"}, r"architecture\.network: tile_unet is no patch classifier"),
    ],
)
def test_a_card_with_a_wrong_architecture_is_refused_with_the_key(
    tmp_path: Path, changes: dict[str, Any], key: str
) -> None:
    from ai.readers.registry import load_reader

    card = {k: v for k, v in (CARD | changes).items() if v is not None}
    with pytest.raises(InvalidCard, match=key):
        load_reader(a_model(tmp_path, "agarwal", card, THRESHOLDS, {"model": centre_patch(1, 1)}), "cpu")


@pytest.mark.parametrize(
    ("thresholds", "key"),
    [
        ({"mass": 0.5}, r"thresholds\.candidate"),
        ({"candidate": 0.5}, r"thresholds\.mass"),
        ({"mass": 2.0, "candidate": 0.5}, r"thresholds\.mass"),
        ({"mass": 0.5, "candidate": 0.5, "dark": 0.1}, r"thresholds\.dark"),
    ],
)
def test_a_card_with_wrong_thresholds_is_refused_with_the_key(
    tmp_path: Path, thresholds: dict[str, float], key: str
) -> None:
    with pytest.raises(InvalidCard, match=key):
        reader(tmp_path, thresholds=thresholds)


def test_networks_that_are_not_known_and_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownArchitecture, match="crystal_ball"):
        reader(tmp_path, network="crystal_ball")
    with pytest.raises(UnusableWeights, match=r"fold-0\.safetensors"):
        reader(tmp_path, untrained("plain_unet", {"widths": [1]}))


def test_a_threshold_stands_for_the_cards(tmp_path: Path) -> None:
    from ai.readers.registry import load_reader

    given = {"model": centre_patch(0, 0, bias=1)}
    model = a_model(tmp_path, "agarwal", CARD, {"mass": 0.9, "candidate": 0.5}, given)
    exam = Exam((drawn(a_breast()),))
    assert load_reader(model, "cpu").read(exam).count == 0
    assert load_reader(model, "cpu", threshold=0.6).read(exam).count == 1


@given(
    rows=st.integers(20, 250),
    columns=st.integers(20, 250),
    stride=st.integers(8, 224),
    right=st.booleans(),
    spacing=st.floats(0.05, 0.3),
)
def test_any_image_has_its_own_map_or_is_refused(
    *, rows: int, columns: int, stride: int, right: bool, spacing: float
) -> None:
    pixels = a_breast((rows, columns), right=right)
    image = drawn(pixels, spacing=Spacing(0.1, 0.12, SpacingRule.CALIBRATED))
    forms = (mass_map(centre_patch(1, 0), windows=form, stride=stride, spacing=spacing) for form in ("literal", "fast"))
    try:
        literal, fast = (form(image).mass for form in forms)
    except NoBreast as refused:
        assert refused.image_uid == "1.2.3"  # noqa: PT017 (most sizes are not refused)
        return
    assert literal.shape == fast.shape == (rows, columns)
    assert np.isfinite(literal).all()
    assert 0 <= fast.min() <= literal.max() <= 1
    assert np.abs(literal - fast)[breast_at_full_size(image)].max() < 1e-5
