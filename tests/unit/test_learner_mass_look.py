"""What the second look learns from: squares beside masses and around what is none, with truth in the square."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ai.breast import Geometry
from ai.datasets.records import Record
from ai.readers.centres import overlap
from tests.builders import L_CC

if TYPE_CHECKING:
    from ai.training.learners.mass_look import Looked, LookExamples

CANVAS = (256, 192)
GEOMETRY = Geometry(CANVAS, (0, 0, 192, 256), mirrored=False, scale=(1, 1), canvas=CANVAS)
MASS = (60.0, 90.0, 100.0, 130.0)
FALSE = ((20.0, 20.0, 40.0, 40.0), (120.0, 200.0, 150.0, 220.0), (10.0, 180.0, 50.0, 240.0))


def an_image(
    *masses: tuple[float, ...], false: tuple[tuple[float, ...], ...] = FALSE, pathology: str = "MALIGNANT"
) -> "Looked":
    from ai.training.learners.mass_look import Looked
    from ai.training.samples import Sample

    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    pixels = np.zeros(CANVAS, np.uint8)
    for x1, y1, x2, y2 in masses:
        pixels[((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1] = 255
    record = Record("a.png", "P", L_CC, tuple(masses), pathologies=(pathology,) * len(masses))  # type: ignore[arg-type]
    sample = Sample(record, pixels, np.zeros(CANVAS, np.uint8), np.reshape(masses, (-1, 4)).astype(float), GEOMETRY)
    return Looked(sample, np.reshape(false, (-1, 4)).astype(float), np.full(len(false), 0.3))


def examples(*images: "Looked", changes: bool = True) -> "LookExamples":
    from ai.training.learners.mass_look import LookExamples, MassLookExamples

    return LookExamples(images, MassLookExamples(canvas=CANVAS, side=64, smallest=32), changes)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=30, deadline=None)
def test_a_square_beside_a_mass_has_its_box_and_label_and_others_have_none(seed: int) -> None:
    made = examples(an_image(MASS), an_image(MASS, pathology="BENIGN"), an_image())
    squares, sizes, mass, malignant, boxes = made.batch([0, 1, 2], np.random.default_rng(seed))
    assert squares.shape == (1 + 2 + 1 + 2 + 2, 1, 64, 64)
    assert len(sizes) == len(boxes) == 8
    assert mass.tolist() == [1, 0, 0, 1, 0, 0, 0, 0]
    assert malignant[[0, 3]].tolist() == [1, 0]
    assert malignant[mass == 0].isnan().all()
    assert boxes[mass == 0].isnan().all()
    for place in (0, 3):
        rows, columns = np.nonzero(squares[place, 0].numpy() > 0)
        seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 64
        within = boxes[place].numpy().clip(0, 1)
        np.testing.assert_allclose(seen, within, atol=0.06)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=50, deadline=None)
def test_a_box_beside_a_mass_still_means_that_mass(seed: int) -> None:
    from ai.training.learners.mass_look import beside

    assert overlap(beside(MASS, np.random.default_rng(seed)), MASS) >= 0.4


def test_an_image_without_anything_shows_some_place() -> None:
    squares, _, mass, malignant, boxes = examples(an_image(false=())).batch([0], np.random.default_rng(1))
    assert len(squares) == 1
    assert mass.tolist() == [0]
    assert bool(malignant.isnan().all() and boxes.isnan().all())


def test_examples_are_the_same_without_chance_and_differ_by_what_they_hold() -> None:
    one = examples(an_image(MASS))
    first, second = (one.batch([0], None) for _ in range(2))
    assert all(a.equal(b) for a, b in zip(first[:3], second[:3], strict=True))
    assert all(a.nan_to_num(-1).equal(b.nan_to_num(-1)) for a, b in zip(first[3:], second[3:], strict=True))
    others = (examples(an_image(MASS), changes=False), examples(an_image(MASS, false=FALSE[:2])), examples(an_image()))
    assert len({each.fingerprint for each in (one, *others)}) == 4
    assert one.fingerprint == examples(an_image(MASS)).fingerprint


def test_the_loss_is_least_where_all_is_right() -> None:
    import torch

    from ai.networks.mass_look import LookOutputs
    from ai.training.learners.mass_look import look_loss

    truth = torch.tensor([[0.3, 0.3, 0.7, 0.6], [torch.nan] * 4])
    batch = torch.zeros(2, 1, 32, 32), torch.zeros(2, 2), torch.tensor([1.0, 0]), torch.tensor([1.0, torch.nan]), truth

    def loss(mass: tuple[float, float], malignant: float, box: tuple[float, ...]) -> float:
        said = LookOutputs(torch.tensor(mass), torch.tensor([malignant, 0.0]), torch.tensor([box, box]))
        return float(look_loss(lambda *_: said, batch))  # type: ignore[arg-type]

    right = loss((3.5, -3.5), 3, (0.3, 0.3, 0.7, 0.6))
    assert right < loss((-3.5, -3.5), 3, (0.3, 0.3, 0.7, 0.6))
    assert right < loss((3.5, 3.5), 3, (0.3, 0.3, 0.7, 0.6))
    assert right < loss((3.5, -3.5), -3, (0.3, 0.3, 0.7, 0.6))
    assert right < loss((3.5, -3.5), 3, (0.3, 0.3, 0.5, 0.6))


def test_a_square_whose_side_does_not_fit_the_network_is_refused() -> None:
    from ai.training.learners.mass_look import MassLookExamples

    with pytest.raises(ValueError, match="multiple of 32"):
        MassLookExamples(canvas=CANVAS, side=100)
