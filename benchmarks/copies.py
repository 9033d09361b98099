"""How often copies of real images are found by their prints, and how often different women's images are taken for copies.

Run: python benchmarks/copies.py DATA … [--images 100]
Each DATA is as for ``mammonode data``. All images of different patients are compared, also mirrored and turned, within and
across the sets: what is found there is a copy in the sets themselves, or a false alarm, and is printed to be looked at.
Copies are made of some images of each set.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from ai.datasets import prints
from ai.datasets.prints import Print, copies, print_of
from ai.datasets.registry import open_dataset
from ai.pixels import file_image

Picture = NDArray[np.float32]


def as_jpeg(picture: Picture) -> Picture:
    """Return a picture of other proportions, stored as JPEG of quality 30."""
    small = cv2.resize(picture, (300, 420), interpolation=cv2.INTER_AREA)
    stored = cv2.imencode(".jpg", np.round(255 * small).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 30])[1]
    return np.asarray(cv2.imdecode(stored, cv2.IMREAD_GRAYSCALE), np.float32) / np.float32(255)


def equalised(picture: Picture) -> Picture:
    """Return a picture with its contrast raised tile by tile, which no curve of levels undoes."""
    stored = np.round(255 * picture).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(2.0, (8, 8)).apply(stored), np.float32) / np.float32(255)


def cropped(picture: Picture, share: float) -> Picture:
    """Return a picture without a share of it at each border."""
    rows, columns = (round(side * share) for side in picture.shape)
    return picture[rows:-rows, columns:-columns]


CHANGES: Mapping[str, Callable[[Picture], Picture]] = {
    "other size and proportions, JPEG of quality 30": as_jpeg,
    "gamma 0.6": lambda picture: picture ** np.float32(0.6),
    "gamma 0.75": lambda picture: picture ** np.float32(0.75),
    "gamma 1.3": lambda picture: picture ** np.float32(1.3),
    "gamma 1.6": lambda picture: picture ** np.float32(1.6),
    "window that cuts 8 % off below and 17 % above": lambda picture: ((picture - 0.08) / 0.75).clip(0, 1),
    "blurred by 2 pixels": lambda picture: cv2.GaussianBlur(picture, (0, 0), 2).astype(np.float32),
    "mirrored, gamma 1.3, half the size": lambda picture: cv2.resize(
        picture[:, ::-1] ** np.float32(1.3), None, fx=0.5, fy=0.5
    ),
    "contrast equalised by tiles": equalised,
    "2 % cropped at each border": lambda picture: cropped(picture, 0.02),
    "turned by 2 degrees": lambda picture: turned(picture, 2),
}


def turned(picture: Picture, degrees: float) -> Picture:
    """Return a picture turned a little."""
    rows, columns = picture.shape
    matrix = cv2.getRotationMatrix2D((columns / 2, rows / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(picture, matrix, (columns, rows)), np.float32)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--images", type=int, default=100)
    options = parser.parse_args()
    seen: list[Print] = []
    patients: list[str] = []
    files: list[str] = []
    made: dict[str, list[tuple[int, bool]]] = {name: [] for name in CHANGES}
    for path in options.data:
        dataset = open_dataset(path)
        every = max(len(dataset.records) // options.images, 1)
        for place, record in enumerate(track(dataset.records, dataset.source.name, console=Console(stderr=True))):
            pixels = file_image(dataset.folder / record.path, record.view).pixels
            print_ = print_of(pixels)
            seen.append(print_)
            patients.append(f"{dataset.source.name} {record.patient_id}")
            files.append(f"{dataset.source.name} {record.file}")
            if place % every == 0:
                for name, change in CHANGES.items():
                    made[name].append(compared(print_, print_of(change(pixels)), turn="mirrored" in name))
    print("| copy | found | signs that differ, median and most, of 255 |\n|---|---|---|")
    for name, results in made.items():
        apart = [distance for distance, _ in results]
        found = sum(same for _, same in results)
        print(
            f"| {name} | {100 * found / len(results):.1f} % of {len(results)} | {np.median(apart):.0f}, {max(apart)} |"
        )
    show(seen, patients, files)


def compared(one: Print, other: Print, *, turn: bool) -> tuple[int, bool]:
    """Return how many signs differ between a picture and its copy, and whether it is found."""
    found = list(copies([one, other], ["A", "B"]))
    mask = prints.TURNED["mirrored" if turn else "as it is"]
    return int(np.bitwise_count(one.words ^ mask ^ other.words).sum()), len(found) == 1


def show(seen: Sequence[Print], patients: Sequence[str], files: Sequence[str]) -> None:
    """Print how near different women come, and which pairs are taken for copies."""
    words, group = np.stack([each.words for each in seen]), np.unique(patients, return_inverse=True)[1]
    nearest, pairs, suspected = 255, 0, 0
    for place, one in enumerate(seen[:-1]):
        others = place + 1 + np.flatnonzero(group[place + 1 :] != group[place])
        pairs += len(others)
        for mask in prints.TURNED.values():
            apart = np.bitwise_count(words[others] ^ (one.words ^ mask)).sum(1)
            suspected += int((apart <= prints.DISTANCE).sum())
            nearest = min(nearest, int(apart.min(initial=255)))
    print(
        f"\n{len(seen)} images of {len(set(patients))} patients, {pairs} pairs of different patients, each in 4 positions:"
    )
    print(f"nearest {nearest} signs apart; {suspected} within {prints.DISTANCE}, which the thumbnails decide.")
    found = list(copies(seen, patients))
    print(f"{len(found)} pairs are taken for copies:")
    for pair in found:
        print(f"  {files[pair.first]} = {files[pair.second]}, {pair.turned}")


if __name__ == "__main__":
    main()
