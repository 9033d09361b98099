"""The pictures for people: outlines in their place, views as they are hung, and labels that stay apart and whole."""

from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ai.exam import STANDARD_VIEWS
from ai.findings import ImageFindings
from node.results.drawing import (
    CELL,
    COLOURS,
    GAP,
    WORDS_CELL,
    Canvas,
    Fit,
    Outline,
    Page,
    Panel,
    Picture,
    caption_rows,
    cell_of,
    draw_hanging,
    draw_page,
    draw_panel,
    draw_single,
    hanging_place,
    panel,
    png,
    side_by_side,
)
from node.results.labels import Box, label_places, lead
from tests.answers import a_mass
from tests.builders import L_CC, R_MLO

SQUARE = (400, 400)
BAND = caption_rows(SQUARE)


def dark(rows: int = 800, columns: int = 600) -> NDArray[np.uint8]:
    return np.zeros((rows, columns), np.uint8)


def a_square(x: float, y: float, size: float = 60) -> NDArray[np.float64]:
    return np.array([[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]], np.float64)


def coloured(picture: Picture) -> NDArray[np.bool_]:
    """Return where a picture is clearly not grey."""
    return np.asarray(np.ptp(picture.astype(np.int16), axis=2) > 60, np.bool_)


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of what is set."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def bare(outline: NDArray[np.float64]) -> tuple[Outline, ...]:
    """Return an outline without words."""
    return (Outline(outline, ""),)


@pytest.mark.parametrize(
    ("shape", "aspect", "place"),
    [
        ((800, 800), 1.0, (400, 400, 0, 0)),
        ((800, 400), 1.0, (400, 200, 100, 0)),
        ((400, 800), 1.0, (200, 400, 0, 100)),
        ((400, 800), 2.0, (400, 400, 0, 0)),
        ((1, 1), 1.0, (400, 400, 0, 0)),
        ((6000, 3), 1.0, (400, 1, 200, 0)),
    ],
)
def test_a_picture_fills_its_cell_and_keeps_its_aspect(
    shape: tuple[int, int], aspect: float, place: tuple[int, int, int, int]
) -> None:
    assert Fit.into(shape, aspect, SQUARE) == pytest.approx(place, abs=1)


@pytest.mark.parametrize("aspect", [1.0, 1.25])
@pytest.mark.parametrize("align", [0, 0.5, 1])
def test_an_outline_is_drawn_where_its_mass_is(aspect: float, align: float) -> None:
    drawn = draw_panel(Panel("", dark(), bare(a_square(300, 400)), aspect=aspect), SQUARE, align)
    fit = Fit.into((800, 600), aspect, SQUARE, align)
    across, down = fit.columns / 600, fit.rows / 800
    left, top, right, bottom = extent(coloured(drawn))
    middle = (left + right) / 2, (top + bottom) / 2
    assert middle == pytest.approx((fit.left + 330 * across, BAND + fit.top + 430 * down), abs=1)
    assert (right - left, bottom - top) == pytest.approx((60 * across + 2, 60 * down + 2), abs=2)


def test_the_outline_of_a_pixel_goes_around_that_pixel() -> None:
    # A contour's origin is the corner of the first pixel: pixel 4 of 10 lies between 4 and 5, at 40 times its size.
    drawn = draw_panel(Panel("", dark(10, 10), bare(a_square(4, 6, 1))), SQUARE)
    left, top, right, bottom = extent(coloured(drawn[BAND:]))
    assert ((left + right) / 2, (top + bottom) / 2) == pytest.approx((180, 260), abs=0.3)
    assert (right - left, bottom - top) == pytest.approx((42, 42), abs=2)


def test_nothing_is_coloured_without_outlines() -> None:
    assert not coloured(draw_panel(Panel("R CC", dark()), SQUARE)).any()


def test_masses_take_the_colours_in_their_order() -> None:
    contours = [a_square(20, 100 * n + 20, 40) for n in range(7)]
    drawn = draw_panel(Panel("", dark(), tuple(Outline(contour, "") for contour in contours)), (800, 600))
    band = caption_rows((800, 600))
    for number, contour in enumerate(contours):
        x, y = contour[0]
        seen = tuple(int(value) for value in drawn[band + int(y) + 20, int(x)])
        assert seen == pytest.approx(COLOURS[number % len(COLOURS)], abs=40)


