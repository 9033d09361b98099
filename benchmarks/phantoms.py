"""What phantoms cost and how hard they are: seconds a view, spectrum, CNR and d' of a model observer, the gate.

Run: python benchmarks/phantoms.py [--exams 4] [--breasts 60] [--vendor a b c] [--margin ...] [--sheet FOLDER]
Prints the tables of docs/phantoms.md; with ``--exams 0`` without cost, spectrum and gate. One thread is used. For d', a
mass of 5 mm radius is put into so many breasts at three places each, at every conspicuity, and the same places without it
are what it is told from; pixels of 0.2 mm.
``--sheet`` writes contact sheets, to be looked at.
"""

import argparse
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ai.appearance import appearance
from ai.checks import Check, Verdict
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, Laterality, ViewPosition
from ai.gate import GatePolicy, noticed, shipped_reference
from ai.phantom.difficulty import contrast_to_noise, detectability, laguerre_gauss, spectral_slope
from ai.phantom.exam import Woman
from ai.phantom.grid import Field, Grid
from ai.phantom.lesions import Lesion, Shape, draw_point
from ai.phantom.malignancy import bayes_auc
from ai.phantom.margins import Margin
from ai.phantom.render import Breast, detect, expose, model_breast, present, with_masses
from ai.phantom.vendors import VENDORS, Vendor
from ai.pixels import view_image
from node.phantom import PhantomExam, phantom_exam

CC = STANDARD_VIEWS[1]
LEVELS = (0.2, 0.4, 0.6, 0.8, 1.0)
RADIUS = 5.0
OBSERVED = Grid(1150, 920, 0.2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--exams", type=int, default=4)
    parser.add_argument("--breasts", type=int, default=60)
    parser.add_argument("--vendor", nargs="+", choices=tuple(VENDORS), default=list(VENDORS))
    parser.add_argument("--margin", nargs="+", type=Margin, choices=tuple(Margin), default=list(Margin))
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print(f"Bayes AUC of malignancy: {bayes_auc():.3f}\n")
    makes = {name: VENDORS[name] for name in options.vendor}
    if options.exams:
        whole(makes, options.exams, options.sheet)
    for vendor in makes.values():
        for margin in options.margin:
            observed(options.breasts, vendor, margin)
    for vendor in makes.values():
        drawn(options.breasts, vendor)


def whole(makes: Mapping[str, Vendor], exams: int, sheet: Path | None) -> None:
    """Print cost, spectrum and what the gate says, vendor by vendor, and write the contact sheets."""
    print("| vendor | s a view | beta of attenuation | beta of the picture | refused | said by the gate |")
    print("|---|---|---|---|---|---|")
    for name, vendor in makes.items():
        seconds, slopes, pictures, refused, told = 0.0, [], [], 0, {}
        tiles = []
        for seed in range(1, exams + 1):
            began = time.process_time()
            exam = phantom_exam(seed, vendor=vendor)
            seconds += time.process_time() - began
            for checks in gate(exam):
                refused += checks is None or any(check.verdict is Verdict.NOT_ANALYSED for check in checks)
                for check in checks or ():
                    told[check.code] = told.get(check.code, 0) + 1
            breast = model_breast(CC, exam.woman.anatomy, (), vendor.grid, np.random.default_rng((seed, 2)))
            inner = breast.slab.from_skin > 3
            slopes.append(spectral_slope(breast.attenuation, inner, breast.grid.spacing))
            shown = exam.views[1].pixels.astype(np.float32)
            shown = cv2.resize(shown, (breast.grid.columns, breast.grid.rows), interpolation=cv2.INTER_AREA)
            pictures.append(spectral_slope(shown, inner, breast.grid.spacing))
            tiles.append(np.concatenate([small(view.pixels, vendor) for view in exam.views], 1))
        said = ", ".join(f"{code} {100 * count / exams / 4:.0f} %" for code, count in told.items()) or "nothing"
        print(
            f"| {name}, {vendor.grid.spacing} mm | {seconds / exams / 4:.1f} | {spread(slopes)} | {spread(pictures)} | "
            f"{refused} of {4 * exams} | {said} |"
        )
        if sheet:
            sheet.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(sheet / f"vendor-{name}.png"), np.concatenate(tiles, 0))
    print()


