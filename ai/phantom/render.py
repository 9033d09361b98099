"""From a breast to stored values: attenuation, exposure, detector, picture (of a left breast, mirrored for a right one).

Exposure is Beer and Lambert's law with one effective energy of about 20 keV (Johns and Yaffe, Phys Med Biol 1987; 32:
675), scatter as a blurred share of it, the detector's blur, and noise. Everything that reaches far, namely scatter, the
compensation of thickness and the grey scale, is taken from the breast without its masses: an exam and its twin without
masses are equal outside of them.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ai.exam import Laterality, View, ViewPosition
from ai.phantom import tissue
from ai.phantom.anatomy import Anatomy, Slab, compress
from ai.phantom.distractors import Distractor
from ai.phantom.grid import Field, Grid, enlarged
from ai.phantom.lesions import Lesion, Shape
from ai.phantom.vendors import Vendor

FAT, GLAND, CARCINOMA, SKIN = (np.float32(mu) for mu in (0.0456, 0.0802, 0.0844, 0.0660))
"""Linear attenuation per mm at about 20 keV."""

RAW_BITS = 14
"""Of a For Processing value."""

FINEST_TISSUE = 0.14
"""Spacing in mm below which tissue is not drawn but enlarged: what is finer is weaker than the noise."""

FINEST_SHAPE = 0.1
"""The same for what has outlines."""


@dataclass(frozen=True, eq=False)
class Breast:
    """One breast as one view shows it, without masses.

    Attributes
    ----------
    grid
        Of the model, not finer than what is drawn.
    slab
        The breast between the paddles.
    attenuation
        Shape (rows, columns): line integral of the attenuation.
    glandular
        Share of fibroglandular tissue, 0 to 1.
    distractors
        What else the view shows, each with its centre (y, x) in mm.
    """

    grid: Grid
    slab: Slab
    attenuation: Field
    glandular: Field
    distractors: tuple[tuple[Distractor, tuple[float, float]], ...]


@dataclass(frozen=True, eq=False)
class Picture:
    """One view.

    Attributes
    ----------
    pixels
        Shape (rows, columns), uint16: For Presentation, bright is dense, 0 outside of the breast.
    raw
        The same as exposures, For Processing: bright is air.
    masks
        One per lesion, bool: exactly the pixels whose centre is within its outline.
    centres
        Row and column of each lesion's centre.
    distractors
        What else the view shows, with row and column of its centre.
    nipple
        Row and column.
    """

    pixels: NDArray[np.uint16]
    raw: NDArray[np.uint16]
    masks: tuple[NDArray[np.bool_], ...]
    centres: tuple[tuple[float, float], ...]
    distractors: tuple[tuple[Distractor, tuple[float, float]], ...]
    nipple: tuple[float, float]


def model_breast(
    view: View, anatomy: Anatomy, distractors: tuple[Distractor, ...], detector: Grid, rng: Generator
) -> Breast:
    """Draw a breast without masses."""
    grid = detector.coarser(FINEST_SHAPE)
    fine = grid.coarser(FINEST_TISSUE)
    slab = compress(anatomy, view.position, grid, rng)
    few = slab.coarser(round(fine.spacing / grid.spacing))
    fan = tissue.Fan.of(anatomy, view.position, fine)
    share = tissue.gland(anatomy, view.position, few, fan, rng)
    path = tissue.strands(share, few, fan, rng)
    share, path = enlarged(share, grid), enlarged(path, grid)
    ducts = tissue.ducts(anatomy, view.position, grid, rng)
    vessels = tissue.vessels(anatomy, view.position, grid, rng)
    path += 0.5 * tissue.traced(ducts, grid) + 0.9 * tissue.traced(vessels, grid)
    shown = tuple((each, each.centre(anatomy, view, grid.height)) for each in distractors if each.shown_in(view))
    inner = slab.thickness - slab.skin
    dense = share * inner + path
    if view.position is ViewPosition.MLO:
        lies, part = tissue.muscle(anatomy, grid, rng)
        dense += lies * (part * inner - 0.75 * dense)
    dense = np.clip(dense, 0, 0.95 * inner)
    attenuation = FAT * inner + (GLAND - FAT) * dense + SKIN * slab.skin
    # What is added next is no tissue: calcium is denser than the whole breast's glands.
    for distractor, centre in shown:
        window, more = distractor.drawn(centre, grid)
        attenuation[window] += (GLAND - FAT) * more * slab.inside[window]
    return Breast(
        grid, slab, np.asarray(attenuation, np.float32), np.asarray(dense / np.maximum(inner, 1), np.float32), shown
    )


def with_masses(breast: Breast, shapes: tuple[Shape, ...], centres: tuple[tuple[float, float], ...]) -> Field:
    """Return the attenuation of a breast with masses in the place of tissue."""
    attenuation = breast.attenuation.copy()
    for shape, centre in zip(shapes, centres, strict=True):
        window, path = shape.path(centre, breast.grid)
        replaced = FAT + (GLAND - FAT) * np.clip(breast.glandular[window], 0, 0.85)
        room = np.minimum(path, 0.9 * breast.slab.thickness[window])
        attenuation[window] += np.float32(shape.lesion.conspicuity) * (CARCINOMA - replaced) * room
    return attenuation


def expose(breast: Breast, attenuation: Field, vendor: Vendor, anatomy: Anatomy) -> Field:
    """Return the exposure of the detector, as a share of that behind fat of the breast's thickness, on the model's grid."""
    behind = np.float32(-FAT * np.float32(anatomy.thickness))
    primary = np.exp(np.minimum(-attenuation - behind, 4.0))
    clean = np.exp(np.minimum(-breast.attenuation - behind, 1.0))
    exposure = primary + np.float32(vendor.scatter) * _blurred(clean, 6.0, breast.grid)
    if vendor.blur > 0.3 * breast.grid.spacing:
        exposure = cv2.GaussianBlur(exposure, (0, 0), vendor.blur / breast.grid.spacing)
    return np.asarray(exposure, np.float32)


def _blurred(field: Field, scale: float, grid: Grid) -> Field:
    """Return a field without what is smaller than a scale in mm."""
    step = max(1, int(scale / 3 / grid.spacing))
    small = cv2.resize(field, (max(grid.columns // step, 1), max(grid.rows // step, 1)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), scale / step / grid.spacing)
    return np.asarray(cv2.resize(small, (grid.columns, grid.rows), interpolation=cv2.INTER_LINEAR), np.float32)


def render(
    view: View,
    anatomy: Anatomy,
    lesions: tuple[Lesion, ...],
    distractors: tuple[Distractor, ...],
    vendor: Vendor,
    seeds: tuple[int, ...],
) -> Picture:
    """Render one view.

    Parameters
    ----------
    lesions
        The lesions of this breast.
    distractors
        Of both breasts.
    seeds
        Of this view; equal arguments give equal pixels.
    """
    detector = vendor.grid
    rng = np.random.default_rng(seeds)
    breast = model_breast(view, anatomy, distractors, detector, rng)
    noise = rng.standard_normal((detector.rows, detector.columns), dtype=np.float32)
    centres = tuple(anatomy.place(each.point, each.radius, view.position, detector.height) for each in lesions)
    shapes = tuple(
        Shape.draw(each, view.position, np.random.default_rng([seeds[0], number]))
        for number, each in enumerate(lesions, 1)
    )
    clean = expose(breast, breast.attenuation, vendor, anatomy)
    exposure = expose(breast, with_masses(breast, shapes, centres), vendor, anatomy) if lesions else clean
    detected = detect(enlarged(exposure, detector), noise, vendor)
    pixels = present(detected, clean, breast, vendor, anatomy)
    top = np.float32((1 << RAW_BITS) - 1)
    raw = np.clip(detected * np.float32(1500), 0, top).astype(np.uint16)
    masks = tuple(shape.mask(centre, detector) for shape, centre in zip(shapes, centres, strict=True))
    nipple = anatomy.nipple(view.position, detector.height)
    picture = Picture(
        pixels,
        raw,
        masks,
        tuple(_pixel(centre, detector) for centre in centres),
        tuple((each, _pixel(centre, detector)) for each, centre in breast.distractors),
        _pixel(nipple, detector),
    )
    return mirrored(picture) if view.laterality is Laterality.RIGHT else picture


def _pixel(point: tuple[float, float], grid: Grid) -> tuple[float, float]:
    """Return row and column of a point in mm."""
    return point[0] / grid.spacing - 0.5, point[1] / grid.spacing - 0.5


def detect(exposure: Field, noise: Field, vendor: Vendor) -> Field:
    """Return the exposure with quantum and electronic noise, as a detector counts it."""
    area = np.float32(vendor.photons * vendor.grid.spacing**2)
    electronic = np.float32((vendor.electronic * vendor.grid.spacing / 0.1) ** 2)
    spread = np.sqrt(np.maximum(exposure, 0) * area + electronic) / area
    return np.asarray(np.maximum(exposure + spread * noise, np.float32(1e-4)), np.float32)


def present(detected: Field, clean: Field, breast: Breast, vendor: Vendor, anatomy: Anatomy) -> NDArray[np.uint16]:
    """Return the picture of an exposure; ``clean`` is that of the breast without masses."""
    grid, detector = breast.grid, vendor.grid
    inside = breast.slab.inside.astype(np.float32)
    # Log exposure over what fat of the compressed thickness would give, and less of it where the breast thins out.
    base = np.float32(vendor.equalised) * FAT * (breast.slab.thickness - np.float32(anatomy.thickness))
    base = _blurred(base, 3.0, grid)
    known = -np.log(np.maximum(clean, 1e-4)) - base
    weight = np.maximum(_blurred(inside, 12.0, grid), 0.05)
    broad = _blurred(np.asarray(known * inside, np.float32), 12.0, grid) / weight
    middle, low, high = np.percentile(known[::4, ::4][breast.slab.from_skin[::4, ::4] > 6], (50, 2, 99.5))
    width = max(1.12 * float(high - low), 0.45)
    base += np.float32(vendor.flattened) * (broad - np.float32(middle))
    signal = -np.log(detected) - enlarged(base, detector)
    fine = cv2.GaussianBlur(signal, (0, 0), max(1.0 / detector.spacing, 0.8))
    signal += np.float32(vendor.sharpened) * (signal - fine)
    grey = vendor.curve((signal - np.float32(0.25 * middle + 0.75 * (low + high) / 2)) / np.float32(width))
    grey *= enlarged(np.asarray(inside, np.float32), detector) > 0.5
    return np.asarray(grey * np.float32((1 << vendor.bits) - 1), np.uint16)


def mirrored(picture: Picture) -> Picture:
    """Return the picture of the other side."""
    last = picture.pixels.shape[1] - 1
    return Picture(
        np.ascontiguousarray(picture.pixels[:, ::-1]),
        np.ascontiguousarray(picture.raw[:, ::-1]),
        tuple(np.ascontiguousarray(mask[:, ::-1]) for mask in picture.masks),
        tuple((row, last - column) for row, column in picture.centres),
        tuple((each, (row, last - column)) for each, (row, column) in picture.distractors),
        (picture.nipple[0], last - picture.nipple[1]),
    )
