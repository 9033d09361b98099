"""Square tiles over a canvas, and their values put together again: beside each other, or overlapped by half."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Tiling:
    """How a canvas is cut into tiles.

    Attributes
    ----------
    side
        Rows and columns of a tile, an even number of canvas pixels.
    overlapped
        Tiles begin every half side and are blended by Hann windows; otherwise they lie beside each other.
    """

    side: int
    overlapped: bool = False

    def canvas(self, rows: int, columns: int) -> tuple[int, int]:
        """Return rows and columns of the smallest canvas of whole tiles that holds as many: what is more is padding."""
        down, across = (-(-length // self.side) * self.side for length in (rows, columns))
        return down, across

    def origins(self, canvas: tuple[int, int]) -> Iterator[tuple[int, int]]:
        """Yield row and column of each tile's first pixel, row by row."""
        step = self.side // 2 if self.overlapped else self.side
        for row in range(0, canvas[0] - self.side + 1, step):
            for column in range(0, canvas[1] - self.side + 1, step):
                yield row, column

    def cut(self, pixels: NDArray[np.float32], origin: tuple[int, int]) -> NDArray[np.float32]:
        """Return the tile that begins at a pixel."""
        return pixels[self._window(origin)]

    def join(
        self,
        canvas: tuple[int, int],
        origins: Sequence[tuple[int, int]],
        tiles: Sequence[NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """Return the canvas that tiles make: 0 where there is none, their weighted mean where there are several.

        A tile that is not given says nothing: its neighbours' values stand where they overlap it.

        Parameters
        ----------
        canvas
            Rows and columns.
        origins, tiles
            Of the tiles that are given, in one order.
        """
        window = self._weights()
        total, weight = np.zeros(canvas, np.float32), np.zeros(canvas, np.float32)
        for origin, tile in zip(origins, tiles, strict=True):
            total[self._window(origin)] += window * tile
            weight[self._window(origin)] += window
        return np.divide(total, weight, out=total, where=weight > 0)

    def _window(self, origin: tuple[int, int]) -> tuple[slice, slice]:
        row, column = origin
        return slice(row, row + self.side), slice(column, column + self.side)

    def _weights(self) -> NDArray[np.float32]:
        """Hann's window taken at the pixels' centres: above 0 everywhere, and two that overlap by half sum to 1."""
        if not self.overlapped:
            return np.ones((self.side, self.side), np.float32)
        hann = np.sin(np.pi * (np.arange(self.side) + 0.5) / self.side) ** 2
        return np.outer(hann, hann).astype(np.float32)