def spread(values: list[float]) -> str:
    """Return mean, least and largest."""
    return f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def small(pixels: NDArray[np.uint16], vendor: Vendor, height: int = 480) -> NDArray[np.uint8]:
    """Return a picture for a contact sheet."""
    grey = (pixels >> (vendor.bits - 8)).astype(np.uint8)
    return np.asarray(
        cv2.resize(grey, (height * grey.shape[1] // grey.shape[0], height), interpolation=cv2.INTER_AREA), np.uint8
    )


def gate(exam: PhantomExam) -> Iterator[tuple[Check, ...] | None]:
    """Yield what the gate says of each view; None where it finds no breast."""
    for view in STANDARD_VIEWS:
        image = view_image(exam.image(view), view)
        try:
            yield noticed(image, appearance(image), GatePolicy(), shipped_reference())
        except NoBreast:
            yield None


@dataclass(frozen=True, eq=False)
class Scene:
    """A breast and three places in it."""

    breast: Breast
    woman: Woman
    vendor: Vendor
    lesions: tuple[Lesion, ...]
    noise: Field

    @classmethod
    def draw(cls, seed: int, vendor: Vendor, margin: Margin) -> "Scene":
        """Draw one."""
        rng = np.random.default_rng((seed, 77))
        woman = Woman.draw(seed, ())
        irregularity = 0.06 if margin in (Margin.CIRCUMSCRIBED, Margin.OBSCURED) else 0.15
        lesions = tuple(
            Lesion(
                Laterality.LEFT,
                depth=draw_point(rng)[0],
                lateral=lateral + float(rng.uniform(-0.06, 0.06)),
                vertical=0.0,
                radius=RADIUS,
                irregularity=irregularity,
                margin=margin,
            )
            for lateral in (-0.42, 0.0, 0.42)
        )
        breast = model_breast(CC, woman.anatomy, woman.distractors, vendor.grid, rng)
        noise = rng.standard_normal((vendor.grid.rows, vendor.grid.columns), dtype=np.float32)
        return cls(breast, woman, vendor, lesions, noise)

    @property
    def centres(self) -> tuple[tuple[float, float], ...]:
        """Y and x of the places in mm."""
        height = self.vendor.grid.height
        return tuple(
            self.woman.anatomy.place(each.point, each.radius, ViewPosition.CC, height) for each in self.lesions
        )

    def shapes(self, conspicuity: float) -> tuple[Shape, ...]:
        """Return the masses at the places."""
        return tuple(
            Shape.draw(replace(each, conspicuity=conspicuity), ViewPosition.CC, np.random.default_rng(number))
            for number, each in enumerate(self.lesions, 1)
        )

    def picture(self, conspicuity: float) -> Field:
        """Return the picture with masses of a conspicuity; 0 for without."""
        breast, vendor, anatomy = self.breast, self.vendor, self.woman.anatomy
        clean = expose(breast, breast.attenuation, vendor, anatomy)
        shown = with_masses(breast, self.shapes(conspicuity), self.centres)
        exposure = expose(breast, shown, vendor, anatomy)
        pixels = present(detect(exposure, self.noise, vendor), clean, breast, vendor, anatomy)
        return np.asarray(pixels, np.float32) / np.float32(1 << vendor.bits)


def observed(breasts: int, make: Vendor, margin: Margin) -> None:
    """Print CNR and d' by conspicuity for one make and one margin."""
    vendor = replace(make, grid=OBSERVED)
    size = 2 * int(2.2 * RADIUS / OBSERVED.spacing) + 1
    channels = laguerre_gauss(size, 1.2 * RADIUS / OBSERVED.spacing).reshape(10, -1)
    seen: dict[float, list[NDArray[np.float64]]] = {level: [] for level in (0.0, *LEVELS)}
    ratios: dict[float, list[float]] = {level: [] for level in LEVELS}
    for seed in range(1, breasts + 1):
        scene = Scene.draw(seed, vendor, margin)
        for level, found in seen.items():
            picture = scene.picture(level)
            for number, (y, x) in enumerate(scene.centres):
                row, column, half = int(y / OBSERVED.spacing), int(x / OBSERVED.spacing), size // 2
                region = np.pad(picture, half)[row : row + size, column : column + size]
                found.append(channels @ (region - region.mean()).ravel())
                if level:
                    mask = scene.shapes(level)[number].mask((y, x), OBSERVED)
                    ratios[level].append(contrast_to_noise(picture, mask, scene.breast.slab.from_skin > 2, 0.2))
    print(f"| {make.name}, {margin} | {' | '.join(map(str, LEVELS))} |")
    print("|---|" + "---|" * len(LEVELS))
    print("| CNR, median | " + " | ".join(f"{np.median(ratios[level]):.2f}" for level in LEVELS) + " |")
    print("| d' | " + " | ".join(f"{detectability(seen[level], seen[0.0]):.2f}" for level in LEVELS) + " |\n")


def drawn(exams: int, make: Vendor) -> None:
    """Print how the CNR of masses as they are drawn is distributed."""
    vendor = make.small
    ratios: dict[str, list[float]] = {}
    for seed in range(1, exams + 1):
        for view in Woman.draw(seed).views(vendor):
            picture, inside = view.pixels.astype(np.float32), view.pixels > 0
            for mass in view.masses:
                ratio = contrast_to_noise(picture, mass.mask, inside, vendor.grid.spacing)
                ratios.setdefault(str(mass.lesion.margin), []).append(ratio)
    print(f"| CNR of drawn masses, {make.name} | views | 10 % | 25 % | median | 75 % | 90 % |")
    print("|---|---|---|---|---|---|---|")
    everything = [ratio for found in ratios.values() for ratio in found]
    for name, found in (*sorted(ratios.items()), ("all", everything)):
        shown = " | ".join(f"{value:.2f}" for value in np.percentile(found, (10, 25, 50, 75, 90)))
        print(f"| {name} | {len(found)} | {shown} |")


if __name__ == "__main__":
    main()
