"""The second look: what is cut out for a candidate, the way back, and what the two looks say together."""

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.readers.second_look import FLIPS, LookRule, Turn, cut, look, size_of

if TYPE_CHECKING:
    from torch import Tensor

# The name that smp wants instead gives the encoder's tensors other keys.
pytestmark = pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")

RULE = LookRule(canvas=(256, 192), side=64, context=2.0, smallest=32.0)
BLACK = np.zeros((256, 192), np.uint8)
Box = tuple[float, float, float, float]
boxes = st.tuples(st.floats(20, 170), st.floats(20, 230), st.floats(4, 60), st.floats(4, 60)).map(
    lambda b: (b[0] - b[2] / 2, b[1] - b[3] / 2, b[0] + b[2] / 2, b[1] + b[3] / 2)
)


@given(box=boxes, flip=st.sampled_from(FLIPS))
def test_a_candidate_fills_half_of_its_square_and_comes_back(box: Box, flip: tuple[int, int]) -> None:
    square = cut(BLACK, box, RULE, Turn(flip=flip))
    seen = square.box_from_canvas(box)
    np.testing.assert_allclose((seen[:2] + seen[2:]) / 2, [0.5, 0.5], atol=1e-9)
    longest = max(box[2] - box[0], box[3] - box[1])
    assert (seen[2:] - seen[:2]).max() == pytest.approx(0.5 * min(longest / 16, 1))
    np.testing.assert_allclose(square.box_to_canvas(seen), box, atol=1e-6)


def test_the_square_shows_what_lies_in_the_box_and_black_beyond_the_canvas() -> None:
    pixels = BLACK.copy()
    pixels[100:120, :20] = 255
    shown = cut(pixels, (0, 100, 20, 120), RULE).pixels
    assert shown[32, 40] == 1  # in the box
    assert shown[32, 4] == -1  # left of the canvas
    assert shown[4, 40] == -1
    mirrored = cut(pixels, (0, 100, 20, 120), RULE, Turn(flip=(-1, 1))).pixels
    np.testing.assert_allclose(mirrored, shown[:, ::-1], atol=0.02)


@given(seed=st.integers(0, 2**32))
def test_a_turned_square_has_the_mass_where_its_box_says(seed: int) -> None:
    y, x = np.mgrid[:256, :192] + 0.5
    pixels = (255 * (((x - 100) / 20) ** 2 + ((y - 120) / 12) ** 2 <= 1)).astype(np.uint8)
    square = cut(pixels, (70, 100, 120, 140), RULE, Turn.drawn(np.random.default_rng(seed)))
    rows, columns = np.nonzero(square.pixels > 0)
    told = square.box_from_canvas((80, 108, 120, 132)) * len(square.pixels)
    np.testing.assert_allclose([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], told, atol=1.5)


class Says:
    """A network that says of each square how bright its middle is, and the same box."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, squares: "Tensor", sizes: "Tensor") -> Any:
        import torch

        from ai.networks.mass_look import LookOutputs

        self.shapes.append(tuple(squares.shape))
        assert len(sizes) == len(squares)
        return LookOutputs(squares[:, 0, 32, 32], sizes[:, 0], torch.tensor(self.box).expand(len(squares), 4))


def looked(network: Any, pixels: NDArray[np.uint8], asked: list[Box]) -> Any:
    import torch

    return look([network], pixels, asked, RULE, torch.device("cpu"))


def test_the_four_ways_up_are_averaged_in_the_canvas() -> None:
    pixels = BLACK.copy()
    pixels[100:140, 80:120] = 255
    box: Box = (80, 100, 120, 140)
    network = Says((0.3, 0.2, 0.8, 0.7))  # to one side: what is mirrored says the other side
    (found,) = looked(network, pixels, [box])
    assert found.mass == pytest.approx(1)
    assert found.malignant == pytest.approx(size_of(box)[0])
    np.testing.assert_allclose(found.box, box, atol=1e-4)
    assert len(network.shapes) == len(FLIPS)


def test_however_many_are_looked_at_a_network_sees_one_shape() -> None:
    many: list[Box] = [(10 + n, 10, 40 + n, 40) for n in range(45)]
    network = Says((0.25, 0.25, 0.75, 0.75))
    found = looked(network, BLACK, many)
    assert [f.box for f in found] == [pytest.approx(box, abs=1e-4) for box in many]
    assert len(set(network.shapes)) == 1
    assert looked(network, BLACK, []) == []


def test_an_untrained_network_says_nothing_and_the_box_that_it_is_shown() -> None:
    import torch

    from ai.networks.registry import ARCHITECTURES, build

    network = build("mass_look").eval()
    assert sum(p.numel() for p in network.parameters()) == ARCHITECTURES["mass_look"].parameters
    with torch.inference_mode():
        said = network(torch.rand(2, 1, 64, 64), torch.zeros(2, 2))
    assert said.mass.tolist() == said.malignant.tolist() == [0, 0]
    assert said.boxes.tolist() == [[0.25, 0.25, 0.75, 0.75]] * 2
