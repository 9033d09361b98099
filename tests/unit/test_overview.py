"""The pictures for people: sizes, outlines in their place, and labels that stay within the picture."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS, ViewImage
from ai.findings import ImageFindings
from node.overview import Outline, Panel, draw_page, draw_panel, panel
from tests.answers import a_mass
from tests.builders import L_CC, R_MLO

LABEL = "1: 83"
HEIGHT = 400


def an_image(rows: int = 800, columns: int = 600, aspect: float = 1.0) -> ViewImage:
    return ViewImage("1.2", L_CC, np.zeros((rows, columns), np.float32), pixel_aspect=aspect)


def a_square(x: float, y: float, size: float = 60) -> NDArray[np.float64]:
    return np.array([[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]], np.float64)


def drawn(picture: NDArray[np.uint8], background: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what differs."""
    rows, columns = np.nonzero((picture != background).any(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize(
    ("rows", "columns", "aspect"), [(800, 600, 1.0), (100, 100, 1.65), (300, 900, 1.0), (900, 3, 1.0)]
)
def test_a_panel_has_the_height_asked_for_and_the_aspect_of_its_image(rows: int, columns: int, aspect: float) -> None:
    picture = draw_panel(panel(an_image(rows, columns, aspect), None), HEIGHT)
    assert picture.dtype == np.uint8
    assert picture.shape == (HEIGHT, max(round(columns / (rows * aspect) * HEIGHT), 1), 3)


def test_an_outline_is_drawn_where_its_mass_is() -> None:
    image = an_image(aspect=1.25)
    contour = a_square(300, 400)
    bare = draw_panel(Panel(image, (), ""), HEIGHT)
    left, top, right, bottom = drawn(draw_panel(Panel(image, (Outline(contour, ""),), ""), HEIGHT), bare)
    factor = HEIGHT / (800 * 1.25)
    assert (left, right) == pytest.approx((300 * factor, 360 * factor), abs=3)
    assert (top, bottom) == pytest.approx((400 * factor * 1.25, 460 * factor * 1.25), abs=3)


@pytest.mark.parametrize(
    ("x", "y"), [(270, 370), (0, 0), (540, 0), (540, 740), (0, 740)], ids=["middle", "1st", "2nd", "3rd", "4th corner"]
)
def test_a_label_is_whole_wherever_its_mass_is(x: float, y: float) -> None:
    image, contour = an_image(), a_square(x, y)
    bare = draw_panel(Panel(image, (Outline(contour, ""),), ""), HEIGHT)
    left, top, right, bottom = drawn(draw_panel(Panel(image, (Outline(contour, LABEL),), ""), HEIGHT), bare)
    middle = draw_panel(Panel(image, (Outline(a_square(270, 370), LABEL),), ""), HEIGHT)
    whole = drawn(middle, draw_panel(Panel(image, (Outline(a_square(270, 370), ""),), ""), HEIGHT))
    assert (right - left, bottom - top) == pytest.approx((whole[2] - whole[0], whole[3] - whole[1]), abs=3)


def test_a_panel_of_findings_tells_number_and_score_of_each_mass_and_the_score_of_the_image() -> None:
    image = an_image()
    mask = np.zeros(image.shape, np.bool_)
    mask[100:140, 100:140] = True
    shown = panel(image, ImageFindings("1.2", L_CC, image.shape, (a_mass(mask, 2, suspicion=64),), 71, 0.7))
    assert [outline.label for outline in shown.outlines] == ["2: 64"]
    assert shown.caption == "L CC  score 71"


def test_a_panel_without_findings_says_that_it_was_not_read() -> None:
    assert panel(an_image(), None).caption == "L CC  not read"


def test_a_page_holds_all_exams_below_each_other_and_leaves_places_for_missing_views() -> None:
    whole = {view: Panel(an_image(), (), str(view)) for view in STANDARD_VIEWS}
    alone = {R_MLO: Panel(an_image(), (), "R MLO")}
    one, two = draw_page([("first", whole)], HEIGHT), draw_page([("first", whole), ("second", alone)], HEIGHT)
    assert one.shape[1] == two.shape[1] == 4 * (300 + 4)
    footer = draw_page([], HEIGHT).shape[0]
    assert one.shape[0] - footer >= HEIGHT
    assert two.shape[0] - footer == 2 * (one.shape[0] - footer)


def test_a_page_can_be_written_as_png() -> None:
    encoded, _ = cv2.imencode(".png", draw_page([("only", {L_CC: Panel(an_image(), (), "L CC")})], HEIGHT))
    assert encoded
