"""The way between image and canvas, there and back, for any crop, mirror, scale and aspect."""

import cv2
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ai.breast import Geometry

CANVAS = (96, 80)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Draw a crop within an image of 40 to 300 pixels, fitted into the canvas with an aspect from 0.5 to 2."""
    rows, columns = draw(st.integers(40, 300)), draw(st.integers(40, 300))
    x, y = draw(st.integers(0, columns - 30)), draw(st.integers(0, rows - 30))
    width, height = draw(st.integers(30, columns - x)), draw(st.integers(30, rows - y))
    aspect = draw(st.floats(0.5, 2))
    scale = min(CANVAS[1] / width, CANVAS[0] / (height * aspect)) * draw(st.floats(0.5, 1))
    return Geometry((rows, columns), (x, y, width, height), draw(st.booleans()), (scale, scale * aspect), CANVAS)


POINTS = st.lists(st.tuples(st.floats(-500, 500), st.floats(-500, 500)), min_size=1, max_size=9)


@given(geometries(), POINTS)
def test_points_come_back_to_where_they_were(geometry: Geometry, drawn: list[tuple[float, float]]) -> None:
    points = np.array(drawn)
    np.testing.assert_allclose(geometry.points_to_image(geometry.points_to_canvas(points)), points, atol=1e-6)
    np.testing.assert_allclose(geometry.points_to_canvas(geometry.points_to_image(points)), points, atol=1e-6)


@given(geometries())
def test_the_corners_of_the_crop_are_the_corners_of_what_it_covers(geometry: Geometry) -> None:
    x, y, width, height = geometry.crop
    columns, rows = geometry.covered
    left, right = (x + width, x) if geometry.mirrored else (x, x + width)
    corners = geometry.points_to_canvas(np.array([[left, y], [right, y + height]], np.float64))
    np.testing.assert_allclose(corners, [[0, 0], [columns, rows]], atol=1e-6)
    assert columns <= CANVAS[1]
    assert rows <= CANVAS[0]


@given(geometries(), st.floats(0.2, 0.8), st.floats(0.2, 0.8))
def test_a_spot_in_the_image_is_on_the_canvas_where_its_point_is(
    geometry: Geometry, across: float, down: float
) -> None:
    x, y, width, height = geometry.crop
    centre = np.array([[x + across * width, y + down * height]])
    rows, columns = np.mgrid[: geometry.shape[0], : geometry.shape[1]] + 0.5
    # A Gaussian wide enough to be seen on the canvas at any scale.
    sx, sy = (1.5 / min(s, 1) for s in geometry.scale)
    spot = np.exp(-(((columns - centre[0, 0]) / sx) ** 2 + ((rows - centre[0, 1]) / sy) ** 2) / 2).astype(np.float32)
    canvas = geometry.to_canvas(spot)
    peak = np.array(np.unravel_index(canvas.argmax(), canvas.shape))[::-1] + 0.5
    covered = np.array(geometry.covered)
    expected = geometry.points_to_canvas(centre)[0]
    # The peak is at the centre of a pixel, of the image's or of the canvas's, whichever is the coarser.
    tolerance = [max(1.0, 0.5 * scale + 0.5) for scale in geometry.scale]
    assert (np.abs(peak - np.clip(expected, 0.5, covered - 0.5)) <= tolerance).all()


@given(geometries(), st.floats(0.25, 0.75), st.floats(0.25, 0.75), st.integers(3, 9))
def test_a_patch_of_the_canvas_comes_back_to_its_place_in_the_image(
    geometry: Geometry, across: float, down: float, radius: int
) -> None:
    columns, rows = geometry.covered
    centre = (round(across * columns), round(down * rows))
    disc = np.zeros(CANVAS, np.float32)
    cv2.circle(disc, centre, radius, (1,), -1)
    disc[rows:], disc[:, columns:] = 0, 0
    top, left = max(centre[1] - radius - 2, 0), max(centre[0] - radius - 2, 0)
    bottom, right = min(centre[1] + radius + 3, rows), min(centre[0] + radius + 3, columns)
    values, (row, column) = geometry.patch_to_image(disc[top:bottom, left:right], (top, left))

    assert row >= 0
    assert column >= 0
    assert row + values.shape[0] <= geometry.shape[0]
    assert column + values.shape[1] <= geometry.shape[1]
    # Every image pixel asked for its own place on the canvas is the independent way round.
    y, x = np.mgrid[row : row + values.shape[0], column : column + values.shape[1]] + 0.5
    place = geometry.points_to_canvas(np.stack([x.ravel(), y.ravel()], 1)) - 0.5
    near = np.round(place).astype(int)
    inside = (near >= [left, top]).all(1) & (near < [right, bottom]).all(1)
    grown, shrunk = cv2.dilate(disc, np.ones((3, 3))), cv2.erode(disc, np.ones((3, 3)))
    value = values.ravel()[inside]
    x_near, y_near = near[inside].T
    assert (value <= grown[y_near, x_near] + 1e-6).all()
    assert (value >= shrunk[y_near, x_near] - 1e-6).all()


@given(geometries())
def test_a_picture_brought_onto_the_canvas_and_back_is_the_picture(geometry: Geometry) -> None:
    rows, columns = np.mgrid[: geometry.shape[0], : geometry.shape[1]] + 0.5
    smooth = (columns / 300 + rows / 600).astype(np.float32)
    canvas = geometry.to_canvas(smooth)
    across, down = geometry.covered
    values, (row, column) = geometry.patch_to_image(canvas[:down, :across], (0, 0))
    x, y, width, height = geometry.crop
    # Rounding may add a pixel around the crop.
    assert x - 1 <= column <= x
    assert y - 1 <= row <= y
    assert x + width <= column + values.shape[1] <= x + width + 1
    assert y + height <= row + values.shape[0] <= y + height + 1
    part = values[y - row : y - row + height, x - column : x - column + width]
    # One canvas pixel of a slope; the outermost pixels are repeated at the border.
    step = 1 / (300 * min(geometry.scale)) + 1 / (600 * min(geometry.scale))
    np.testing.assert_allclose(part, smooth[y : y + height, x : x + width], atol=step)


@given(geometries(), st.floats(0.25, 0.75), st.floats(0.25, 0.75), st.integers(4, 9), st.sampled_from([16, 64, 512]))
def test_a_disc_of_the_canvas_lies_in_its_place_on_a_grid_over_the_whole_image(
    geometry: Geometry, across: float, down: float, radius: int, longest: int
) -> None:
    columns, rows = geometry.covered
    disc = np.zeros(CANVAS, np.float32)
    cv2.circle(disc, (round(across * columns), round(down * rows)), radius, (1,), -1)
    disc[rows:], disc[:, columns:] = 0, 0
    grid = geometry.to_grid(disc, longest)

    assert max(grid.shape) == min(longest, max(geometry.shape))
    cell = np.array(geometry.shape[::-1]) / grid.shape[::-1]
    assert cell.max() / cell.min() < 2 or min(grid.shape) == 1
    y, x = np.mgrid[: grid.shape[0], : grid.shape[1]] + 0.5
    centre = np.array([(grid * x).sum(), (grid * y).sum()]) / grid.sum() * cell
    y, x = np.mgrid[: CANVAS[0], : CANVAS[1]] + 0.5
    truth = np.array([[(disc * x).sum(), (disc * y).sum()]], np.float64) / disc.sum()
    pixel = 1 / np.array(geometry.scale)
    assert (np.abs(centre - geometry.points_to_image(truth)[0]) <= 0.5 * np.maximum(cell, pixel)).all()
    area = grid.sum() * cell.prod()
    assert abs(area - disc.sum() * pixel.prod()) <= 0.3 * disc.sum() * pixel.prod() + cell.prod()
