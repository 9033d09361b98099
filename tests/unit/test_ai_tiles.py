"""Tiles: every pixel of every canvas is in one, and what is cut is what is joined."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ai.tiles import Tiling

SIZES = st.integers(1, 50)


def noise(rows: int, columns: int) -> NDArray[np.float32]:
    return np.random.default_rng(rows * 100 + columns).random((rows, columns), np.float32)


@given(rows=SIZES, columns=SIZES, side=st.sampled_from([2, 4, 6, 16]), overlapped=st.booleans())
def test_what_is_cut_is_what_is_joined(rows: int, columns: int, side: int, *, overlapped: bool) -> None:
    tiling = Tiling(side, overlapped)
    canvas = tiling.canvas(rows, columns)
    assert all(0 <= have - need < side and have % side == 0 for have, need in zip(canvas, (rows, columns), strict=True))
    pixels = noise(*canvas)
    origins = list(tiling.origins(canvas))
    tiles = [tiling.cut(pixels, origin) for origin in origins]
    assert all(tile.shape == (side, side) for tile in tiles)
    np.testing.assert_allclose(tiling.join(canvas, origins, tiles), pixels, rtol=1e-5)


@given(SIZES, SIZES)
def test_tiles_lie_beside_each_other_or_begin_every_half(rows: int, columns: int) -> None:
    canvas = Tiling(8).canvas(rows, columns)
    down, across = canvas[0] // 8, canvas[1] // 8
    assert list(Tiling(8).origins(canvas)) == [(8 * r, 8 * c) for r in range(down) for c in range(across)]
    halves = [(4 * r, 4 * c) for r in range(2 * down - 1) for c in range(2 * across - 1)]
    assert list(Tiling(8, overlapped=True).origins(canvas)) == halves


@pytest.mark.parametrize("overlapped", [False, True])
def test_what_was_not_read_is_0(*, overlapped: bool) -> None:
    tiling = Tiling(8, overlapped)
    joined = tiling.join((16, 24), [(8, 8)], [np.ones((8, 8), np.float32)])
    expected = np.zeros((16, 24))
    expected[8:, 8:16] = 1
    np.testing.assert_allclose(joined, expected, rtol=1e-6)
    assert (tiling.join((8, 8), [], []) == 0).all()


def test_overlapping_tiles_are_blended_by_hanns_window() -> None:
    tiling = Tiling(8, overlapped=True)
    ones, zeros = np.ones((8, 8), np.float32), np.zeros((8, 8), np.float32)
    joined = tiling.join((8, 12), [(0, 0), (0, 4)], [ones, zeros])
    # cos² of half the way through the overlap, at the pixels' centres.
    falling = np.cos(np.pi / 2 * (np.arange(4) + 0.5) / 4) ** 2
    np.testing.assert_allclose(joined, np.tile([1, 1, 1, 1, *falling, 0, 0, 0, 0], (8, 1)), atol=1e-6)