@pytest.mark.parametrize(("sideways", "upright"), [(True, False), (False, True), (True, True), (False, False)])
def test_a_flipped_view_takes_its_outlines_with_it(*, sideways: bool, upright: bool) -> None:
    pixels = dark(80, 60)
    pixels[20:30, 10:20] = 255
    shown = Panel("", pixels, bare(a_square(10, 20, 10))).flipped(sideways=sideways, upright=upright)
    assert shown.pixels is not None
    rows, columns = np.nonzero(shown.pixels)
    box = Box(columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert Box.around(shown.outlines[0].contour) == box
    assert box == (40 if sideways else 10, 50 if upright else 20, 50 if sideways else 20, 60 if upright else 30)


@pytest.mark.parametrize(
    ("x", "y"), [(270, 370), (0, 0), (540, 0), (540, 740), (0, 740)], ids=["middle", "1st", "2nd", "3rd", "4th corner"]
)
def test_a_label_is_whole_wherever_its_mass_is(x: float, y: float) -> None:
    def label(x: float, y: float) -> tuple[int, int]:
        with_label, without = (
            draw_panel(Panel("", dark(), (Outline(a_square(x, y), words),)), (800, 600)) for words in ("1: 83", "")
        )
        left, top, right, bottom = extent((with_label != without).any(axis=2))
        return right - left, bottom - top

    assert label(x, y) == pytest.approx(label(270, 370), abs=3)


def test_forty_labels_stay_in_the_picture_and_apart() -> None:
    corners = np.random.default_rng(7).uniform(0, 470, (40, 2))
    outlines = [Box(x, y, x + 20, y + 25) for x, y in corners]
    places = label_places(outlines, [(48.0, 14.0)] * 40, (500, 500), 4)
    assert all(box.left >= 0 and box.top >= 0 and box.right <= 500 and box.bottom <= 500 for box in places)
    assert not any(a.overlaps(b) for n, a in enumerate(places) for b in places[:n])


def test_labels_find_a_place_when_all_masses_are_the_same() -> None:
    places = label_places([Box(10, 10, 90, 90)] * 30, [(60.0, 20.0)] * 30, (100, 100), 4)
    assert len(places) == 30


def test_a_label_that_had_to_go_far_is_led_to_its_outline_and_a_near_one_is_not() -> None:
    outline = Box(10, 10, 20, 20)
    assert lead(Box(24, 10, 60, 20), outline, 10) is None
    assert lead(Box(40, 60, 80, 70), outline, 10) == ((40, 60), (20, 20))
    assert lead(Box(-90, 12, -40, 18), outline, 10) == ((-40, 15), (10, 15))


def test_a_label_that_is_wider_than_the_picture_begins_at_its_edge() -> None:
    assert label_places([Box(2, 2, 4, 4)], [(60.0, 8.0)], (10, 10), 1)[0].left == 0


def test_a_panel_of_findings_tells_number_and_score_of_each_mass_and_the_score_of_the_image() -> None:
    mask = np.zeros((800, 600), np.bool_)
    mask[100:140, 100:140] = True
    found = ImageFindings("1.2", L_CC, mask.shape, (a_mass(mask, 2, suspicion=64),), 71, 0.7)
    shown = panel(L_CC, dark(), found)
    assert [outline.label for outline in shown.outlines] == ["2: 64"]
    assert shown.caption == "L CC   image score 71   1 mass"


def test_a_panel_without_findings_says_that_it_was_not_read() -> None:
    assert panel(L_CC, dark(), None).caption == "L CC   NOT READ"


def test_views_hang_with_the_chest_walls_in_the_middle() -> None:
    """Each view is a bright image half as wide as its cell: right ones lie at the right of it, left ones at the left."""
    shown = {view: Panel(str(view), np.full((400, 160), 200, np.uint8)) for view in STANDARD_VIEWS}
    cell = (400, 320)
    drawn = draw_hanging(shown, cell)
    bright = (drawn == 200).all(axis=2)
    band = caption_rows(cell)
    expected = [(160, band), (320 + GAP, band), (160, 2 * band + 400 + GAP), (320 + GAP, 2 * band + 400 + GAP)]
    for number, (left, top) in enumerate(expected):
        assert bright[top : top + 400, left : left + 160].mean() > 0.99
        assert hanging_place(number, cell)[1] + band == top
    assert bright.sum() == pytest.approx(4 * 400 * 160, rel=0.01)


def a_page(panels: dict[object, Panel], *lines: str) -> Page:
    return Page("Title", "MARK", lines or ("line",), panels, ("footer",))  # type: ignore[arg-type]


def test_a_page_has_all_views_below_its_words_and_a_missing_one_is_marked() -> None:
    whole = draw_page(a_page({view: Panel(str(view), dark()) for view in STANDARD_VIEWS}))
    alone = draw_page(a_page({R_MLO: Panel("R MLO", dark())}))
    assert whole.shape == alone.shape
    assert whole.shape[1] == 2 * CELL[1] + GAP
    assert whole.shape[0] <= 2500
    # The mark of the title, and the captions of three empty views.
    assert coloured(alone).sum() > 2 * coloured(whole).sum() > 0


def test_a_page_without_pictures_is_short() -> None:
    drawn = draw_page(a_page({view: Panel(str(view), words="Not read.") for view in STANDARD_VIEWS}))
    assert drawn.shape[0] < 2 * (WORDS_CELL[0] + 200)


def test_more_words_make_a_page_higher_and_none_is_lost_at_its_edge() -> None:
    drawn = [draw_page(a_page({}, *["word " * 60] * count)) for count in (1, 2)]
    assert drawn[1].shape[0] > drawn[0].shape[0] + 40
    assert drawn[0].shape[1] == drawn[1].shape[1]


def test_text_is_wrapped_by_words_and_cut_where_a_word_is_too_long() -> None:
    canvas = Canvas(10, 10)
    lines = canvas.wrapped("one two three " + "9" * 90 + " four", 20, 150)
    assert " ".join(lines).startswith("one two")
    assert lines[-1].endswith("four")
    assert any("..." in line for line in lines)
    assert all(canvas.width(line, 20) <= 150 for line in lines)


def test_words_that_are_more_than_a_line_takes_end_in_dots() -> None:
    canvas = Canvas(10, 10)
    lines = canvas.wrapped("word " * 60, 20, 150, most=3)
    assert len(lines) == 3
    assert lines[-1].endswith("...")
    assert canvas.wrapped("one two", 20, 150, most=1) == ["one two"]


def test_words_in_the_place_of_a_picture_stay_above_its_edge() -> None:
    drawn = draw_panel(Panel("R CC   NOT READ", words="Not read: " + "very long " * 300), CELL)
    assert (drawn[-8:] == 20).all()
    assert (drawn[-60:-8] > 100).any()


def test_a_view_by_itself_is_wide_enough_for_words() -> None:
    tall = Panel("", dark(900, 3))
    assert cell_of(tall, 1280) == (1280, 480)
    assert cell_of(Panel("", dark(800, 600), aspect=1.6), 1280) == (1280, 600)
    assert draw_single(tall, ["words"], (480, 480)).shape[1] == 480


def test_pages_of_any_height_stand_side_by_side() -> None:
    pictures = [np.full((rows, 10, 3), 9, np.uint8) for rows in (5, 20)]
    joined = side_by_side(pictures)
    assert joined.shape[0] == 20
    assert (joined == 9).all(axis=2).sum() == 250


def test_a_png_has_the_colours_of_its_picture() -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[..., 0] = 200
    read = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    assert tuple(int(value) for value in read[0, 0]) == (0, 0, 200)  # BGR


def test_equal_drawing_gives_equal_pixels() -> None:
    page = a_page({L_CC: Panel("L CC", dark(), bare(a_square(10, 10)))})
    assert all((a == b).all() for a, b in pairwise([draw_page(page) for _ in range(3)]))
